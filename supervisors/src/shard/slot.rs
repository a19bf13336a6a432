//! Where an answer is put and waited for, when it is not there at once.
//!
//! A call that waits goes through `queued → running → done`; `queued → gone` when its caller leaves before it began.
//! Who takes it out of `queued` gives its place in the queue back, so that it is given back once.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use callboard_messages::{CallError, Failure};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::shard::port::{Port, Rejection};

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const DONE: u8 = 2;
const GONE: u8 = 3;

pub(crate) struct Slot<R, E> {
    port: Arc<Port>,
    phase: AtomicU8,
    answer: Mutex<Option<Result<R, CallError<E>>>>,
    caller: AtomicWaker,
}

/// A call that can be given up without knowing what it asks.
pub(crate) trait Overdue {
    /// The deadline has passed: the caller is told, whatever the shard does.
    fn overdue(&self);
}

/// The shard's end. Dropped without an answer, it tells the caller that there is none.
pub(crate) struct Reply<R, E>(Arc<Slot<R, E>>);

/// The caller's end. Dropped before the call began, it takes it out of the queue.
pub(crate) struct Waiting<R, E>(Arc<Slot<R, E>>);

/// The two ends of a call that has a place in the queue of `port`, which the caller has reserved.
pub(crate) fn queued<R, E>(port: Arc<Port>) -> (Reply<R, E>, Waiting<R, E>) {
    pair(port, QUEUED)
}

/// The two ends of a call that runs.
pub(crate) fn running<R, E>(port: Arc<Port>) -> (Reply<R, E>, Waiting<R, E>) {
    pair(port, RUNNING)
}

fn pair<R, E>(port: Arc<Port>, phase: u8) -> (Reply<R, E>, Waiting<R, E>) {
    let slot =
        Arc::new(Slot { port, phase: AtomicU8::new(phase), answer: Mutex::new(None), caller: AtomicWaker::new() });
    (Reply(slot.clone()), Waiting(slot))
}

impl<R, E> Slot<R, E> {
    fn dequeue(&self, to: u8) -> bool {
        // A look is cheaper than an exchange, and mostly there is nothing to exchange.
        let was_queued = self.phase.load(Ordering::Acquire) == QUEUED
            && self.phase.compare_exchange(QUEUED, to, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if was_queued {
            self.port.leave();
        }
        was_queued
    }

    /// Puts the answer there, unless there is one or the caller has gone. `failure` says what a call is answered that
    /// is still in the queue, when that is another answer.
    fn answer(&self, answer: Result<R, CallError<E>>, if_queued: Option<Failure>) {
        let mut place = self.answer.lock();
        let was_queued = self.dequeue(DONE);
        if !was_queued && self.phase.load(Ordering::Acquire) != RUNNING {
            return;
        }
        *place = Some(match if_queued {
            Some(failure) if was_queued => Err(failure.into()),
            _ => answer,
        });
        // A reader that sees this waits for the lock.
        self.phase.store(DONE, Ordering::Release);
        drop(place);
        self.caller.wake();
    }
}

impl<R, E> Overdue for Slot<R, E> {
    fn overdue(&self) {
        if self.phase.load(Ordering::Acquire) == QUEUED {
            self.port.reject(Rejection::Expired);
        }
        self.answer(Err(Failure::Timeout.into()), Some(Failure::Expired));
    }
}

impl<R, E> Reply<R, E> {
    /// Takes the call out of the queue to run it; false when its caller has gone.
    pub(crate) fn begin(&self) -> bool {
        self.0.dequeue(RUNNING)
    }

    /// Whether nobody waits any more and nothing has begun.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.phase.load(Ordering::Acquire) >= DONE
    }

    pub(crate) fn send(self, answer: Result<R, CallError<E>>) {
        self.0.answer(answer, None);
    }
}

impl<R, E> Drop for Reply<R, E> {
    fn drop(&mut self) {
        if !self.is_gone() {
            let lost = Failure::Internal("the shard ended while the call ran".to_owned());
            let unavailable = Failure::Unavailable { retry_after: Duration::from_secs(1) };
            self.0.answer(Err(lost.into()), Some(unavailable));
        }
    }
}

impl<R: Send + 'static, E: Send + 'static> Waiting<R, E> {
    pub(crate) fn overdue(&self) -> Arc<dyn Overdue> {
        self.0.clone()
    }
}

impl<R, E> Future for Waiting<R, E> {
    type Output = Result<R, CallError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let slot = &self.0;
        if slot.phase.load(Ordering::Acquire) != DONE {
            slot.caller.register(cx.waker());
            if slot.phase.load(Ordering::Acquire) != DONE {
                return Poll::Pending;
            }
        }
        match slot.answer.lock().take() {
            Some(answer) => Poll::Ready(answer),
            None => Poll::Pending,
        }
    }
}

impl<R, E> Drop for Waiting<R, E> {
    fn drop(&mut self) {
        self.0.dequeue(GONE);
    }
}
