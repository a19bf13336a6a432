//! One call, from the caller's side.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use callboard_messages::{CallError, Caller, Failure, Operation};
use tokio::task::coop;
use tracing::Span;
use uuid::Uuid;

use super::{
    Envelope, Grant, Shard, Waiting, elsewhere,
    execution::{self, Step},
    operation_span, queued, slot,
};
use crate::{
    domain::{
        core::DomainCore,
        operation::{Outcome, check_access},
    },
    shard::{
        keys::{KeyGuard, place_of},
        local,
        port::{Port, Rejection},
        sweep::Sweeper,
    },
};

/// The future of a call: nothing happens before it is polled. It belongs to the thread it is polled on.
#[must_use = "a call is made by awaiting it"]
pub struct Ask<'a, M: Operation> {
    core: Option<&'a Arc<DomainCore>>,
    caller: &'a Caller,
    state: AskState<M>,
}

/// A call that was begun: its outcome, or where to wait for it.
type Begun<M> = Result<Outcome<M>, AskState<M>>;

enum AskState<M: Operation> {
    New(M),
    Waiting(
        Waiting<M::Reply, M::Error>,
        #[expect(dead_code, reason = "held, and dropped with the call")] Option<Watched>,
    ),
    Ended,
}

// The message is moved out of the future, never pinned in it.
impl<M: Operation> Unpin for Ask<'_, M> {}

impl<'a, M: Operation> Ask<'a, M> {
    pub(crate) const fn new(core: Option<&'a Arc<DomainCore>>, caller: &'a Caller, message: M) -> Self {
        Self { core, caller, state: AskState::New(message) }
    }

    fn begin(&self, message: M, cx: &mut Context<'_>) -> Begun<M> {
        match self.try_begin(message, cx) {
            Ok(begun) => begun,
            Err(failure) => Ok(Err(failure.into())),
        }
    }

    fn try_begin(&self, message: M, cx: &mut Context<'_>) -> Result<Begun<M>, Failure> {
        check_access::<M>(self.caller)?;
        let Some(core) = self.core else {
            return Err(Failure::Internal(format!("no domain of this node answers {}", M::NAME)));
        };
        core.check_open()?;
        let now = core.clock.instant();
        let latest = now + M::TIMEOUT;
        let deadline = self.caller.deadline.map_or(latest, |deadline| deadline.min(latest));
        if deadline <= now {
            core.reject(Rejection::Expired);
            return Err(Failure::Expired);
        }
        if let Some(key) = M::KEY {
            let key = key(&message);
            return self.ask_keyed(core, key, message, now, deadline);
        }
        match local::shard(core.number) {
            Some(shard) => self.ask_here(&shard, message, now, deadline, cx),
            None => self.ask_abroad(core, message, now, deadline),
        }
    }

