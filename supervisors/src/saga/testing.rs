//! What proves a saga: each fault at each step, forward and back.
//!
//! A saga is run once without a fault, and then once for every step and every fault that can befall it: refused, failed
//! without effect, repeated, its outcome unknown (with and without effect), the node gone before and after it. The same
//! for every undo, and an undo that is refused until the saga is stuck and an operator retries it. After each run the
//! saga must be whole, or gone without a trace, as the fault demands.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use callboard_messages::{Caller, Failure, SagaStatus};
use chrono::DateTime;
use futures_util::{FutureExt, future::LocalBoxFuture};
use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    Saga, SagaEngine, SagaSettings, SagaState, Sagas, StepContext,
    driver::Ended,
    log,
    plan::{Elsewhere, Here, Kind, Step, Unmade, written_failure},
    sweeper::Sweeper,
};
use crate::{
    call::bus::Bus,
    db::{Databases, Transaction},
    restart::Backoff,
    time::clock::Clock,
};

/// What a saga under proof stands on, and how to tell whole from gone.
pub trait World {
    /// The saga's state.
    type State: SagaState;
    /// The saga.
    fn saga(&self) -> Saga<Self::State>;
    /// The domain, whose database is migrated.
    fn domain(&self) -> &'static str;
    /// What answers the steps.
    fn bus(&self) -> Bus;
    /// Who begins, and a state for a new run, with ids of its own.
    fn begin(&self) -> (Caller, Uuid, Self::State);
    /// Panics unless all of it is there, once.
    fn assert_whole(&self, id: Uuid) -> impl Future<Output = ()>;
    /// Panics if anything of it is there.
    fn assert_gone(&self, id: Uuid) -> impl Future<Output = ()>;
}

/// What befalls one call of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Refused for good, every time.
    Refused,
    /// Not carried out, once.
    Failed,
    /// Carried out twice.
    Repeated,
    /// Carried out, but nobody knows, once.
    UnknownDone,
    /// Not carried out, but nobody knows, once.
    UnknownUndone,
    /// Carried out although nobody knows, and then refused for good.
    UnknownThenRefused,
    /// The node is gone before it.
    CrashedBefore,
    /// The node is gone after it, before anybody wrote it down.
    CrashedAfter,
}

const PASSING: [Fault; 6] = [
    Fault::Failed,
    Fault::Repeated,
    Fault::UnknownDone,
    Fault::UnknownUndone,
    Fault::CrashedBefore,
    Fault::CrashedAfter,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Act,
    Undo,
}

/// What befalls one run.
#[derive(Debug, Clone, Default)]
struct Script(Vec<(usize, Way, Fault)>);

struct FaultInjector {
    script: Script,
    calls: Vec<[AtomicU32; 2]>,
    /// The faults are over: an operator has mended what was wrong.
    mended: AtomicBool,
    crashed: Notify,
}

impl FaultInjector {
    /// What befalls this call.
    fn next(&self, step: usize, way: Way) -> Option<Fault> {
        let calls = self.calls.get(step)?.get(way as usize)?.fetch_add(1, Ordering::SeqCst);
        if self.mended.load(Ordering::SeqCst) {
            return None;
        }
        let fault = self.script.0.iter().find(|(at, on, _)| (*at, *on) == (step, way)).map(|(.., fault)| *fault)?;
        match fault {
            Fault::Refused => Some(fault),
            Fault::UnknownThenRefused if calls == 0 => Some(Fault::UnknownDone),
            Fault::UnknownThenRefused => Some(Fault::Refused),
            _ => (calls == 0).then_some(fault),
        }
    }

    async fn crash<T>(&self) -> T {
        self.crashed.notify_one();
        std::future::pending().await
    }
}

fn refused() -> Unmade {
    let failure = Failure::Forbidden("a fault of the proof".into());
    Unmade::Refused(written_failure(&failure), failure.to_string())
}

fn failed() -> Unmade {
    Unmade::Failed(Failure::Unavailable { retry_after: Duration::ZERO })
}

fn unknown() -> Unmade {
    Unmade::Failed(Failure::Unknown)
}

/// A step that faults befall.
struct Faulty<T> {
    inner: T,
    step: usize,
    faults: Arc<FaultInjector>,
}

impl<T> Faulty<T> {
    /// Calls `call` as the script has it.
    async fn with_fault<R>(&self, way: Way, mut call: impl AsyncFnMut() -> Result<R, Unmade>) -> Result<R, Unmade> {
        match self.faults.next(self.step, way) {
            None => call().await,
            Some(Fault::Refused | Fault::UnknownThenRefused) => Err(refused()),
            Some(Fault::Failed) => Err(failed()),
            Some(Fault::UnknownUndone) => Err(unknown()),
            Some(Fault::CrashedBefore) => self.faults.crash().await,
            Some(Fault::Repeated) => {
                call().await?;
                call().await
            }
            Some(Fault::UnknownDone) => {
                call().await?;
                Err(unknown())
            }
            Some(Fault::CrashedAfter) => {
                call().await?;
                self.faults.crash().await
            }
        }
    }
}

