//! A domain: its name, bounds, shards, state and contract.
//!
//! ```no_run
//! # use callboard_messages::{Access, Caller, DomainError, Code, Operation};
//! # use callboard_supervisors::{Domain, Handle, Outcome};
//! # use serde::{Serialize, Deserialize};
//! # #[derive(Serialize, Deserialize)] pub struct CreateProject;
//! # #[derive(Debug, Serialize, Deserialize, thiserror::Error)] #[error("no")] pub struct ProjectError;
//! # impl DomainError for ProjectError { const CODES: &[Code] = &[]; fn code(&self) -> Code { Code::Invalid } }
//! # impl Operation for CreateProject { const NAME: &'static str = "project.create"; const ACCESS: Access = Access::Public; type Reply = (); type Error = ProjectError; }
//! # struct Projects;
//! # impl Handle<CreateProject> for Projects { async fn handle(&self, _: &Caller, _: CreateProject) -> Outcome<CreateProject> { Ok(()) } }
//! pub fn domain() -> Domain {
//!     Domain::new("project")
//!         .answering::<Projects>()
//!         .on::<CreateProject>()
//!         .shared(|_context| async { Ok(Projects) })
//!         .build()
//! }
//! ```

pub(crate) mod context;
pub(crate) mod contract;
pub(crate) mod core;
mod database;
pub(crate) mod once;
pub(crate) mod operation;
pub(crate) mod topic;

use std::{cell::RefCell, future::Future, rc::Rc, sync::Arc};

use callboard_messages::Access;
use futures_util::{FutureExt, future::LocalBoxFuture};

use crate::{
    blocking::BlockingPool,
    bulkhead::Bulkhead,
    call::remote::{Serve, Transport},
    db::Databases,
    domain::{
        context::ShardContext,
        contract::{DomainPlan, Install, Terms, Told},
        operation::StartError,
        topic::LiveTopic,
    },
    events::{self, Deliver},
    health::{condition::Requirement, dependency::Dependency},
    restart::Strategy,
    saga::{SagaCalls, Sagas},
    schedule::{self, Schedule},
    shard::{Build, Operations, Signature, StateCell},
    supervise::{ChildSpec, Supervisor},
};

/// Where a domain's shards run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shards {
    /// One on every worker thread.
    Shared,
    /// On so many threads of their own.
    Dedicated(usize),
}

/// A domain, ready to be run by a [`crate::Runtime`].
pub struct Domain {
    pub(crate) name: &'static str,
    pub(crate) bulkhead: Bulkhead,
    pub(crate) shards: Shards,
    pub(crate) blueprint: Arc<dyn Blueprint>,
    pub(crate) operations: Vec<OperationInfo>,
    pub(crate) supervisor: Supervisor,
    pub(crate) pools: Vec<BlockingPool>,
    /// Set on a node that does not host the domain.
    pub(crate) transport: Option<Arc<dyn Transport>>,
    /// Dependencies outside of the node: breakers are reset when one is back.
    pub(crate) stands_on: Vec<Dependency>,
    /// Parts without which it can't answer.
    pub(crate) requirements: Vec<Arc<dyn Requirement>>,
    /// How its sagas are asked for, if it has any.
    pub(crate) sagas: Option<SagaCalls>,
    /// What of it can be followed live.
    pub(crate) topics: Vec<LiveTopic>,
    /// Sentences about invalid parts, found while it was put together.
    wrong: Vec<String>,
}

/// An operation as the runtime knows it, without its type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OperationInfo {
    pub(crate) signature: &'static Signature,
    /// Serves a request that came by name.
    pub(crate) serve: Serve,
    /// Set for a reaction to an event, which is no operation of its own.
    pub(crate) reaction: Option<Deliver>,
}

type Factory<S> = Arc<dyn Fn(ShardContext) -> LocalBoxFuture<'static, Result<S, StartError>> + Send + Sync>;

/// A domain whose state is `S`: the last step, to which children and pools are added.
pub struct DomainOf<S> {
    terms: Terms<S>,
    shards: Shards,
    factory: Factory<S>,
    supervisor: Supervisor,
    pools: Vec<BlockingPool>,
    transport: Option<Arc<dyn Transport>>,
    requirements: Vec<Arc<dyn Requirement>>,
    databases: Option<Databases>,
    stands_on: Vec<Dependency>,
    schedules: Vec<Schedule>,
    has_sweeper: bool,
}

