//! Calls that wait for replies of other nodes.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use callboard_supervisors::remote::CallFailure;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// What a call ends in.
pub(crate) type Answer = Result<Bytes, CallFailure>;

/// The calls of a node, by their numbers.
pub(crate) struct Calls {
    next: AtomicU64,
    at_most: usize,
    waiting: Mutex<HashMap<u64, Waiting>>,
}

struct Waiting {
    answer: oneshot::Sender<Answer>,
    /// Of a call that may be made again: the publisher's channel that it was about to leave by.
    repeatable: Option<u64>,
}

/// A call that waits. Dropped, it waits no more.
pub(crate) struct WaitingCall {
    calls: Arc<Calls>,
    pub(crate) number: u64,
    pub(crate) answer: oneshot::Receiver<Answer>,
}

impl Calls {
    pub(crate) fn new(at_most: usize) -> Self {
        // Begins anywhere: a reply to an earlier life of this node must not meet a call of this one.
        Self { next: AtomicU64::new(rand::random::<u64>() >> 1), at_most, waiting: Mutex::default() }
    }

    /// A place for an answer; `None` when too many wait already. A call that may be made again names the channel it leaves
    /// by.
    pub(crate) fn begin(self: &Arc<Self>, repeatable: Option<u64>) -> Option<WaitingCall> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.len() >= self.at_most {
            return None;
        }
        waiting.insert(number, Waiting { answer: sender, repeatable });
        Some(WaitingCall { calls: self.clone(), number, answer })
    }

    /// Answers a call; false when nobody waits for it.
    pub(crate) fn answer(&self, number: u64, answer: Answer) -> bool {
        let waiting = self.waiting.lock().remove(&number);
        waiting.is_some_and(|waiting| waiting.answer.send(answer).is_ok())
    }

    /// Says of every call that may be made again, and left by an earlier channel than this, that its outcome is unknown:
    /// the call or its reply may be lost with that channel. To the others a reply may still come.
    pub(crate) fn give_up_before(&self, channel: u64) {
        let is_lost = |_: &u64, waiting: &mut Waiting| waiting.repeatable.is_some_and(|of| of < channel);
        let lost: Vec<_> = self.waiting.lock().extract_if(is_lost).collect();
        for (_, waiting) in lost {
            // Whoever waits no more needs no answer.
            let _ = waiting.answer.send(Err(CallFailure::Unknown));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().len()
    }
}

impl Drop for WaitingCall {
    fn drop(&mut self) {
        self.calls.waiting.lock().remove(&self.number);
    }
}