impl Elsewhere for Faulty<Arc<dyn Elsewhere>> {
    fn act<'a>(&'a self, context: &'a StepContext, state: Value) -> LocalBoxFuture<'a, Result<Value, Unmade>> {
        self.with_fault(Way::Act, async move || self.inner.act(context, state.clone()).await).boxed_local()
    }

    fn undo<'a>(&'a self, context: &'a StepContext, state: Value) -> LocalBoxFuture<'a, Result<(), Unmade>> {
        self.with_fault(Way::Undo, async move || self.inner.undo(context, state.clone()).await).boxed_local()
    }
}

impl Faulty<Arc<dyn Here>> {
    /// What a transaction is spared: nothing of it is there until all of it is.
    fn spared(&self, way: Way) -> Option<Fault> {
        match self.faults.next(self.step, way) {
            Some(Fault::Repeated | Fault::UnknownDone) => Some(Fault::Failed),
            fault => fault,
        }
    }

    async fn before(&self, fault: Option<Fault>) -> Result<(), Unmade> {
        match fault {
            Some(Fault::Refused | Fault::UnknownThenRefused) => Err(refused()),
            Some(Fault::UnknownUndone) => Err(unknown()),
            Some(Fault::CrashedBefore) => self.faults.crash().await,
            _ => Ok(()),
        }
    }

    async fn after(&self, fault: Option<Fault>) -> Result<(), Unmade> {
        match fault {
            // Carried out, and taken back with the transaction.
            Some(Fault::Failed) => Err(failed()),
            Some(Fault::CrashedAfter) => self.faults.crash().await,
            _ => Ok(()),
        }
    }
}

impl Here for Faulty<Arc<dyn Here>> {
    fn act<'a>(
        &'a self,
        transaction: &'a mut Transaction,
        context: &'a StepContext,
        state: Value,
    ) -> LocalBoxFuture<'a, Result<Value, Unmade>> {
        async move {
            let fault = self.spared(Way::Act);
            self.before(fault).await?;
            let state = self.inner.act(transaction, context, state).await?;
            self.after(fault).await.map(|()| state)
        }
        .boxed_local()
    }

    fn undo<'a>(
        &'a self,
        transaction: &'a mut Transaction,
        context: &'a StepContext,
        state: Value,
    ) -> LocalBoxFuture<'a, Result<(), Unmade>> {
        async move {
            let fault = self.spared(Way::Undo);
            self.before(fault).await?;
            self.inner.undo(transaction, context, state).await?;
            self.after(fault).await
        }
        .boxed_local()
    }
}

/// Runs the saga of `world` under every fault at every step, forward and back.
///
/// # Panics
/// When a run ends otherwise than it should, or leaves something behind.
pub async fn prove<W: World>(databases: &Databases, world: &W) {
    let steps = world.saga().plan.steps;
    let last = steps.len().saturating_sub(1);
    let is_elsewhere = |index: usize| matches!(steps.get(index), Some(Step { kind: Kind::Elsewhere(_), .. }));
    let proof = Proof { databases, world };
    proof.run(&[], SagaStatus::Done).await;
    for step in 0..steps.len() {
        for fault in PASSING {
            // A crash before the first step that is elsewhere leaves no saga: its beginning was not committed.
            let begun = (0..=step).any(is_elsewhere);
            // What fails as it begins was not begun; the caller is told.
            let end = if begun { SagaStatus::Done } else { SagaStatus::Undone };
            proof.run(&[(step, Way::Act, fault)], end).await;
        }
        proof.run(&[(step, Way::Act, Fault::Refused)], SagaStatus::Undone).await;
        if is_elsewhere(step) {
            proof.run(&[(step, Way::Act, Fault::UnknownThenRefused)], SagaStatus::Undone).await;
        }
    }
    // The saga turns back at its last step, or right behind it when that is elsewhere; each undo has its faults.
    let turn = if is_elsewhere(last) { Fault::UnknownThenRefused } else { Fault::Refused };
    for step in 0..=last {
        if step == last && !is_elsewhere(last) {
            continue;
        }
        for fault in PASSING {
            proof.run(&[(last, Way::Act, turn), (step, Way::Undo, fault)], SagaStatus::Undone).await;
        }
        proof.run(&[(last, Way::Act, turn), (step, Way::Undo, Fault::Refused)], SagaStatus::Stuck).await;
    }
}

struct Proof<'a, W> {
    databases: &'a Databases,
    world: &'a W,
}

