//! A call that waits: for its shard's thread, for a permit, or for its key.

use std::{rc::Rc, time::Instant};

use callboard_messages::{Caller, Failure};
use tracing::span::Id;
use uuid::Uuid;

use super::{Grant, Shard, operation_span, question::Signature, slot::Reply};
use crate::{breaker::Admission, shard::keys::KeyGuard};

pub(crate) struct Envelope {
    pub(crate) signature: &'static Signature,
    pub(crate) caller: Caller,
    /// When it is too late to begin.
    pub(crate) deadline: Instant,
    /// Set when the breaker has let it through.
    pub(crate) admission: Option<Admission>,
    /// The key it shares with the calls it must not run beside.
    pub(crate) key: Option<KeyGuard>,
    /// The span of whoever asked, if spans are wanted.
    pub(crate) parent: Option<Id>,
    pub(crate) reply: Reply,
}

impl Envelope {
    /// Whether nobody waits for it any more, or it is too late to begin.
    pub(crate) fn is_dead(&self, now: Instant) -> bool {
        self.reply.is_gone() || self.deadline <= now
    }

    pub(crate) fn key(&self) -> Option<Uuid> {
        self.key.as_ref().map(|guard| guard.key)
    }

    /// Runs it; a permit is free, and the breaker has let it through.
    pub(crate) fn start(self, shard: &Rc<Shard>, now: Instant) {
        let operation = match shard.operation(self.signature) {
            Ok(operation) => operation,
            Err(failure) => return shard.discard(self, now, failure),
        };
        let Some(admission) = self.admission else { return };
        if !self.reply.begin() {
            // Its caller, on another thread, has left since it was looked at.
            return shard.discard(self, now, Failure::Expired);
        }
        let Self { signature, caller, deadline, key, parent, reply, .. } = self;
        let span = operation_span!(signature.name, shard.port.index, caller.correlation_id, parent: parent);
        let grant = Grant { operation: operation.index, started: now, deadline, admission, key, span };
        let call = shard.begin(signature.name, &caller, grant);
        shard.run(operation, call, &caller, reply);
    }

    /// Answers it without running it.
    pub(crate) fn refuse(self, failure: Failure) {
        self.reply.fail(failure);
    }
}
