//! What a saga consists of.

use std::{marker::PhantomData, sync::Arc};

use callboard_messages::{CallError, Caller, DomainError, Failure};
use futures_util::{FutureExt, future::LocalBoxFuture};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

use crate::{call::bus::Bus, db::Transaction, time::clock::Clock};

/// What the steps of a saga work with. It is kept in the log, so that any node can go on with it; fields are added so
/// that an older node can still read it.
pub trait SagaState: Serialize + DeserializeOwned + 'static {
    /// What the domain can refuse.
    type Error: DomainError;
}

/// What a step ends in.
pub type StepOutcome<S, T = S> = Result<T, CallError<<S as SagaState>::Error>>;

/// What a step is given besides its state.
#[derive(Clone)]
pub struct StepContext {
    /// The saga, the same for each try: what makes a step's second execution recognizable elsewhere.
    pub saga_id: Uuid,
    /// The platform itself, on behalf of whoever began the saga.
    pub caller: Caller,
    /// The way to other domains.
    pub bus: Bus,
    /// The node's clock.
    pub clock: Clock,
}

/// The steps of a saga with the state `S`.
pub struct Saga<S> {
    pub(super) plan: Plan,
    of: PhantomData<fn() -> S>,
}

impl<S: SagaState> Saga<S> {
    /// A saga without steps, by its name in the log.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { plan: Plan { name, steps: Vec::new() }, of: PhantomData }
    }

    /// Adds a step that asks other domains: `async fn(&StepContext, S) -> StepOutcome<S>`, and its undo,
    /// `async fn(&StepContext, S) -> StepOutcome<S, ()>`. Both may be called more than once. An act that ends in a failure
    /// which [is certain](Failure::is_certain) has done nothing: when it is given up, it alone is not undone.
    #[must_use]
    pub fn step<A, U>(self, name: &'static str, act: A, undo: U) -> Self
    where
        A: AsyncFn(&StepContext, S) -> StepOutcome<S> + Send + Sync + 'static,
        U: AsyncFn(&StepContext, S) -> StepOutcome<S, ()> + Send + Sync + 'static,
    {
        self.with(name, Kind::Elsewhere(Arc::new(Pair { act, undo, of: PhantomData })))
    }

    /// Adds a step that writes in the domain's own database, in the transaction of the log. Both may be called more than
    /// once, but only one of the calls is committed.
    #[must_use]
    pub fn local<A, U>(self, name: &'static str, act: A, undo: U) -> Self
    where
        A: AsyncFn(&mut Transaction, &StepContext, S) -> StepOutcome<S> + Send + Sync + 'static,
        U: AsyncFn(&mut Transaction, &StepContext, S) -> StepOutcome<S, ()> + Send + Sync + 'static,
    {
        self.with(name, Kind::Here(Arc::new(Pair { act, undo, of: PhantomData })))
    }

    /// Of steps whose state is an `S`.
    pub(super) const fn of(plan: Plan) -> Self {
        Self { plan, of: PhantomData }
    }

    fn with(mut self, name: &'static str, kind: Kind) -> Self {
        self.plan.steps.push(Step { name, kind });
        self
    }
}

/// A saga without the type of its state.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) steps: Vec<Step>,
}

impl Plan {
    pub(super) fn step_names(&self) -> Vec<&'static str> {
        self.steps.iter().map(|step| step.name).collect()
    }
}

#[derive(Clone)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

#[derive(Clone)]
pub(super) enum Kind {
    Elsewhere(Arc<dyn Elsewhere>),
    Here(Arc<dyn Here>),
}

/// Why a step did not end in a reply.
#[derive(Debug, Clone)]
pub(super) enum Unmade {
    /// For good: the [`CallError`] as it is written in the log, and as a sentence.
    Refused(Value, String),
    Failed(Failure),
}

