//! Where a call is left for its shard, and its outcome for its caller, when that is not there at once.
//!
//! A call that waits goes through `queued → running → done`; `queued → gone` when its caller leaves before it began.
//! Who takes it out of `queued` gives its place in the queue back, so that it is given back once.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use callboard_messages::{CallError, Caller, Failure, Operation};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::{
    operation::{Begun, Invocation, LocalOperation},
    question::Step,
};
use crate::{
    domain::operation::Outcome,
    shard::port::{Port, Rejection},
    telemetry::stats::Ending,
};

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const DONE: u8 = 2;
const GONE: u8 = 3;

/// A call between its caller and its shard.
pub(crate) struct Slot<M: Operation> {
    exchange: Exchange,
    content: Mutex<Content<M>>,
}

/// The part of a slot that is the same for all operations.
pub(crate) struct Exchange {
    port: Arc<Port>,
    phase: AtomicU8,
    caller: AtomicWaker,
}

pub(crate) enum Content<M: Operation> {
    Message(M),
    /// The message was taken out to be carried out, or the outcome by the caller.
    Taken,
    Outcome(Outcome<M>),
}

/// A slot of any operation.
pub(crate) trait AnySlot: Send + Sync {
    fn exchange(&self) -> &Exchange;
    /// Looks at what is in it, or changes it.
    fn with(&self, look: &mut dyn FnMut(&mut dyn AnyContent));
    /// Takes the message out and carries it out as far as it goes without waiting. The outcome stays here.
    fn run(self: Arc<Self>, operation: &LocalOperation, caller: &Caller, cx: &mut Context<'_>) -> Step;
}

/// What is in a slot of any operation.
pub(crate) trait AnyContent {
    /// The outcome is this failure.
    fn fail(&mut self, failure: Failure);
    /// The failure that is the outcome.
    fn failure(&self) -> Option<&Failure>;
}

impl<M: Operation> AnyContent for Content<M> {
    fn fail(&mut self, failure: Failure) {
        *self = Self::Outcome(Err(failure.into()));
    }

    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Outcome(Err(CallError::Failed(failure))) => Some(failure),
            _ => None,
        }
    }
}

impl<M: Operation> Slot<M> {
    /// Of a call that has a place in the queue of `port`, which the caller has reserved.
    pub(crate) fn queued(port: Arc<Port>, message: M) -> Arc<Self> {
        Arc::new(Self { exchange: Exchange::new(port, QUEUED), content: Mutex::new(Content::Message(message)) })
    }

    /// Of a call that runs: the slot, and what is left to do, which puts the outcome there.
    pub(crate) fn running(port: Arc<Port>, rest: Invocation<M>) -> (Arc<Self>, Step) {
        let slot = Arc::new(Self { exchange: Exchange::new(port, RUNNING), content: Mutex::new(Content::Taken) });
        let step = slot.clone().suspend(rest);
        (slot, step)
    }

    fn suspend(self: Arc<Self>, rest: Invocation<M>) -> Step {
        Step::Waits(Box::pin(Suspended { rest, slot: self.clone() }), self)
    }

    /// Takes the outcome out when it is there.
    pub(crate) fn poll_outcome(&self, cx: &mut Context<'_>) -> Poll<Outcome<M>> {
        ready!(self.exchange.poll_done(cx));
        match std::mem::replace(&mut *self.content.lock(), Content::Taken) {
            Content::Outcome(outcome) => Poll::Ready(outcome),
            Content::Message(_) | Content::Taken => Poll::Pending,
        }
    }
}

impl<M: Operation> AnySlot for Slot<M> {
    fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    fn with(&self, look: &mut dyn FnMut(&mut dyn AnyContent)) {
        look(&mut *self.content.lock());
    }

    fn run(self: Arc<Self>, operation: &LocalOperation, caller: &Caller, cx: &mut Context<'_>) -> Step {
        let message = match std::mem::replace(&mut *self.content.lock(), Content::Taken) {
            Content::Message(message) => Some(message),
            Content::Taken | Content::Outcome(_) => None,
        };
        match operation.begin(caller, message, cx) {
            Begun::Ended((outcome, ending)) => {
                *self.content.lock() = Content::Outcome(outcome);
                Step::Ended(ending)
            }
            Begun::Waits(rest) => self.suspend(rest),
        }
    }
}