    #[inline]
    fn ask_here(
        &self,
        shard: &Rc<Shard>,
        message: M,
        now: Instant,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Result<Begun<M>, Failure> {
        let operation = shard.operation::<M>()?;
        let admission = shard.admit(now)?;
        if shard.has_room() {
            let span = operation_span!(M::NAME, shard.port.index, self.caller.correlation_id);
            let grant = Grant { operation: operation.index, started: now, deadline, admission, key: None, span };
            let call = shard.begin::<M>(self.caller, grant);
            return Ok(match execution::run(shard, operation, call, self.caller.clone(), message, cx) {
                Step::Ended(outcome) => Ok(outcome),
                Step::Waits(execution) => {
                    let (reply, waiting) = slot::running(shard.port.clone());
                    execution.detach(shard.clone(), reply);
                    Err(AskState::Waiting(waiting, None))
                }
            });
        }
        if let Err(full) = shard.port.reserve() {
            shard.release(admission, now);
            return Err(full);
        }
        let (mut envelope, waiting) = self.envelope(shard.port.clone(), message, deadline, None);
        envelope.admission = Some(admission);
        shard.accept(envelope);
        Ok(Err(AskState::Waiting(waiting, None)))
    }

    fn ask_abroad(&self, core: &DomainCore, message: M, now: Instant, deadline: Instant) -> Result<Begun<M>, Failure> {
        let port = core.pick().ok_or_else(|| core.down())?;
        enter_queue(core, &port, now)?;
        let (envelope, waiting) = self.envelope(port.clone(), message, deadline, None);
        port.post(envelope);
        let watched = Watched::new(core, deadline, &waiting);
        Ok(Err(AskState::Waiting(waiting, Some(watched))))
    }

    /// All calls of a key go to one shard, in order: those that find others of their key before them go through its
    /// mailbox even when it is here.
    fn ask_keyed(
        &self,
        core: &Arc<DomainCore>,
        key: Uuid,
        message: M,
        now: Instant,
        deadline: Instant,
    ) -> Result<Begun<M>, Failure> {
        let ports = core.ports();
        let here = local::shard(core.number);
        let home = |held: Option<usize>| {
            let begin = held.unwrap_or_else(|| place_of(key, ports.len()));
            let mut from_there = ports.iter().cycle().skip(begin).take(ports.len());
            let port = from_there.find(|port| port.mailbox().is_some()).ok_or_else(|| core.down())?;
            enter_queue(core, port, now).map(|()| port.index)
        };
        let (direct, port, waiting) = core
            .keys
            .enter(core, key, home, |index, alone, guard| {
                let port = ports.get(index)?;
                let (envelope, waiting) = self.envelope(port.clone(), message, deadline, Some(guard));
                if alone && here.as_ref().is_some_and(|here| here.port.index == index) {
                    return Some((Some(envelope), port, waiting));
                }
                port.post(envelope);
                Some((None, port, waiting))
            })?
            .ok_or_else(|| core.down())?;
        if let (Some(envelope), Some(here)) = (direct, &here) {
            here.accept(envelope);
        }
        let is_here = here.is_some_and(|here| here.port.index == port.index);
        let watched = (!is_here).then(|| Watched::new(core, deadline, &waiting));
        Ok(Err(AskState::Waiting(waiting, watched)))
    }

    #[expect(clippy::type_complexity, reason = "the two ends of one call")]
    fn envelope(
        &self,
        port: Arc<Port>,
        message: M,
        deadline: Instant,
        key: Option<KeyGuard>,
    ) -> (Box<Envelope<M>>, Waiting<M::Reply, M::Error>) {
        let (reply, waiting) = queued(port);
        let caller = self.caller.clone();
        let wanted = tracing::enabled!(target: "callboard::operation", tracing::Level::DEBUG);
        let parent = if wanted { Span::current().id() } else { None };
        (Box::new(Envelope { caller, message, deadline, admission: None, key, parent, reply }), waiting)
    }
}

/// What another thread may ask of a shard without its help: the breaker, then a place in its queue.
fn enter_queue(core: &DomainCore, port: &Port, now: Instant) -> Result<(), Failure> {
    if let Some(retry_after) = port.breaker_refuses(now).filter(|_| core.judges(port)) {
        port.reject(Rejection::Open);
        return Err(Failure::Unavailable { retry_after });
    }
    port.reserve()
}

impl<M: Operation> Future for Ask<'_, M> {
    type Output = Outcome<M>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if matches!(this.state, AskState::New(_)) {
            // A caller in a loop whose every answer is there at once would keep the thread to itself.
            let budget = ready!(coop::poll_proceed(cx));
            budget.made_progress();
            if let AskState::New(message) = std::mem::replace(&mut this.state, AskState::Ended) {
                match this.begin(message, cx) {
                    Ok(outcome) => return Poll::Ready(noted(outcome)),
                    Err(state) => this.state = state,
                }
            }
        }
        match &mut this.state {
            AskState::Waiting(waiting, _) => {
                let outcome = ready!(Pin::new(waiting).poll(cx));
                this.state = AskState::Ended;
                Poll::Ready(noted(outcome))
            }
            AskState::New(_) | AskState::Ended => Poll::Pending,
        }
    }
}

/// A failure counts where it happened, and not with whoever asked.
#[inline]
fn noted<R, E>(outcome: Result<R, CallError<E>>) -> Result<R, CallError<E>> {
    if let Err(CallError::Failed(failure)) = &outcome {
        elsewhere::note(failure);
    }
    outcome
}

impl<M: Operation> Drop for Ask<'_, M> {
    fn drop(&mut self) {
        if matches!(self.state, AskState::Waiting(..)) {
            elsewhere::note_left();
        }
    }
}

/// A call to another thread, watched by this one: a shard whose thread is blocked cannot notice a deadline.
struct Watched {
    sweeper: Rc<Sweeper>,
    number: usize,
}

impl Watched {
    fn new<R: Send + 'static, E: Send + 'static>(
        core: &DomainCore,
        deadline: Instant,
        waiting: &Waiting<R, E>,
    ) -> Self {
        let sweeper = local::sweeper(core.node, &core.clock);
        let number = sweeper.await_abroad(deadline, waiting.overdue());
        Self { sweeper, number }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.sweeper.forget_abroad(self.number);
    }
}
