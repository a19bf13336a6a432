//! What delivers operations: a caller names the operation by its type and does not know where it runs.

use std::{any::TypeId, collections::HashMap, hash::BuildHasherDefault, sync::Arc};

use callboard_messages::{Caller, Operation};

use crate::{
    actor_ref::ActorRef,
    domain_core::DomainCore,
    shard::{Ask, TypeIdHasher},
};

/// The domains of a node, by what they answer. Cheap to clone. The default one has none.
#[derive(Clone, Default)]
pub struct Bus(Arc<Routes>);

#[derive(Default)]
struct Routes {
    domains: Vec<Arc<DomainCore>>,
    by_operation: HashMap<TypeId, Arc<DomainCore>, BuildHasherDefault<TypeIdHasher>>,
}

impl Bus {
    pub(crate) fn new(domains: Vec<Arc<DomainCore>>) -> Self {
        let by_operation = domains
            .iter()
            .flat_map(|domain| domain.operations.iter().map(|operation| (operation.id, domain.clone())))
            .collect();
        Self(Arc::new(Routes { domains, by_operation }))
    }

    /// Asks the domain that answers `M`, and waits for its outcome.
    ///
    /// # Errors
    /// A refusal of the domain, or the [`Failure`](callboard_messages::Failure) that kept it from answering.
    #[inline]
    pub fn ask<'a, M: Operation>(&'a self, caller: &'a Caller, message: M) -> Ask<'a, M> {
        Ask::new(self.0.by_operation.get(&TypeId::of::<M>()), caller, message)
    }

    /// A reference to a domain of this node.
    #[must_use]
    pub fn actor(&self, domain: &str) -> Option<ActorRef> {
        self.0.domains.iter().find(|core| core.name == domain).cloned().map(ActorRef::new)
    }
}
