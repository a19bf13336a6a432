//! A call that runs: polled once where it was asked, and as a task of its own when it has to wait.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use callboard_messages::{Caller, Failure};
use futures_util::future::LocalBoxFuture;
use tokio::task::AbortHandle;
use tracing::Span;
use uuid::Uuid;

use super::{
    LocalOperation, Shard,
    elsewhere::{self, Elsewhere},
    question::Step,
    slot::Reply,
};
use crate::{
    blocking::panic_message,
    breaker::{Admission, Verdict},
    shard::keys::KeyGuard,
    telemetry::{stats::Ending, trace::Scope},
};

/// What the runtime knows of a call that runs. It holds a permit until [`Shard::conclude`].
pub(crate) struct Call {
    pub(crate) name: &'static str,
    /// The operation's number among those of the domain.
    pub(crate) operation: usize,
    pub(crate) started: Instant,
    pub(crate) deadline: Instant,
    /// Which state of the shard it runs on.
    pub(crate) generation: u64,
    pub(crate) admission: Admission,
    pub(crate) key: Option<KeyGuard>,
    pub(crate) correlation_id: Uuid,
    pub(crate) span: Span,
    pub(crate) elsewhere: Elsewhere,
}

impl Call {
    /// Does a part of its work: what that says is logged as the call's, and a panic is caught and comes as its text.
    #[inline]
    pub(crate) fn guard<T>(&self, work: impl FnOnce() -> T) -> Result<T, String> {
        let scope = Scope::new(self.correlation_id, self.name, &self.span);
        let _entered = (scope.enter(), self.elsewhere.enter());
        let done = self.span.in_scope(|| catch_unwind(AssertUnwindSafe(work)));
        done.map_err(|panic| panic_message(&*panic))
    }
}

impl Shard {
    /// Gives the permit of a call back that ended in an outcome; `failure` is that of an ending which is one.
    #[inline]
    pub(crate) fn ended(&self, call: &Call, ending: Ending, failure: Option<&Failure>) {
        let Some(failure) = failure else { return self.conclude(call, ending) };
        // The client reads a fixed sentence; the log has the cause.
        if let Failure::Internal(cause) = failure {
            let (operation, correlation_id) = (call.name, call.correlation_id);
            tracing::error!(operation, %correlation_id, %cause, "a call failed");
        }
        let is_of_another = call.elsewhere.is_from_there(failure);
        self.conclude(call, if is_of_another { ending.judged(Verdict::Nothing) } else { ending });
    }

    /// Runs a call from the queue. It holds a permit already. Whatever it waits for wakes a task of its own, not the one
    /// that happens to be running.
    pub(crate) fn run(self: &Rc<Self>, operation: &LocalOperation, call: Call, caller: &Caller, reply: Reply) {
        let mut cx = Context::from_waker(Waker::noop());
        match call.guard(|| reply.run(operation, caller, &mut cx)) {
            Ok(Step::Ended(ending)) => {
                let failure = if ending.is_failure() { reply.failure() } else { None };
                self.ended(&call, ending, failure.as_ref());
                reply.deliver();
            }
            Ok(Step::Waits(rest, _)) => self.detach(call, rest, reply),
            Err(panic) => reply.fail(self.panicked(&call, &panic)),
        }
    }

    /// Lets a call go on as a task of the shard. A caller that drops its end does not stop it, and a caller that is not
    /// polled does not hold it up.
    pub(crate) fn detach(self: &Rc<Self>, call: Call, rest: LocalBoxFuture<'static, Ending>, reply: Reply) {
        let running = Rc::new(RunningCall {
            deadline: call.deadline,
            shard: self.clone(),
            number: Cell::new(None),
            task: RefCell::new(None),
            rest: RefCell::new(Some(Rest { call, future: rest, reply })),
        });
        running.number.set(Some(self.register(running.clone())));
        let task = actix_rt::spawn({
            let running = running.clone();
            std::future::poll_fn(move |cx| running.poll(cx))
        });
        *running.task.borrow_mut() = Some(task.abort_handle());
    }
}

/// A call that waits for something, and that the sweeper can end.
pub(crate) struct RunningCall {
    pub(crate) deadline: Instant,
    shard: Rc<Shard>,
    number: Cell<Option<usize>>,
    task: RefCell<Option<AbortHandle>>,
    rest: RefCell<Option<Rest>>,
}

/// What is left to do.
struct Rest {
    call: Call,
    /// Ends with the outcome in its slot.
    future: LocalBoxFuture<'static, Ending>,
    reply: Reply,
}

impl RunningCall {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut rest = self.rest.borrow_mut();
        let Some(Rest { call, future, .. }) = &mut *rest else { return Poll::Ready(()) };
        let ended = match call.guard(|| future.as_mut().poll(cx)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(ending)) => Ok(ending),
            Err(panic) => Err(panic),
        };
        let Some(Rest { call, future, reply }) = rest.take() else { return Poll::Ready(()) };
        drop(rest);
        self.unregister();
        // Values that the handler left in its future may panic as they are dropped.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(future))).map_err(|panic| panic_message(&*panic));
        match ended.and_then(|ending| dropped.map(|()| ending)) {
            Ok(ending) => {
                let failure = if ending.is_failure() { reply.failure() } else { None };
                self.shard.ended(&call, ending, failure.as_ref());
                reply.deliver();
            }
            Err(panic) => reply.fail(self.shard.panicked(&call, &panic)),
        }
        Poll::Ready(())
    }

    fn unregister(&self) {
        if let Some(number) = self.number.take() {
            self.shard.unregister(number);
        }
    }

    /// Drops the handler's future and gives the permit back.
    pub(crate) fn end(&self, failure: Failure) {
        // A call that is being polled at this moment cannot be dropped; it is met again at the next tick.
        let Ok(Some(Rest { call, future, reply })) = self.rest.try_borrow_mut().map(|mut rest| rest.take()) else {
            return;
        };
        self.unregister();
        if let Some(task) = self.task.borrow_mut().take() {
            task.abort();
        }
        let entered = call.elsewhere.enter();
        elsewhere::begin_leaving();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(future)));
        drop(entered);
        if let Err(panic) = dropped {
            reply.fail(self.shard.panicked(&call, &panic_message(&*panic)));
            return;
        }
        let ending = Ending::failed(&failure);
        let has_waited_elsewhere = call.elsewhere.is_waiting();
        self.shard.conclude(&call, if has_waited_elsewhere { ending.judged(Verdict::Nothing) } else { ending });
        reply.fail(failure);
    }
}