/// A message that is carried out; its outcome is put into the slot.
struct Suspended<M: Operation> {
    rest: Invocation<M>,
    slot: Arc<Slot<M>>,
}

impl<M: Operation> Future for Suspended<M> {
    type Output = Ending;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let (outcome, ending) = ready!(self.rest.as_mut().poll(cx));
        *self.slot.content.lock() = Content::Outcome(outcome);
        Poll::Ready(ending)
    }
}

impl Exchange {
    fn new(port: Arc<Port>, phase: u8) -> Self {
        Self { port, phase: AtomicU8::new(phase), caller: AtomicWaker::new() }
    }

    fn dequeue(&self, to: u8) -> bool {
        // A look is cheaper than an exchange, and mostly there is nothing to exchange.
        let was_queued = self.phase.load(Ordering::Acquire) == QUEUED
            && self.phase.compare_exchange(QUEUED, to, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if was_queued {
            self.port.leave();
        }
        was_queued
    }

    fn poll_done(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.phase.load(Ordering::Acquire) != DONE {
            self.caller.register(cx.waker());
            if self.phase.load(Ordering::Acquire) != DONE {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// The caller goes: a call that has not begun is taken out of the queue.
    pub(crate) fn leave(&self) {
        self.dequeue(GONE);
    }
}

impl dyn AnySlot {
    /// Tells the caller that the outcome is there, unless it knows of one or has gone. `failure` is the outcome, if it is
    /// one; `if_queued` that of a call which is still in the queue, when it is another.
    fn settle(&self, mut failure: Option<Failure>, mut if_queued: Option<Failure>) {
        let exchange = self.exchange();
        let mut is_told = false;
        self.with(&mut |content| {
            let was_queued = exchange.dequeue(DONE);
            if !was_queued && exchange.phase.load(Ordering::Acquire) != RUNNING {
                return;
            }
            let if_queued = if_queued.take().filter(|_| was_queued);
            if let Some(failure) = if_queued.or(failure.take()) {
                content.fail(failure);
            }
            // A reader that sees this waits for the lock.
            exchange.phase.store(DONE, Ordering::Release);
            is_told = true;
        });
        if is_told {
            exchange.caller.wake();
        }
    }

    /// The deadline has passed: the caller is told, whatever the shard does.
    pub(crate) fn overdue(&self) {
        let exchange = self.exchange();
        if exchange.phase.load(Ordering::Acquire) == QUEUED {
            exchange.port.reject(Rejection::Expired);
        }
        self.settle(Some(Failure::Timeout), Some(Failure::Expired));
    }
}

/// The shard's end of a slot. Dropped without an answer, it tells the caller that there is none.
pub(crate) struct Reply(Arc<dyn AnySlot>);

impl Reply {
    pub(crate) fn new(slot: Arc<dyn AnySlot>) -> Self {
        Self(slot)
    }

    /// Takes the call out of the queue to run it; false when its caller has gone.
    pub(crate) fn begin(&self) -> bool {
        self.0.exchange().dequeue(RUNNING)
    }

    /// Whether nobody waits any more and nothing has begun.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.exchange().phase.load(Ordering::Acquire) >= DONE
    }

    /// Carries the message out as far as it goes without waiting.
    pub(crate) fn run(&self, operation: &LocalOperation, caller: &Caller, cx: &mut Context<'_>) -> Step {
        self.0.clone().run(operation, caller, cx)
    }

    /// The failure that the call ended in, before its caller has it.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let mut failure = None;
        self.0.with(&mut |content| failure = content.failure().cloned());
        failure
    }

    /// Lets the caller have the outcome that is in the slot.
    pub(crate) fn deliver(self) {
        self.0.settle(None, None);
    }

    pub(crate) fn fail(self, failure: Failure) {
        self.0.settle(Some(failure), None);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.is_gone() {
            let lost = Failure::Internal("the shard ended while the call ran".to_owned());
            let unavailable = Failure::Unavailable { retry_after: Duration::from_secs(1) };
            self.0.settle(Some(lost), Some(unavailable));
        }
    }
}