impl Unmade {
    fn of<E: DomainError>(error: CallError<E>) -> Self {
        match error {
            CallError::Failed(failure) if !matches!(failure, Failure::Unauthenticated | Failure::Forbidden(_)) => {
                Self::Failed(failure)
            }
            refusal => match serde_json::to_value(&refusal) {
                Ok(written) => Self::Refused(written, refusal.to_string()),
                Err(error) => Self::Failed(Failure::Internal(format!("a refusal cannot be written: {error}"))),
            },
        }
    }
}

/// A failure that a saga gives up for, as a refusal is written in the log.
pub(super) fn written_failure(failure: &Failure) -> Value {
    // The same shape as `CallError::Failed`, whatever the domain's own errors are.
    serde_json::json!({ "failed": failure })
}

pub(super) trait Elsewhere: Send + Sync {
    fn act<'a>(&'a self, context: &'a StepContext, state: Value) -> LocalBoxFuture<'a, Result<Value, Unmade>>;
    fn undo<'a>(&'a self, context: &'a StepContext, state: Value) -> LocalBoxFuture<'a, Result<(), Unmade>>;
}

pub(super) trait Here: Send + Sync {
    fn act<'a>(
        &'a self,
        transaction: &'a mut Transaction,
        context: &'a StepContext,
        state: Value,
    ) -> LocalBoxFuture<'a, Result<Value, Unmade>>;
    fn undo<'a>(
        &'a self,
        transaction: &'a mut Transaction,
        context: &'a StepContext,
        state: Value,
    ) -> LocalBoxFuture<'a, Result<(), Unmade>>;
}

struct Pair<S, A, U> {
    act: A,
    undo: U,
    of: PhantomData<fn() -> S>,
}

impl<S, A, U> Elsewhere for Pair<S, A, U>
where
    S: SagaState,
    A: AsyncFn(&StepContext, S) -> StepOutcome<S> + Send + Sync + 'static,
    U: AsyncFn(&StepContext, S) -> StepOutcome<S, ()> + Send + Sync + 'static,
{
    fn act<'a>(&'a self, context: &'a StepContext, state: Value) -> LocalBoxFuture<'a, Result<Value, Unmade>> {
        async move { write((self.act)(context, read::<S>(state)?).await.map_err(Unmade::of)?) }.boxed_local()
    }

    fn undo<'a>(&'a self, context: &'a StepContext, state: Value) -> LocalBoxFuture<'a, Result<(), Unmade>> {
        async move { (self.undo)(context, read::<S>(state)?).await.map_err(Unmade::of) }.boxed_local()
    }
}

impl<S, A, U> Here for Pair<S, A, U>
where
    S: SagaState,
    A: AsyncFn(&mut Transaction, &StepContext, S) -> StepOutcome<S> + Send + Sync + 'static,
    U: AsyncFn(&mut Transaction, &StepContext, S) -> StepOutcome<S, ()> + Send + Sync + 'static,
{
    fn act<'a>(
        &'a self,
        transaction: &'a mut Transaction,
        context: &'a StepContext,
        state: Value,
    ) -> LocalBoxFuture<'a, Result<Value, Unmade>> {
        async move { write((self.act)(transaction, context, read::<S>(state)?).await.map_err(Unmade::of)?) }
            .boxed_local()
    }

    fn undo<'a>(
        &'a self,
        transaction: &'a mut Transaction,
        context: &'a StepContext,
        state: Value,
    ) -> LocalBoxFuture<'a, Result<(), Unmade>> {
        async move { (self.undo)(transaction, context, read::<S>(state)?).await.map_err(Unmade::of) }.boxed_local()
    }
}

pub(super) fn read<S: SagaState>(state: Value) -> Result<S, Unmade> {
    let told = |error| Unmade::Failed(Failure::Internal(format!("the state of a saga cannot be read: {error}")));
    serde_json::from_value(state).map_err(told)
}

pub(super) fn write<S: SagaState>(state: S) -> Result<Value, Unmade> {
    let told = |error| Unmade::Failed(Failure::Internal(format!("the state of a saga cannot be written: {error}")));
    serde_json::to_value(&state).map_err(told)
}