impl Domain {
    /// A domain by its name, which is the first part of the names of its operations.
    #[expect(clippy::new_ret_no_self, reason = "a domain is built in steps")]
    #[must_use]
    pub fn new(name: &'static str) -> DomainPlan {
        DomainPlan::new(name)
    }
}

impl<S: 'static> DomainOf<S> {
    pub(crate) fn new<F, Fut>(terms: Terms<S>, shards: Shards, factory: F) -> Self
    where
        F: Fn(ShardContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, StartError>> + 'static,
    {
        let bulkhead = &terms.told.bulkhead;
        Self {
            supervisor: Supervisor::new(terms.told.name).intensity(bulkhead.intensity).backoff(bulkhead.backoff),
            terms,
            shards,
            factory: Arc::new(move |context| factory(context).boxed_local()),
            pools: Vec::new(),
            transport: None,
            requirements: Vec::new(),
            databases: None,
            stands_on: Vec::new(),
            schedules: Vec::new(),
            has_sweeper: false,
        }
    }

    /// Marks it as remote: its work is done behind `transport`.
    pub(crate) fn behind(mut self, transport: Arc<dyn Transport>) -> Self {
        let domain = self.terms.told.name;
        transport.watch(domain);
        self.transport = Some(transport.clone());
        self.requires(move || transport.away(domain))
    }

    /// Adds a part without which the domain can't answer.
    #[must_use]
    pub fn requires(mut self, requirement: impl Requirement + 'static) -> Self {
        self.requirements.push(Arc::new(requirement));
        self
    }

    /// Adds the domain's database as a requirement: it is watched, also while there are no calls.
    #[must_use]
    pub fn watches(mut self, databases: &Databases) -> Self {
        let (requirement, child) = database::watch(self.terms.told.name, databases.clone());
        self.supervisor = self.supervisor.child(child);
        self.requires(requirement)
    }

    /// Adds a child to the domain's supervisor: background work, on the domain's first thread.
    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.supervisor = self.supervisor.child(child);
        self
    }

    /// Declares that the domain has its own database among these, already migrated: its outbox is relayed, and old rows
    /// of the runtime are pruned. For domains that emit, react, or have sagas or schedules.
    #[must_use]
    pub fn stored(mut self, databases: &Databases) -> Self {
        self.databases = Some(databases.clone());
        let server = databases.server(self.terms.told.name);
        self.standing_on(server).watches(databases)
    }

    /// Adds dependencies outside of the node: the domain's breakers are reset when one answers again.
    #[must_use]
    pub fn standing_on(mut self, dependency: impl IntoIterator<Item = Dependency>) -> Self {
        self.stands_on.extend(dependency);
        self
    }

    /// Adds work for certain times, done once on however many nodes host the domain.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedules.push(schedule);
        self
    }

    /// Adds the domain's sagas: those whose node is gone are taken over here.
    #[must_use]
    pub fn sagas(self, sagas: &Sagas) -> Self {
        Self { has_sweeper: true, ..self.child(sagas.sweeper()) }
    }

    /// Adds a blocking pool of the domain to the node's metrics.
    #[must_use]
    pub fn pool(mut self, pool: &BlockingPool) -> Self {
        self.pools.push(pool.clone());
        self
    }

    /// Sets which children are restarted together. Default: one for one.
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.supervisor = self.supervisor.strategy(strategy);
        self
    }

    /// The domain.
    #[must_use]
    pub fn build(mut self) -> Domain {
        let mut wrong: Vec<String> = self.schedules.iter().filter_map(|schedule| schedule.validate().err()).collect();
        if let Some(databases) = self.databases.take() {
            let name = self.terms.told.name;
            let mut schedules = std::mem::take(&mut self.schedules);
            schedules.push(schedule::housekeeping());
            let relay = events::relay(name, databases.clone());
            self.supervisor = self.supervisor.child(relay).child(schedule::keeper(name, databases, schedules));
        } else if !self.schedules.is_empty() {
            wrong.push(format!("domain {}: one with schedules must be stored", self.terms.told.name));
        }
        let Terms { told: Told { name, bulkhead, sagas, topics }, operations } = self.terms;
        if self.transport.is_none() && sagas.is_some() != self.has_sweeper {
            wrong
                .push(format!("domain {name}: its sagas are either not in its contract, or not added to what it runs"));
        }
        Domain {
            name,
            bulkhead,
            shards: self.shards,
            operations: operations.iter().map(|(info, _)| *info).collect(),
            supervisor: self.supervisor,
            pools: self.pools,
            transport: self.transport,
            stands_on: self.stands_on,
            requirements: self.requirements,
            sagas,
            topics,
            wrong,
            blueprint: Arc::new(BlueprintOf { factory: self.factory, operations }),
        }
    }
}

