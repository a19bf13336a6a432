//! The sagas of a domain, and how one is begun.

use std::{any::TypeId, sync::Arc, time::Duration};

use callboard_messages::{CallError, Caller, Failure, SagaStatus};
use serde_json::Value;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    Saga, SagaSettings, SagaState, StepContext, StepOutcome,
    begun::Begun,
    driver::{Driver, Ended, locals},
    log::{self, Beginner, HeldSaga, Progress},
    plan::{Plan, Unmade, read, write},
};
use crate::{
    call::bus::Bus,
    db::{Database, Databases, Error},
    domain::{
        context::ShardContext,
        once::{Attempt, Kept},
    },
    time::clock::Clock,
};

/// The pause between two looks at a saga that an earlier attempt at the same request began.
const GLANCE: Duration = Duration::from_millis(100);

/// The sagas that a domain knows, as plain data. Cheap to clone.
#[derive(Clone)]
pub struct Sagas {
    pub(super) domain: &'static str,
    pub(super) databases: Databases,
    pub(super) settings: SagaSettings,
    pub(super) begun: Begun,
    plans: Arc<Vec<(TypeId, Plan)>>,
}

impl Sagas {
    /// Of the domain that keeps its database among these; none yet.
    #[must_use]
    pub fn new(domain: &'static str, databases: &Databases) -> Self {
        Self {
            domain,
            databases: databases.clone(),
            settings: SagaSettings::default(),
            begun: Begun::default(),
            plans: Arc::default(),
        }
    }

    /// Adds a saga. One state belongs to one saga.
    #[must_use]
    pub fn with<S: SagaState>(mut self, saga: Saga<S>) -> Self {
        let mut plans = self.plans.to_vec();
        plans.push((TypeId::of::<S>(), saga.plan));
        self.plans = Arc::new(plans);
        self
    }

    /// Sets how patient they are.
    #[must_use]
    pub const fn settings(mut self, settings: SagaSettings) -> Self {
        self.settings = settings;
        self
    }

    /// What a shard of the domain begins sagas with.
    ///
    /// # Errors
    /// When the database can't be opened.
    pub async fn open(&self, context: &ShardContext) -> Result<SagaEngine, Error> {
        let database = self.databases.open(self.domain).await?;
        Ok(SagaEngine::new(self, database, context.bus.clone(), context.clock.clone()))
    }

    pub(super) fn plan(&self, name: &str) -> Option<&Plan> {
        self.plans.iter().map(|(_, plan)| plan).find(|plan| plan.name == name)
    }

    fn plan_of<S: SagaState>(&self) -> Result<&Plan, Failure> {
        let found = self.plans.iter().find(|(state, _)| *state == TypeId::of::<S>());
        found.map(|(_, plan)| plan).ok_or_else(|| {
            let state = std::any::type_name::<S>();
            Failure::Internal(format!("the domain {} has no saga with the state {state}", self.domain))
        })
    }
}

/// Begins and drives the sagas of a domain, on one thread. Cheap to clone.
#[derive(Clone)]
pub struct SagaEngine {
    pub(super) sagas: Sagas,
    pub(super) database: Database,
    pub(super) bus: Bus,
    pub(super) clock: Clock,
}

impl SagaEngine {
    pub(super) fn new(sagas: &Sagas, database: Database, bus: Bus, clock: Clock) -> Self {
        Self { sagas: sagas.clone(), database, bus, clock }
    }

    /// Begins the saga of this state under `id`, a UUIDv7 that no saga of any domain had before, by which an operator finds
    /// it, and drives it to its end. Its first steps,
    /// as far as they are in the domain's own database, are one transaction with its beginning: if one is refused, there
    /// was no saga. From then on it goes on also when nobody waits for it any more.
    ///
    /// A [request](Caller::request) of a caller begins one saga of a kind, whichever attempt at it comes first, on whatever
    /// node: another waits for that saga, and ends as that does. Only one that was undone, so that nothing is left of it, is
    /// begun anew.
    ///
    /// # Errors
    /// What the saga was undone for; [`Failure::Unknown`] when it goes on elsewhere, or nobody knows whether it began;
    /// [`Failure::Internal`] when it is stuck.
    pub async fn run<S: SagaState>(&self, caller: &Caller, id: Uuid, state: S) -> StepOutcome<S> {
        let name = self.sagas.plan_of::<S>()?.name;
        let attempt = caller.request.map(|request| Attempt::of(caller, request, name));
        let state = write(state).map_err(unmade::<S>)?;
        loop {
            let kept = match self.attempt::<S>(caller, id, state.clone(), attempt.as_ref()).await? {
                Beginning::New(driver) => {
                    let (ended, end) = oneshot::channel();
                    self.sagas.begun.drive(*driver, ended);
                    return conclude::<S>(id, end.await.unwrap_or(Ended::Lost));
                }
                Beginning::Earlier(kept) => kept,
            };
            let earlier = Uuid::from_slice(&kept.reply)
                .map_err(|error| Failure::Internal(format!("the saga of a request: {error}")))?;
            match (self.end_of(earlier).await?, &attempt) {
                (Ended::Undone(_), Some(attempt)) => attempt.forget(&self.database, kept).await?,
                (ended, _) => return conclude::<S>(earlier, ended),
            }
        }
    }

