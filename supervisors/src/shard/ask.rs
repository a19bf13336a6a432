//! One call, from the caller's side.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use callboard_messages::{Caller, Failure, Operation};
use tokio::task::coop;
use tracing::Span;
use uuid::Uuid;

use super::{
    AnyQuestion, AnySlot, Envelope, Grant, Question, Shard, Signature, elsewhere, operation_span, question::Step,
    slot::Reply,
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
    course: Course<'a>,
    question: Question<M>,
}

// The message is moved out of the future, never pinned in it.
impl<M: Operation> Unpin for Ask<'_, M> {}

impl<'a, M: Operation> Ask<'a, M> {
    pub(crate) const fn new(core: Option<&'a Arc<DomainCore>>, caller: &'a Caller, message: M) -> Self {
        Self { course: Course { core, caller, state: State::New }, question: Question::Asked(message) }
    }
}

impl<M: Operation> Future for Ask<'_, M> {
    type Output = Outcome<M>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { course, question } = self.get_mut();
        ready!(course.poll(question, cx));
        question.take().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The course of a call of any operation.
pub(crate) struct Course<'a> {
    core: Option<&'a Arc<DomainCore>>,
    caller: &'a Caller,
    state: State,
}

enum State {
    New,
    /// For its slot, watched over if that is of another thread.
    Waits(#[expect(dead_code, reason = "held, and dropped with the call")] Option<Watched>),
    Ended,
}

impl Course<'_> {
    /// Ready when the outcome of the question is there.
    fn poll(&mut self, question: &mut dyn AnyQuestion, cx: &mut Context<'_>) -> Poll<()> {
        if let State::New = self.state {
            // A caller in a loop whose every answer is there at once would keep the thread to itself.
            let budget = ready!(coop::poll_proceed(cx));
            budget.made_progress();
            self.state = match self.begin(question, cx) {
                Ok(begun) => begun,
                Err(failure) => {
                    question.fail(failure);
                    State::Ended
                }
            };
        }
        if let State::Waits(_) = self.state {
            ready!(question.poll_outcome(cx));
            self.state = State::Ended;
        }
        // A failure counts where it happened, and not with whoever asked.
        if let Some(failure) = question.failure() {
            elsewhere::note(failure);
        }
        Poll::Ready(())
    }

    fn begin(&self, question: &mut dyn AnyQuestion, cx: &mut Context<'_>) -> Result<State, Failure> {
        let signature = question.signature();
        check_access(signature.access, self.caller)?;
        let Some(core) = self.core else {
            return Err(Failure::Internal(format!("no domain of this node answers {}", signature.name)));
        };
        core.check_open()?;
        let now = core.clock.instant();
        let latest = now + signature.timeout;
        let deadline = self.caller.deadline.map_or(latest, |deadline| deadline.min(latest));
        if deadline <= now {
            core.reject(Rejection::Expired);
            return Err(Failure::Expired);
        }
        if let Some(key) = question.key() {
            return self.ask_keyed(core, key, question, now, deadline);
        }
        match local::shard(core.number) {
            Some(shard) => self.ask_here(&shard, signature, question, now, deadline, cx),
            None => self.ask_abroad(core, question, now, deadline),
        }
    }