impl<S: 'static> From<DomainOf<S>> for Domain {
    fn from(domain: DomainOf<S>) -> Self {
        domain.build()
    }
}

impl Domain {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Where its shards run.
    #[must_use]
    pub const fn shards(&self) -> Shards {
        self.shards
    }

    /// Name and access of each operation that it answers.
    pub fn answers(&self) -> impl Iterator<Item = (&'static str, Access)> {
        self.operations
            .iter()
            .filter(|info| info.reaction.is_none())
            .map(|info| (info.signature.name, info.signature.access))
    }

    /// The types of events that it reacts to.
    pub fn reacts_to(&self) -> impl Iterator<Item = &'static str> {
        self.operations.iter().filter(|info| info.reaction.is_some()).map(|info| info.signature.name)
    }

    /// What of it can be followed live.
    #[must_use]
    pub fn topics(&self) -> &[LiveTopic] {
        &self.topics
    }

    /// Adds a requirement before those it was built with, because its reason is more specific.
    #[must_use]
    pub fn requires(mut self, requirement: impl Requirement + 'static) -> Self {
        self.requirements.insert(0, Arc::new(requirement));
        self
    }

    /// A sentence for each invalid part.
    pub(crate) fn validate(&self) -> Vec<String> {
        let name = self.name;
        let mut wrong = self.wrong.clone();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            wrong.push(format!("domain {name:?}: a name is made of lower-case letters"));
        }
        if self.shards == Shards::Dedicated(0) {
            wrong.push(format!("domain {name}: it must have at least one thread of its own"));
        }
        for (index, operation) in self.operations.iter().enumerate() {
            let Signature { name: verb, timeout, .. } = *operation.signature;
            let own = verb.split_once('.').is_some_and(|(of, verb)| of == name && !verb.is_empty());
            if !own && operation.reaction.is_none() {
                wrong.push(format!("domain {name}: the operation {verb} is not named {name}.<verb>"));
            }
            if self.operations.iter().take(index).any(|other| other.signature.name == verb) {
                wrong.push(format!("domain {name}: the operation {verb} is answered twice"));
            }
            if timeout.is_zero() {
                wrong.push(format!("domain {name}: the operation {verb} has no time to run"));
            }
        }
        let bounds = self.bulkhead.validate().err().into_iter().flatten();
        let bounds = bounds.map(|sentence| format!("domain {name}: {sentence}"));
        let children = self.supervisor.validate().err().into_iter().flatten();
        // The supervisor's own bounds are the bulkhead's, which are reported already.
        let children = children.filter(|sentence| sentence.starts_with("supervisor"));
        wrong.into_iter().chain(bounds).chain(children).collect()
    }
}

/// The parts of a shard, made on its thread.
pub(crate) struct Assembly {
    pub(crate) operations: Operations,
    pub(crate) build: Build,
    pub(crate) clear: Box<dyn Fn()>,
}

/// Builds shards of a domain without knowing the type of its state.
pub(crate) trait Blueprint: Send + Sync {
    fn assemble(&self) -> Assembly;
}

struct BlueprintOf<S> {
    factory: Factory<S>,
    operations: Vec<(OperationInfo, Install<S>)>,
}

impl<S: 'static> Blueprint for BlueprintOf<S> {
    fn assemble(&self) -> Assembly {
        let state: StateCell<S> = Rc::new(RefCell::new(None));
        let operations = self
            .operations
            .iter()
            .enumerate()
            .map(|(index, (info, install))| (info.signature.id, install(&state, index)))
            .collect();
        let (factory, built) = (self.factory.clone(), state.clone());
        let build = move |context| {
            let (factory, state) = (factory.clone(), built.clone());
            async move {
                let fresh = factory(context).await?;
                let old = state.borrow_mut().replace(Rc::new(fresh));
                drop(old);
                Ok(())
            }
            .boxed_local()
        };
        let clear = move || {
            let old = state.borrow_mut().take();
            drop(old);
        };
        Assembly { operations, build: Box::new(build), clear: Box::new(clear) }
    }
}
