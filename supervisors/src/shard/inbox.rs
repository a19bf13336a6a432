//! Where other threads leave calls for a shard.
//!
//! A call is put into a list, and only the first one of a list rings: the shard then takes the whole list at once. So
//! calls that come together pay for one message to the shard's actor, and for one wake-up, between them.

use parking_lot::Mutex;

use crate::shard::Envelope;

#[derive(Default)]
pub(crate) struct Inbox(Mutex<Left>);

#[derive(Default)]
struct Left {
    calls: Vec<Envelope>,
    rung: bool,
    closed: bool,
}

impl Inbox {
    /// Leaves a call; whether to ring. A closed inbox drops the call, which tells its caller that the shard is gone.
    pub(crate) fn leave(&self, call: Envelope) -> bool {
        let mut left = self.0.lock();
        if left.closed {
            drop(left);
            drop(call);
            return false;
        }
        left.calls.push(call);
        !std::mem::replace(&mut left.rung, true)
    }

    /// Takes what was left, in order, in exchange for an empty list.
    pub(crate) fn take(&self, empty: Vec<Envelope>) -> Vec<Envelope> {
        let mut left = self.0.lock();
        left.rung = false;
        std::mem::replace(&mut left.calls, empty)
    }

    /// Takes no more calls, and drops those that were left.
    pub(crate) fn close(&self) {
        let mut left = self.0.lock();
        left.closed = true;
        let calls = std::mem::take(&mut left.calls);
        drop(left);
        drop(calls);
    }
}
