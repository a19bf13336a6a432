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

use crate::presence::Whom;

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
    /// Who is asked.
    whom: Whom,
    /// Of a call that may be made again: the publisher's channel that it was about to leave by.
    repeatable: Option<u64>,
}

/// Whether a call is with a certain node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// With it, or with nobody.
    Sure,
    /// It may be with another as well.
    Possible,
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

    /// Answers a call; false when nobody waits for it.
    pub(crate) fn answer(&self, number: u64, answer: Answer) -> bool {
        let waiting = self.waiting.lock().remove(&number);
        waiting.is_some_and(|waiting| waiting.answer.send(answer).is_ok())
    }

    /// Says of every call that may be made again, and left by an earlier channel than this, that its outcome is unknown:
    /// the call or its reply may be lost with that channel. To the others a reply may still come.
    pub(crate) fn give_up_before(&self, channel: u64) {
        self.give_up(|waiting| waiting.repeatable.is_some_and(|of| of < channel));
    }

    /// Says of the calls that are with a node which is lost that their outcome is unknown: of those that are certainly
    /// with it, and of those that may be and can be made again. How many these are.
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
            // Whoever waits no more needs no answer.
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
