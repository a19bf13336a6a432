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
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
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

    /// A place for an answer; `None` when too many wait already.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<WaitingCall> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.len() >= self.at_most {
            return None;
        }
        waiting.insert(number, sender);
        Some(WaitingCall { calls: self.clone(), number, answer })
    }

    /// Answers a call; false when nobody waits for it.
    pub(crate) fn answer(&self, number: u64, answer: Answer) -> bool {
        let waiting = self.waiting.lock().remove(&number);
        waiting.is_some_and(|sender| sender.send(answer).is_ok())
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
