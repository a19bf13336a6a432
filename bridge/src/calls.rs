//! Calls that await replies of other nodes.

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

use crate::presence::Whom;

/// The outcome of a call.
pub(crate) type Answer = Result<Bytes, CallFailure>;

/// The pending calls of a node, by their numbers.
pub(crate) struct Calls {
    next: AtomicU64,
    at_most: usize,
    waiting: Mutex<HashMap<u64, Waiting>>,
}

struct Waiting {
    answer: oneshot::Sender<Answer>,
    /// The domain or node that is asked.
    whom: Whom,
    /// For an idempotent call: the number of the publisher's channel that it is sent over.
    repeatable: Option<u64>,
}

/// Whether a call is at a certain node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// It is at this node, or at none.
    Sure,
    /// It is at this node or another.
    Possible,
}

/// A pending call. When dropped, its reply is not awaited any more.
pub(crate) struct WaitingCall {
    calls: Arc<Calls>,
    pub(crate) number: u64,
    pub(crate) answer: oneshot::Receiver<Answer>,
}

impl Calls {
    pub(crate) fn new(at_most: usize) -> Self {
        // Starts at a random number: a reply to an earlier run of this node must not meet a call of this one.
        Self { next: AtomicU64::new(rand::random::<u64>() >> 1), at_most, waiting: Mutex::default() }
    }

    /// Registers a call; `None` when too many are pending. `repeatable` is the channel of an idempotent call.
    pub(crate) fn begin(self: &Arc<Self>, whom: Whom, repeatable: Option<u64>) -> Option<WaitingCall> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.len() >= self.at_most {
            return None;
        }
        waiting.insert(number, Waiting { answer: sender, whom, repeatable });
        Some(WaitingCall { calls: self.clone(), number, answer })
    }

    /// Completes a call; false when it is not pending.
    pub(crate) fn answer(&self, number: u64, answer: Answer) -> bool {
        let waiting = self.waiting.lock().remove(&number);
        waiting.is_some_and(|waiting| waiting.answer.send(answer).is_ok())
    }

    /// Fails every idempotent call that was sent over an earlier channel than this as unknown: the call or its reply
    /// may be lost with that channel. The others may still get a reply.
    pub(crate) fn give_up_before(&self, channel: u64) {
        self.give_up(|waiting| waiting.repeatable.is_some_and(|of| of < channel));
    }

    /// Fails the calls at a lost node as unknown: those certainly at it, and idempotent ones that may be. Returns how
    /// many.
    pub(crate) fn give_up_at(&self, with_it: impl Fn(Whom) -> Option<Certainty>) -> usize {
        self.give_up(|waiting| match with_it(waiting.whom) {
            Some(Certainty::Sure) => true,
            Some(Certainty::Possible) => waiting.repeatable.is_some(),
            None => false,
        })
    }

    fn give_up(&self, is_lost: impl Fn(&Waiting) -> bool) -> usize {
        let lost: Vec<_> = self.waiting.lock().extract_if(|_, waiting| is_lost(waiting)).collect();
        let count = lost.len();
        for (_, waiting) in lost {
            // The caller may have gone.
            let _ = waiting.answer.send(Err(CallFailure::Unknown));
        }
        count
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn of_the_calls_that_may_be_with_a_lost_node_only_those_that_can_be_made_again_are_given_up() {
        let calls = Arc::new(Calls::new(10));
        let (lost, other) = (Uuid::now_v7(), Uuid::now_v7());
        let begin = |whom, repeatable| calls.begin(whom, repeatable).unwrap();
        let mut waiting = [
            begin(Whom::Node(lost), None),
            begin(Whom::Domain("deploy"), Some(1)),
            begin(Whom::Domain("deploy"), None),
            begin(Whom::Domain("auth"), Some(1)),
            begin(Whom::Node(other), Some(1)),
        ];
        let given_up = calls.give_up_at(|whom| match whom {
            Whom::Node(node) => (node == lost).then_some(Certainty::Sure),
            Whom::Domain(domain) => (domain == "deploy").then_some(Certainty::Possible),
        });
        let is_unknown = waiting.each_mut().map(|call| call.answer.try_recv() == Ok(Err(CallFailure::Unknown)));
        assert_eq!((given_up, is_unknown), (2, [true, true, false, false, false]));
        assert_eq!(calls.len(), 3);
    }
}