impl<W: World> Proof<'_, W> {
    async fn run(&self, script: &[(usize, Way, Fault)], expected: SagaStatus) {
        let (caller, id, state) = self.world.begin();
        let Saga { mut plan, .. } = self.world.saga();
        let names: Vec<_> = plan.steps.iter().map(|step| step.name).collect();
        let told = format!("{} with {script:?} of {names:?}", plan.name);
        let faults = Arc::new(FaultInjector {
            script: Script(script.to_vec()),
            calls: plan.steps.iter().map(|_| Default::default()).collect(),
            mended: AtomicBool::new(false),
            crashed: Notify::new(),
        });
        for (step, place) in plan.steps.iter_mut().enumerate() {
            place.kind = match place.kind.clone() {
                Kind::Elsewhere(inner) => Kind::Elsewhere(Arc::new(Faulty { inner, step, faults: faults.clone() })),
                Kind::Here(inner) => Kind::Here(Arc::new(Faulty { inner, step, faults: faults.clone() })),
            };
        }
        let settings = SagaSettings { backoff: NO_PAUSE, tries: 3, refusals: 3, patience: 10, ..Default::default() };
        let saga = Saga::<W::State>::of(plan);
        let sagas = Sagas::new(self.world.domain(), self.databases).settings(settings).with(saga);

        // Clocks stand still: nothing lapses unless it is meant to.
        let engine = self.engine(&sagas).await;
        let mut ended = tokio::select! {
            biased;
            ended = drive(&engine, &caller, id, state) => ended,
            () = faults.crashed.notified() => Ended::Lost,
        };
        // Each crash of the script needs another node.
        while ended == Ended::Lost {
            let engine = self.engine(&sagas).await;
            if log::get(&engine.database, id).await.is_ok_and(|row| row.is_none()) {
                break;
            }
            ended = self.take_over(&engine, id, &faults).await;
        }
        let row = match log::get(&self.engine(&sagas).await.database, id).await {
            Ok(row) => row,
            Err(error) => panic!("{told}: {error}"),
        };
        // A saga whose beginning was not committed is none.
        let status = row.map_or(SagaStatus::Undone, |row| row.status());
        assert_eq!(status, expected, "{told}: {ended:?}");
        match status {
            SagaStatus::Done => self.world.assert_whole(id).await,
            SagaStatus::Undone => self.world.assert_gone(id).await,
            _ => self.retry(&sagas, id, &faults, &told).await,
        }
    }

    async fn retry(&self, sagas: &Sagas, id: Uuid, faults: &FaultInjector, told: &str) {
        let engine = self.engine(sagas).await;
        let shown = engine.list(Some(SagaStatus::Stuck), Uuid::max(), 100).await;
        let shown = shown.is_ok_and(|list| list.iter().any(|saga| saga.id == id && saga.trouble.is_some()));
        assert!(shown, "{told}: an operator does not see it");
        faults.mended.store(true, Ordering::SeqCst);
        assert!(engine.retry(id).await.is_ok(), "{told}: it cannot be retried");
        let ended = self.take_over(&engine, id, faults).await;
        assert!(matches!(ended, Ended::Undone(_)), "{told}: retried, it came to {ended:?}");
        self.world.assert_gone(id).await;
    }

    async fn engine(&self, sagas: &Sagas) -> SagaEngine {
        match self.databases.open(self.world.domain()).await {
            Ok(database) => {
                let clock = Clock::manual(DateTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
                SagaEngine::new(sagas, database, self.world.bus(), clock)
            }
            Err(error) => panic!("the database of {} can't be opened: {error}", self.world.domain()),
        }
    }

    /// Another node finds the saga, waits until it lapses, and drives it.
    async fn take_over(&self, engine: &SagaEngine, id: Uuid, faults: &FaultInjector) -> Ended {
        let mut sweeper = Sweeper::new(engine.clone());
        // At once when nobody holds it, or when its driver has shown no sign of life for long enough.
        for pause in [Duration::ZERO, engine.sagas.settings.ttl] {
            engine.clock.advance(pause);
            if let Err(error) = sweeper.take_over().await {
                panic!("the sagas cannot be looked through: {error}");
            }
            if sweeper.driving() == 1 {
                break;
            }
        }
        assert_eq!(sweeper.driving(), 1, "what nobody drives is taken over, and nothing else");
        tokio::select! {
            biased;
            () = sweeper.drive() => {}
            () = faults.crashed.notified() => return Ended::Lost,
        }
        match log::get(&engine.database, id).await {
            Ok(Some(row)) => match row.status() {
                SagaStatus::Done => Ended::Done(row.progress().state),
                SagaStatus::Undone => Ended::Undone(row.progress().refusal.unwrap_or_default()),
                SagaStatus::Stuck => Ended::Stuck(row.progress().trouble.unwrap_or_default()),
                status => panic!("whoever took it over left it {}", status.as_str()),
            },
            other => panic!("the log lost the saga {id}: {other:?}"),
        }
    }
}

/// Begins and drives a saga within this future, so that dropping it is what a node's end is.
async fn drive<S: SagaState>(engine: &SagaEngine, caller: &Caller, id: Uuid, state: S) -> Ended {
    match engine.begin(caller, id, state).await {
        Ok(driver) => driver.drive().await,
        Err(_) => Ended::Undone(Value::Null),
    }
}

const NO_PAUSE: Backoff = Backoff { first: Duration::ZERO, at_most: Duration::ZERO, factor: 1.0, jitter: 0.0 };
