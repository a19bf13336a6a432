//! A call that waits: for its shard's thread, for a permit, or for its key.

use std::{rc::Rc, time::Instant};

use callboard_messages::{Caller, Failure, Operation};
use tracing::span::Id;
use uuid::Uuid;

use super::{Grant, Shard, execution, operation_span, slot::Reply};
use crate::{breaker::Admission, shard::keys::KeyGuard};

/// A waiting call of any operation.
pub(crate) trait Queued {
    /// Whether its caller has left.
    fn is_gone(&self) -> bool;
    /// When it is too late to begin.
    fn deadline(&self) -> Instant;
    /// The key it shares with the calls it must not run beside.
    fn key(&self) -> Option<Uuid>;
    /// Whether the breaker has let it through.
    fn admission(&self) -> Option<Admission>;
    /// The breaker lets it through.
    fn admit(&mut self, admission: Admission);
    /// Runs it; a permit is free, and the breaker has let it through.
    fn start(self: Box<Self>, shard: &Rc<Shard>, now: Instant);
    /// Answers it without running it.
    fn refuse(self: Box<Self>, failure: Failure);
}

pub(crate) struct Envelope<M: Operation> {
    pub(crate) caller: Caller,
    pub(crate) message: M,
    pub(crate) deadline: Instant,
    pub(crate) admission: Option<Admission>,
    pub(crate) key: Option<KeyGuard>,
    /// The span of whoever asked, if spans are wanted.
    pub(crate) parent: Option<Id>,
    pub(crate) reply: Reply<M::Reply, M::Error>,
}

impl<M: Operation> Queued for Envelope<M> {
    fn is_gone(&self) -> bool {
        self.reply.is_gone()
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn key(&self) -> Option<Uuid> {
        self.key.as_ref().map(|guard| guard.key)
    }

    fn admission(&self) -> Option<Admission> {
        self.admission
    }

    fn admit(&mut self, admission: Admission) {
        self.admission = Some(admission);
    }

    fn start(self: Box<Self>, shard: &Rc<Shard>, now: Instant) {
        let operation = match shard.operation::<M>() {
            Ok(operation) => operation,
            Err(failure) => return shard.discard(self, now, failure),
        };
        let Some(admission) = self.admission else { return };
        if !self.reply.begin() {
            // Its caller, on another thread, has left since it was looked at.
            return shard.discard(self, now, Failure::Expired);
        }
        let Self { caller, message, deadline, key, parent, reply, .. } = *self;
        let span = operation_span!(M::NAME, shard.port.index, caller.correlation_id, parent: parent);
        let grant = Grant { operation: operation.index, started: now, deadline, admission, key, span };
        let call = shard.begin::<M>(&caller, grant);
        execution::run_detached(shard, operation, call, caller, message, reply);
    }

    fn refuse(self: Box<Self>, failure: Failure) {
        self.reply.send(Err(failure.into()));
    }
}
