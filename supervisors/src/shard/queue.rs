//! What waits on a shard, and when it gets its turn.

use std::{
    collections::{VecDeque, hash_map::Entry},
    rc::Rc,
    time::Instant,
};

use callboard_messages::Failure;
use uuid::Uuid;

use super::{Envelope, RunningCall, Shard};
use crate::shard::{
    port::{Rejection, ShardState},
    sweep::Sweep,
};

/// Calls started in one go before other tasks of the thread get their turn.
const BATCH: usize = 64;

impl Shard {
    /// Whether a call that comes now can run now.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.port.in_flight() < self.port.in_flight_limit && self.port.is_ready() && self.queue.borrow().is_empty()
    }

    /// Takes the calls that other threads have left.
    pub(crate) fn empty_inbox(self: &Rc<Self>) {
        let mut calls = self.port.inbox.take(self.spare.take());
        for call in calls.drain(..) {
            self.accept(call);
        }
        self.spare.replace(calls);
    }

    /// Takes a call that has a place in the queue.
    pub(crate) fn accept(self: &Rc<Self>, mut envelope: Envelope) {
        if matches!(self.port.state(), ShardState::Stopping | ShardState::Stopped) {
            self.port.reject(Rejection::Down);
            return envelope.refuse(self.core.unavailable());
        }
        let now = self.now();
        if envelope.admission.is_none() {
            match self.admit(now) {
                Ok(admission) => envelope.admission = Some(admission),
                Err(failure) => return envelope.refuse(failure),
            }
        }
        if let Some(key) = envelope.key() {
            match self.keys.borrow_mut().entry(key) {
                Entry::Occupied(mut waiting) => {
                    self.sweeper.arm();
                    return waiting.get_mut().push_back(envelope);
                }
                Entry::Vacant(free) => free.insert(VecDeque::new()),
            };
        }
        if self.has_room() {
            self.start(envelope, now);
        } else {
            self.enqueue(envelope);
        }
    }

    fn enqueue(&self, envelope: Envelope) {
        self.sweeper.arm();
        // Callers that left gave their places back at once; what they left behind goes when it grows.
        if self.queue.borrow().len() >= self.port.queue_limit.saturating_mul(2) {
            self.drop_dead(self.now());
        }
        self.queue.borrow_mut().push_back(envelope);
    }

    fn start(self: &Rc<Self>, envelope: Envelope, now: Instant) {
        if envelope.is_dead(now) {
            self.discard(envelope, now, Failure::Expired);
        } else {
            envelope.start(self, now);
        }
    }

    /// Ends a call that had its turn without running it: its key goes to the next.
    pub(crate) fn discard(&self, envelope: Envelope, now: Instant, failure: Failure) {
        let key = envelope.key();
        self.turn_away(envelope, now, failure);
        if let Some(key) = key {
            self.key_done(key);
        }
    }

    fn turn_away(&self, envelope: Envelope, now: Instant, failure: Failure) {
        if let Some(admission) = envelope.admission {
            self.release(admission, now);
        }
        if !envelope.reply.is_gone() {
            if failure == Failure::Expired {
                self.port.reject(Rejection::Expired);
            }
            envelope.refuse(failure);
        }
    }

    /// The call that had the key has ended: the next one of it gets in line for a permit.
    pub(crate) fn key_done(&self, key: Uuid) {
        let next = match self.keys.borrow_mut().entry(key) {
            Entry::Occupied(mut waiting) => match waiting.get_mut().pop_front() {
                Some(next) => Some(next),
                None => {
                    waiting.remove();
                    None
                }
            },
            Entry::Vacant(_) => None,
        };
        if let Some(next) = next {
            self.enqueue(next);
            self.pump();
        }
    }

    /// A permit has come back.
    #[inline]
    pub(crate) fn permit_is_free(&self) {
        if !self.queue.borrow().is_empty() {
            self.pump();
        } else if !self.port.is_ready() {
            self.tell_if_drained();
        }
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.port.in_flight() == 0 && self.queue.borrow().is_empty() && self.keys.borrow().is_empty()
    }

    fn tell_if_drained(&self) {
        if self.is_drained() {
            self.drained.notify_waiters();
        }
    }

    /// Starts what waits, as far as there are permits, in a task of its own: the call that just ended owes its caller
    /// an answer first.
    pub(crate) fn pump(&self) {
        let Some(shard) = self.own.upgrade() else { return };
        if self.queue.borrow().is_empty() || self.pumping.replace(true) {
            return;
        }
        actix_rt::spawn(async move {
            let mut started = 0;
            while let Some(envelope) = shard.next() {
                shard.start(envelope, shard.now());
                started += 1;
                if started % BATCH == 0 {
                    tokio::task::yield_now().await;
                }
            }
            shard.pumping.set(false);
            shard.tell_if_drained();
        });
    }

    fn next(&self) -> Option<Envelope> {
        let may_start = self.port.in_flight() < self.port.in_flight_limit
            && matches!(self.port.state(), ShardState::Ready | ShardState::Stopping);
        if may_start { self.queue.borrow_mut().pop_front() } else { None }
    }

    /// Drops what waits for nobody, or too late.
    fn drop_dead(&self, now: Instant) {
        let (dead, alive): (VecDeque<_>, VecDeque<_>) =
            self.queue.take().into_iter().partition(|envelope| envelope.is_dead(now));
        *self.queue.borrow_mut() = alive;
        for envelope in dead {
            self.discard(envelope, now, Failure::Expired);
        }
        let mut dead = Vec::new();
        for waiting in self.keys.borrow_mut().values_mut() {
            if waiting.iter().any(|envelope| envelope.is_dead(now)) {
                let (gone, alive): (VecDeque<_>, VecDeque<_>) =
                    std::mem::take(waiting).into_iter().partition(|envelope| envelope.is_dead(now));
                *waiting = alive;
                dead.extend(gone);
            }
        }
        for envelope in dead {
            self.turn_away(envelope, now, Failure::Expired);
        }
    }

    /// Everything that waits, taken out.
    pub(crate) fn take_waiting(&self) -> Vec<Envelope> {
        let queue = self.queue.take();
        let keyed = self.keys.take().into_values().flatten();
        queue.into_iter().chain(keyed).collect()
    }
}

impl Sweep for Shard {
    fn sweep(&self, now: Instant) -> bool {
        let due: Vec<Rc<RunningCall>> = self
            .running
            .borrow()
            .iter()
            .filter(|(_, call)| call.deadline <= now)
            .map(|(_, call)| call.clone())
            .collect();
        for call in due {
            call.end(self.core.overdue());
        }
        self.drop_dead(now);
        self.pump();
        if !self.port.is_ready() {
            self.tell_if_drained();
        }
        let waits = !self.queue.borrow().is_empty() || !self.keys.borrow().is_empty();
        waits || !self.running.borrow().is_empty()
    }
}