    #[inline]
    fn ask_here(
        &self,
        shard: &Rc<Shard>,
        signature: &'static Signature,
        question: &mut dyn AnyQuestion,
        now: Instant,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Result<State, Failure> {
        let operation = shard.operation(signature)?;
        let admission = shard.admit(now)?;
        if shard.has_room() {
            let span = operation_span!(signature.name, shard.port.index, self.caller.correlation_id);
            let grant = Grant { operation: operation.index, started: now, deadline, admission, key: None, span };
            let call = shard.begin(signature.name, self.caller, grant);
            match call.guard(|| question.run(&shard.port, operation, self.caller, cx)) {
                Ok(Step::Ended(ending)) => shard.ended(&call, ending, question.failure()),
                Ok(Step::Waits(rest, slot)) => {
                    shard.detach(call, rest, Reply::new(slot));
                    return Ok(State::Waits(None));
                }
                Err(panic) => return Err(shard.panicked(&call, &panic)),
            }
            return Ok(State::Ended);
        }
        if let Err(full) = shard.port.reserve() {
            shard.release(admission, now);
            return Err(full);
        }
        let mut envelope = self.envelope(&shard.port, question, deadline, None)?;
        envelope.admission = Some(admission);
        shard.accept(envelope);
        Ok(State::Waits(None))
    }

    fn ask_abroad(
        &self,
        core: &DomainCore,
        question: &mut dyn AnyQuestion,
        now: Instant,
        deadline: Instant,
    ) -> Result<State, Failure> {
        let port = core.pick().ok_or_else(|| core.down())?;
        enter_queue(core, &port, now)?;
        port.post(self.envelope(&port, question, deadline, None)?);
        Ok(State::Waits(Watched::new(core, deadline, question)))
    }

    /// All calls of a key go to one shard, in order: those that find others of their key before them go through its
    /// mailbox even when it is here.
    fn ask_keyed(
        &self,
        core: &Arc<DomainCore>,
        key: Uuid,
        question: &mut dyn AnyQuestion,
        now: Instant,
        deadline: Instant,
    ) -> Result<State, Failure> {
        let ports = core.ports();
        let here = local::shard(core.number);
        let home = |held: Option<usize>| {
            let begin = held.unwrap_or_else(|| place_of(key, ports.len()));
            let mut from_there = ports.iter().cycle().skip(begin).take(ports.len());
            let port = from_there.find(|port| port.mailbox().is_some()).ok_or_else(|| core.down())?;
            enter_queue(core, port, now).map(|()| port.index)
        };
        let (direct, is_here) = core.keys.enter(core, key, home, |index, alone, guard| -> Result<_, Failure> {
            let port = ports.get(index).ok_or_else(|| core.down())?;
            let envelope = self.envelope(port, question, deadline, Some(guard))?;
            let is_here = here.as_ref().is_some_and(|here| here.port.index == index);
            if alone && is_here {
                return Ok((Some(envelope), is_here));
            }
            port.post(envelope);
            Ok((None, is_here))
        })??;
        if let (Some(envelope), Some(here)) = (direct, &here) {
            here.accept(envelope);
        }
        let watched = if is_here { None } else { Watched::new(core, deadline, question) };
        Ok(State::Waits(watched))
    }

    /// For a call that has a place in the queue of `port`.
    fn envelope(
        &self,
        port: &Arc<Port>,
        question: &mut dyn AnyQuestion,
        deadline: Instant,
        key: Option<KeyGuard>,
    ) -> Result<Envelope, Failure> {
        let signature = question.signature();
        let Some(slot) = question.leave(port) else {
            port.leave();
            return Err(Failure::Internal(format!("{} was asked twice", signature.name)));
        };
        let wanted = tracing::enabled!(target: "callboard::operation", tracing::Level::DEBUG);
        let parent = if wanted { Span::current().id() } else { None };
        let (caller, reply) = (self.caller.clone(), Reply::new(slot));
        Ok(Envelope { signature, caller, deadline, admission: None, key, parent, reply })
    }
}

impl Drop for Course<'_> {
    fn drop(&mut self) {
        if let State::Waits(_) = self.state {
            elsewhere::note_left();
        }
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

/// A call to another thread, watched by this one: a shard whose thread is blocked cannot notice a deadline.
struct Watched {
    sweeper: Rc<Sweeper>,
    number: usize,
}

impl Watched {
    fn new(core: &DomainCore, deadline: Instant, question: &dyn AnyQuestion) -> Option<Self> {
        let slot: Arc<dyn AnySlot> = question.slot()?;
        let sweeper = local::sweeper(core.node, &core.clock);
        let number = sweeper.await_abroad(deadline, slot);
        Some(Self { sweeper, number })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.sweeper.forget_abroad(self.number);
    }
}
