//! A call that runs: polled once where it was asked, and as a task of its own when it has to wait.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use callboard_messages::{CallError, Caller, Failure, Operation};
use futures_util::future::LocalBoxFuture;
use tokio::task::AbortHandle;
use tracing::Span;
use uuid::Uuid;

use super::{
    LocalOperation, Shard,
    elsewhere::{self, Elsewhere},
    operation::Judged,
    slot::Reply,
};
use crate::{
    blocking::panic_message,
    breaker::{Admission, Verdict},
    domain::operation::Outcome,
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
    /// What the outcome says about the domain, as far as it is not what another one failed with.
    #[inline]
    fn judge<R, E>(&self, outcome: &Result<R, CallError<E>>, ending: Ending) -> Ending {
        match outcome {
            Err(CallError::Failed(failure)) if self.elsewhere.is_from_there(failure) => ending.judged(Verdict::Nothing),
            _ => ending,
        }
    }

    #[inline]
    fn scope(&self) -> Scope {
        Scope::new(self.correlation_id, self.name, &self.span)
    }

    /// The client reads a fixed sentence; the log has the cause.
    #[inline]
    fn log<R, E>(&self, outcome: &Result<R, CallError<E>>) {
        if let Err(CallError::Failed(Failure::Internal(cause))) = outcome {
            tracing::error!(operation = self.name, correlation_id = %self.correlation_id, %cause, "a call failed");
        }
    }
}

/// A call that waits for something.
pub(crate) struct Execution<M: Operation> {
    call: Call,
    future: LocalBoxFuture<'static, Judged<M>>,
}

/// How far a call has come.
pub(crate) enum Step<M: Operation> {
    Ended(Outcome<M>),
    Waits(Execution<M>),
}

/// Runs a call as far as it goes without waiting. It holds a permit already, and gives it back when it ends here.
#[inline]
pub(crate) fn run<M: Operation>(
    shard: &Shard,
    operation: &LocalOperation<M>,
    call: Call,
    caller: Caller,
    message: M,
    cx: &mut Context<'_>,
) -> Step<M> {
    let entered = (call.scope().enter(), call.elsewhere.enter());
    let polled = call.span.in_scope(|| {
        catch_unwind(AssertUnwindSafe(|| {
            let mut future = (operation.invoke)(caller, message);
            match future.as_mut().poll(cx) {
                Poll::Ready(judged) => {
                    drop(future);
                    Ok(judged)
                }
                Poll::Pending => Err(future),
            }
        }))
    });
    drop(entered);
    match polled {
        Ok(Ok((outcome, ending))) => {
            call.log(&outcome);
            shard.conclude(&call, call.judge(&outcome, ending));
            Step::Ended(outcome)
        }
        Ok(Err(future)) => Step::Waits(Execution { call, future }),
        Err(panic) => Step::Ended(shard.panicked(&call, panic_message(&*panic))),
    }
}

/// Runs a call from the queue: whatever it waits for wakes a task of its own, not the one that happens to be running.
pub(crate) fn run_detached<M: Operation>(
    shard: &Rc<Shard>,
    operation: &LocalOperation<M>,
    call: Call,
    caller: Caller,
    message: M,
    reply: Reply<M::Reply, M::Error>,
) {
    let mut cx = Context::from_waker(Waker::noop());
    match run(shard, operation, call, caller, message, &mut cx) {
        Step::Ended(outcome) => reply.send(outcome),
        Step::Waits(execution) => execution.detach(shard.clone(), reply),
    }
}

impl<M: Operation> Execution<M> {
    /// Goes on as a task of the shard. A caller that drops its end does not stop it, and a caller that is not polled
    /// does not hold it up.
    pub(crate) fn detach(self, shard: Rc<Shard>, reply: Reply<M::Reply, M::Error>) {
        let running = Rc::new(RunningCall {
            deadline: self.call.deadline,
            shard: shard.clone(),
            number: Cell::new(None),
            task: RefCell::new(None),
            rest: RefCell::new(Some((self, reply))),
        });
        running.number.set(Some(shard.register(running.clone())));
        let task = actix_rt::spawn({
            let running = running.clone();
            std::future::poll_fn(move |cx| running.poll(cx))
        });
        *running.task.borrow_mut() = Some(task.abort_handle());
    }
}

/// A call that the sweeper can end.
pub(crate) trait Running {
    fn deadline(&self) -> Instant;
    /// Drops the handler's future and gives the permit back.
    fn end(&self, failure: Failure);
}

struct RunningCall<M: Operation> {
    deadline: Instant,
    shard: Rc<Shard>,
    number: Cell<Option<usize>>,
    task: RefCell<Option<AbortHandle>>,
    rest: RefCell<Option<Rest<M>>>,
}

/// What is left to do: the handler's future, and where to put its outcome.
type Rest<M> = (Execution<M>, Reply<<M as Operation>::Reply, <M as Operation>::Error>);

impl<M: Operation> RunningCall<M> {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut rest = self.rest.borrow_mut();
        let Some((execution, _)) = &mut *rest else { return Poll::Ready(()) };
        let future = &mut execution.future;
        let call = &execution.call;
        let entered = (call.scope().enter(), call.elsewhere.enter());
        let polled = call.span.in_scope(|| catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))));
        drop(entered);
        let ended = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(judged)) => Ok(judged),
            Err(panic) => Err(panic_message(&*panic)),
        };
        let Some((execution, reply)) = rest.take() else { return Poll::Ready(()) };
        drop(rest);
        self.unregister();
        let Execution { call, future } = execution;
        // Values that the handler left in its future may panic as they are dropped.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(future))).map_err(|panic| panic_message(&*panic));
        match ended.and_then(|judged| dropped.map(|()| judged)) {
            Ok((outcome, ending)) => {
                call.log(&outcome);
                self.shard.conclude(&call, call.judge(&outcome, ending));
                reply.send(outcome);
            }
            Err(message) => reply.send(self.shard.panicked(&call, message)),
        }
        Poll::Ready(())
    }

    fn unregister(&self) {
        if let Some(number) = self.number.take() {
            self.shard.unregister(number);
        }
    }
}

impl<M: Operation> Running for RunningCall<M> {
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn end(&self, failure: Failure) {
        // A call that is being polled at this moment cannot be dropped; it is met again at the next tick.
        let Ok(Some((execution, reply))) = self.rest.try_borrow_mut().map(|mut rest| rest.take()) else { return };
        self.unregister();
        if let Some(task) = self.task.borrow_mut().take() {
            task.abort();
        }
        let Execution { call, future } = execution;
        let entered = call.elsewhere.enter();
        elsewhere::begin_leaving();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(future)));
        drop(entered);
        if let Err(panic) = dropped {
            reply.send(self.shard.panicked(&call, panic_message(&*panic)));
            return;
        }
        let ending = Ending::failed(&failure);
        let has_waited_elsewhere = call.elsewhere.is_waiting();
        self.shard.conclude(&call, if has_waited_elsewhere { ending.judged(Verdict::Nothing) } else { ending });
        reply.send(Err(failure.into()));
    }
}
