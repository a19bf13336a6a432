//! What delivers operations: a caller names the operation by its type and does not know where it runs.

use std::{any::TypeId, collections::HashMap, hash::BuildHasherDefault, sync::Arc, time::Duration};

use callboard_messages::{CallError, Caller, Failure, Operation};
use futures_util::{FutureExt, future::LocalBoxFuture};
use uuid::Uuid;

use crate::{
    call::{
        actor_ref::ActorRef,
        remote::{self, Serve, Served, Transport},
    },
    domain::{
        core::DomainCore,
        operation::{Outcome, check_access},
    },
    shard::{Ask, TypeIdHasher, note_elsewhere},
    time::clock::Clock,
};

/// The domains of a node, by what they answer. Cheap to clone. The default one has none.
#[derive(Clone, Default)]
pub struct Bus(Arc<Routes>);

#[derive(Default)]
struct Routes {
    domains: Vec<Arc<DomainCore>>,
    by_operation: HashMap<TypeId, Arc<DomainCore>, BuildHasherDefault<TypeIdHasher>>,
    by_name: HashMap<&'static str, (Serve, Arc<DomainCore>)>,
    link: ClusterLink,
    clock: Clock,
}

/// The identity of this node in the cluster, and its transport to the others.
#[derive(Clone)]
pub(crate) struct ClusterLink {
    pub(crate) node: Uuid,
    pub(crate) transport: Option<Arc<dyn Transport>>,
}

impl Default for ClusterLink {
    /// A node alone.
    fn default() -> Self {
        Self { node: Uuid::now_v7(), transport: None }
    }
}

/// A domain of this node, as those see it who bring it the calls of other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostedDomain {
    /// Its name.
    pub name: &'static str,
    /// Calls that may run at the same time on one of its shards.
    pub in_flight: usize,
}

/// What somebody is told to wait who asks for a node that cannot be reached.
const UNREACHABLE_RETRY_AFTER: Duration = Duration::from_secs(1);

impl Bus {
    pub(crate) fn new(domains: Vec<Arc<DomainCore>>, link: ClusterLink, clock: Clock) -> Self {
        let operations = || domains.iter().flat_map(|domain| domain.operations.iter().map(move |info| (info, domain)));
        // What a domain does about an event is reached by the event alone.
        let operations = || operations().filter(|(info, _)| info.reaction.is_none());
        Self(Arc::new(Routes {
            by_operation: operations().map(|(info, domain)| (info.signature.id, domain.clone())).collect(),
            by_name: operations().map(|(info, domain)| (info.signature.name, (info.serve, domain.clone()))).collect(),
            domains,
            link,
            clock,
        }))
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

    pub(crate) fn domains(&self) -> &[Arc<DomainCore>] {
        &self.0.domains
    }

    /// Every permission that an operation asks for, of all domains, wherever they are hosted.
    pub fn permissions(&self) -> impl Iterator<Item = &'static str> {
        let operations = self.0.domains.iter().flat_map(|core| &core.operations);
        operations.filter_map(|operation| operation.signature.access.permission())
    }

    /// This node's id.
    #[must_use]
    pub fn node(&self) -> Uuid {
        self.0.link.node
    }

    /// Asks the domain as one node hosts it, for what only that node can answer.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); [`Failure::Unavailable`] when the node cannot be reached.
    pub async fn ask_at<M: Operation>(&self, node: Uuid, caller: &Caller, message: M) -> Outcome<M> {
        if node == self.node() {
            return self.ask(caller, message).await;
        }
        check_access(M::ACCESS, caller)?;
        let Some(transport) = &self.0.link.transport else {
            return Err(Failure::Unavailable { retry_after: UNREACHABLE_RETRY_AFTER }.into());
        };
        let outcome = remote::ask_at(node, &**transport, &self.0.clock, caller, &message).await;
        if let Err(CallError::Failed(failure)) = &outcome {
            note_elsewhere(failure);
        }
        outcome
    }

    /// Carries out a call that came from another node, by its name. Only a domain that this node hosts answers.
    #[must_use]
    pub fn serve(&self, operation: &str, caller: Caller, body: &[u8]) -> LocalBoxFuture<'static, Served> {
        match self.0.by_name.get(operation) {
            Some((serve, core)) if core.transport.is_none() => {
                remote::answer(*serve, operation, core.clone(), caller, body)
            }
            _ => {
                tracing::warn!(operation, "another node asks for what this one does not answer");
                std::future::ready(remote::for_others()).boxed_local()
            }
        }
    }

    /// The domains that this node hosts and that answer anything.
    #[must_use]
    pub fn hosted(&self) -> Vec<HostedDomain> {
        let hosted = self.0.domains.iter().filter(|core| core.transport.is_none());
        let answering = hosted.filter(|core| core.operations.iter().any(|info| info.reaction.is_none()));
        answering.map(|core| HostedDomain { name: core.name, in_flight: core.bulkhead.in_flight }).collect()
    }
}
