//! A reference to a domain that survives everything that happens behind it.

use std::sync::Arc;

use callboard_messages::{Caller, Operation};

use crate::{domain::core::DomainCore, shard::Ask};

/// A domain, wherever its shards run and however often they are built anew. Cheap to clone.
#[derive(Clone)]
pub struct ActorRef(Arc<DomainCore>);

impl ActorRef {
    pub(crate) const fn new(core: Arc<DomainCore>) -> Self {
        Self(core)
    }

    /// The domain's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Asks and waits for the outcome: access, breaker, a place in the queue, a permit, the deadline, the handler.
    /// The caller waits until its own deadline or for `M::TIMEOUT`, whichever is sooner.
    ///
    /// A caller that goes away while its call waits takes it out of the queue; once the handler runs, it runs to its
    /// end.
    ///
    /// # Errors
    /// A refusal of the domain, or the [`Failure`](callboard_messages::Failure) that kept it from answering.
    #[inline]
    pub fn ask<'a, M: Operation>(&'a self, caller: &'a Caller, message: M) -> Ask<'a, M> {
        Ask::new(Some(&self.0), caller, message)
    }
}
