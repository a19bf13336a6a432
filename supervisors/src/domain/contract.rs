//! The contract of a domain, written once: it holds on nodes that host the domain and on those that reach it over a
//! [`Transport`].

use std::{future::Future, sync::Arc};

use callboard_messages::{
    Event, Operation, SagaDomain,
    live::{Log, Topic},
    saga::{ListSagasOf, RetrySagaOf},
};

use crate::{
    bulkhead::Bulkhead,
    call::remote::{self, Remote, Transport},
    domain::{
        Domain, DomainOf, OperationInfo, Shards,
        context::ShardContext,
        operation::{Handle, StartError},
        topic::LiveTopic,
    },
    events::{React, Reaction, deliver, local_reaction},
    saga::{HasSagas, SagaCalls},
    shard::{LocalOperation, Signature, StateCell, local_operation},
};

/// A domain's name and bounds: the first step, before its operations are known.
pub struct DomainPlan {
    name: &'static str,
    bulkhead: Bulkhead,
}

impl DomainPlan {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, bulkhead: Bulkhead::default() }
    }

    /// Sets its bounds. Default: those of [`Bulkhead`].
    #[must_use]
    pub fn bulkhead(self, bulkhead: Bulkhead) -> Self {
        Self { bulkhead, ..self }
    }

    /// A contract for handlers of `S`, without operations yet.
    #[must_use]
    pub fn answering<S: 'static>(self) -> Contract<S> {
        let told = Told { name: self.name, bulkhead: self.bulkhead, sagas: None, topics: Vec::new() };
        Contract { told, operations: Vec::new() }
    }
}

/// Installs the handler of the operation with this number above a state.
pub(crate) type Install<S> = fn(&StateCell<S>, usize) -> LocalOperation;

/// The operations of a domain whose state is `S`: the second step, before it is known where it runs.
pub struct Contract<S> {
    told: Told,
    operations: Vec<Term<S>>,
}

/// What a contract says of a domain whatever its state.
pub(crate) struct Told {
    pub(crate) name: &'static str,
    pub(crate) bulkhead: Bulkhead,
    pub(crate) sagas: Option<SagaCalls>,
    pub(crate) topics: Vec<LiveTopic>,
}

/// An operation with its handlers: by the domain's own state, and by the remote stand-in on other nodes.
struct Term<S> {
    info: OperationInfo,
    here: Install<S>,
    elsewhere: Install<Remote>,
}

/// The part of a contract that holds for a state `S`.
pub(crate) struct Terms<S> {
    pub(crate) told: Told,
    pub(crate) operations: Vec<(OperationInfo, Install<S>)>,
}

impl<S: 'static> Contract<S> {
    /// Answers `M`.
    #[must_use]
    pub fn on<M: Operation>(mut self) -> Self
    where
        S: Handle<M>,
    {
        let info = OperationInfo { signature: Signature::of::<M>(), serve: remote::serve::<M>, reaction: None };
        self.operations.push(Term { info, here: local_operation::<S, M>, elsewhere: remote::operation::<M> });
        self
    }

    /// Reacts to `E`, whichever domain emits it.
    #[must_use]
    pub fn reacts_to<E: Event>(mut self) -> Self
    where
        S: React<E>,
    {
        let info = OperationInfo {
            signature: Signature::of::<Reaction<E>>(),
            serve: remote::serve::<Reaction<E>>,
            reaction: Some(deliver::<E>),
        };
        let here = local_reaction::<S, E>;
        self.operations.push(Term { info, here, elsewhere: remote::operation::<Reaction<E>> });
        self
    }

    /// Has sagas: an operator lists and retries them, which the runtime answers.
    #[must_use]
    pub fn sagas<D: SagaDomain>(mut self) -> Self
    where
        S: HasSagas,
    {
        self.told.sagas = Some(SagaCalls::of::<D>());
        self.on::<ListSagasOf<D>>().on::<RetrySagaOf<D>>()
    }

    /// Publishes live updates that can be followed as `T`.
    #[must_use]
    pub fn topic<T: Topic>(mut self) -> Self {
        self.told.topics.push(LiveTopic::of::<T>());
        self
    }

    /// Publishes a log, whose lines it keeps, that can be followed as `T`.
    #[must_use]
    pub fn log<T: Log>(mut self) -> Self {
        self.told.topics.push(LiveTopic::of_log::<T>());
        self
    }

    /// One shard on every worker thread: a call finds the shard of its own thread and pays for no hop.
    ///
    /// The factory builds a shard's state, at the start and again after a fault, on the shard's thread.
    pub fn shared<F, Fut>(self, factory: F) -> DomainOf<S>
    where
        F: Fn(ShardContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, StartError>> + 'static,
    {
        DomainOf::new(self.terms(|term| term.here), Shards::Shared, factory)
    }

    /// Shards on `threads` threads of their own, so that heavy work does not slow the others down.
    pub fn dedicated<F, Fut>(self, threads: usize, factory: F) -> DomainOf<S>
    where
        F: Fn(ShardContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, StartError>> + 'static,
    {
        DomainOf::new(self.terms(|term| term.here), Shards::Dedicated(threads), factory)
    }

    /// The domain on a node that does not host it: the same bulkhead, breaker, deadlines and errors, and every call
    /// goes over `transport`.
    #[must_use]
    pub fn remote(self, transport: Arc<dyn Transport>) -> Domain {
        let (domain, reached_by) = (self.told.name, transport.clone());
        let terms = self.terms(|term| term.elsewhere);
        DomainOf::new(terms, Shards::Shared, move |context: ShardContext| {
            std::future::ready(Ok(Remote::new(domain, reached_by.clone(), context)))
        })
        .behind(transport)
        .build()
    }

    fn terms<T>(self, pick: impl Fn(&Term<S>) -> Install<T>) -> Terms<T> {
        let operations = self.operations.iter().map(|term| (term.info, pick(term))).collect();
        Terms { told: self.told, operations }
    }
}