    /// Waits until a saga has ended or is stuck, whoever drives it. The deadline of the call bounds the wait.
    async fn end_of(&self, id: Uuid) -> Result<Ended, Failure> {
        loop {
            let Some(row) = log::get(&self.database, id).await? else {
                return Err(Failure::Internal(format!("the saga {id} of a request is forgotten")));
            };
            let Progress { status, state, refusal, trouble, .. } = row.progress();
            match status {
                SagaStatus::Done => return Ok(Ended::Done(state)),
                SagaStatus::Undone => return Ok(Ended::Undone(refusal.unwrap_or_default())),
                SagaStatus::Stuck => return Ok(Ended::Stuck(trouble.unwrap_or_default())),
                SagaStatus::Running | SagaStatus::Undoing => self.clock.sleep(GLANCE).await,
            }
        }
    }

    /// Begins a saga, whatever request it is for.
    pub(super) async fn begin<S: SagaState>(
        &self,
        caller: &Caller,
        id: Uuid,
        state: S,
    ) -> Result<Driver, CallError<S::Error>> {
        match self.attempt::<S>(caller, id, write(state).map_err(unmade::<S>)?, None).await? {
            Beginning::New(driver) => Ok(*driver),
            Beginning::Earlier(_) => Err(Failure::Internal("no request has begun a saga".to_owned()).into()),
        }
    }

    async fn attempt<S: SagaState>(
        &self,
        caller: &Caller,
        id: Uuid,
        state: Value,
        attempt: Option<&Attempt>,
    ) -> Result<Beginning, CallError<S::Error>> {
        let plan = self.sagas.plan_of::<S>()?.clone();
        let beginner = Beginner::of(caller);
        let context = self.context(id, &beginner);
        let progress = Progress::beginning(state);
        let mut transaction = self.database.begin().await?;
        if let Some(attempt) = attempt {
            if let Some(kept) = attempt.begin(&mut transaction, self.clock.now()).await? {
                return Ok(Beginning::Earlier(kept));
            }
            attempt.keep(&mut transaction, id.as_bytes()).await?;
        }
        let progress = locals(&plan, &mut transaction, &context, progress).await.map_err(unmade::<S>)?;
        let sent = self.clock.instant();
        let now = self.clock.now();
        log::insert(&mut transaction, id, &plan, &beginner, self.bus.node(), &progress, now).await?;
        transaction.commit().await?;
        let until = sent + self.sagas.settings.ttl / 4 * 3;
        Ok(Beginning::New(Box::new(self.driver(plan, HeldSaga { id, token: 1 }, progress, context, until))))
    }

    /// Takes a saga over whose driver is gone, if nobody was faster.
    pub(super) async fn take_over(&self, row: &log::Row) -> Result<Option<Driver>, Error> {
        let Some(plan) = self.sagas.plan(&row.name).cloned() else {
            tracing::warn!(saga = %row.id, name = row.name, "this version does not know the saga, and leaves it alone");
            return Ok(None);
        };
        if !row.fits(&plan) {
            tracing::warn!(saga = %row.id, name = row.name, "this version has other steps for the saga, and leaves it alone");
            return Ok(None);
        }
        let sent = self.clock.instant();
        let Some(held) = log::take_over(&self.database, row, &plan, self.bus.node()).await? else { return Ok(None) };
        let progress = plan.doubt(row.progress());
        let context = self.context(row.id, &row.caller);
        let until = sent + self.sagas.settings.ttl / 4 * 3;
        Ok(Some(self.driver(plan, held, progress, context, until)))
    }

    fn context(&self, saga_id: Uuid, beginner: &Beginner) -> StepContext {
        StepContext { saga_id, caller: beginner.caller(), bus: self.bus.clone(), clock: self.clock.clone() }
    }

    fn driver(
        &self,
        plan: Plan,
        held: HeldSaga,
        progress: Progress,
        context: StepContext,
        until: std::time::Instant,
    ) -> Driver {
        let (database, settings) = (self.database.clone(), self.sagas.settings);
        Driver { plan, held, progress, context, database, settings, until }
    }
}

/// How an attempt to begin a saga ends.
enum Beginning {
    /// It has begun.
    New(Box<Driver>),
    /// An earlier attempt at the request has begun one, whose id was kept.
    Earlier(Kept),
}

/// What whoever began the saga is told.
pub(super) fn conclude<S: SagaState>(id: Uuid, ended: Ended) -> StepOutcome<S> {
    match ended {
        Ended::Done(state) => read::<S>(state).map_err(unmade::<S>),
        Ended::Undone(refusal) => Err(refusal_of::<S>(refusal)),
        Ended::Stuck(trouble) => Err(Failure::Internal(format!("the saga {id} is stuck: {trouble}")).into()),
        Ended::Lost => Err(Failure::Unknown.into()),
    }
}

fn refusal_of<S: SagaState>(refusal: Value) -> CallError<S::Error> {
    serde_json::from_value(refusal)
        .unwrap_or_else(|error| Failure::Internal(format!("the refusal of a saga cannot be read: {error}")).into())
}

fn unmade<S: SagaState>(unmade: Unmade) -> CallError<S::Error> {
    match unmade {
        Unmade::Refused(refusal, _) => refusal_of::<S>(refusal),
        Unmade::Failed(failure) => failure.into(),
    }
}

impl Plan {
    /// The name of the step that a saga is at.
    pub(super) fn step_at(&self, progress: &Progress) -> Option<&'static str> {
        if progress.status.has_ended() {
            return None;
        }
        let goes_back = progress.refusal.is_some() && !progress.in_doubt;
        let index = if goes_back { progress.position.checked_sub(1)? } else { progress.position };
        self.steps.get(index).map(|step| step.name)
    }
}
