//! The engine under every fault, on both engines.

mod trouble;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use callboard_messages::{
    Access, CallError, Caller, Code, DomainError, Failure, Operation, SagaDomain, SagaError, SagaStatus,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    testing::{World, prove},
    *,
};
use crate::{
    Bus, Domain, Handle, Outcome, Runtime, ShardContext, StartError,
    db::{Database, Databases, Transaction},
    testing::on_both_engines,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
enum TripError {
    #[error("there is no room")]
    Full,
}

impl DomainError for TripError {
    const CODES: &[Code] = &[Code::Conflict];

    fn code(&self) -> Code {
        Code::Conflict
    }
}

/// Books a trip: a row here, a seat and a bed elsewhere, and a ticket here.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Trip {
    id: Uuid,
    #[serde(default)]
    seat: Option<u32>,
}

impl SagaState for Trip {
    type Error = TripError;
}

macro_rules! operation {
    ($name:ident($text:literal) -> $reply:ty) => {
        #[derive(Debug, Serialize, Deserialize)]
        struct $name(Uuid);

        impl Operation for $name {
            const NAME: &'static str = $text;
            const ACCESS: Access = Access::Internal;
            const IDEMPOTENT: bool = true;
            type Reply = $reply;
            type Error = TripError;
        }
    };
}

operation!(TakeSeat("inn.take_seat") -> u32);
operation!(FreeSeat("inn.free_seat") -> ());
operation!(TakeBed("inn.take_bed") -> ());
operation!(FreeBed("inn.free_bed") -> ());

/// What is taken elsewhere, and how often each was taken anew.
#[derive(Clone, Default)]
struct Inn {
    seats: Arc<Mutex<HashMap<Uuid, u32>>>,
    beds: Arc<Mutex<HashMap<Uuid, u32>>>,
    full: Arc<AtomicBool>,
    gate: Option<Arc<Notify>>,
    /// How many wait at the gate.
    waiting: Arc<AtomicUsize>,
}

impl Handle<TakeSeat> for Inn {
    async fn handle(&self, _: &Caller, TakeSeat(id): TakeSeat) -> Outcome<TakeSeat> {
        if let Some(gate) = &self.gate {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            gate.notified().await;
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        if self.full.load(Ordering::SeqCst) {
            return Err(TripError::Full.into());
        }
        self.seats.lock().insert(id, 7);
        Ok(7)
    }
}

impl Handle<FreeSeat> for Inn {
    async fn handle(&self, _: &Caller, FreeSeat(id): FreeSeat) -> Outcome<FreeSeat> {
        self.seats.lock().remove(&id);
        Ok(())
    }
}

impl Handle<TakeBed> for Inn {
    async fn handle(&self, _: &Caller, TakeBed(id): TakeBed) -> Outcome<TakeBed> {
        self.beds.lock().insert(id, 1);
        Ok(())
    }
}

impl Handle<FreeBed> for Inn {
    async fn handle(&self, _: &Caller, FreeBed(id): FreeBed) -> Outcome<FreeBed> {
        self.beds.lock().remove(&id);
        Ok(())
    }
}

async fn record(transaction: &mut Transaction, _: &StepContext, trip: Trip) -> StepOutcome<Trip> {
    transaction.query("INSERT INTO trips (id) VALUES ($1)").bind(trip.id).execute().await?;
    Ok(trip)
}

async fn erase(transaction: &mut Transaction, _: &StepContext, trip: Trip) -> StepOutcome<Trip, ()> {
    transaction.query("DELETE FROM trips WHERE id = $1").bind(trip.id).execute().await?;
    Ok(())
}

async fn take_seat(context: &StepContext, trip: Trip) -> StepOutcome<Trip> {
    let seat = context.bus.ask(&context.caller, TakeSeat(trip.id)).await?;
    Ok(Trip { seat: Some(seat), ..trip })
}

async fn free_seat(context: &StepContext, trip: Trip) -> StepOutcome<Trip, ()> {
    context.bus.ask(&context.caller, FreeSeat(trip.id)).await
}

async fn take_bed(context: &StepContext, trip: Trip) -> StepOutcome<Trip> {
    context.bus.ask(&context.caller, TakeBed(trip.id)).await.map(|()| trip)
}

async fn free_bed(context: &StepContext, trip: Trip) -> StepOutcome<Trip, ()> {
    context.bus.ask(&context.caller, FreeBed(trip.id)).await
}

async fn print(transaction: &mut Transaction, _: &StepContext, trip: Trip) -> StepOutcome<Trip> {
    transaction
        .query("INSERT INTO tickets (trip, seat) VALUES ($1, $2)")
        .bind(trip.id)
        .bind(trip.seat.map(i64::from))
        .execute()
        .await?;
    Ok(trip)
}

async fn tear(transaction: &mut Transaction, _: &StepContext, trip: Trip) -> StepOutcome<Trip, ()> {
    transaction.query("DELETE FROM tickets WHERE trip = $1").bind(trip.id).execute().await?;
    Ok(())
}

fn booking() -> Saga<Trip> {
    Saga::new("trip.book")
        .local("record", record, erase)
        .step("seat", take_seat, free_seat)
        .step("bed", take_bed, free_bed)
        .local("ticket", print, tear)
}

/// The same, but nothing here is the last or the first.
fn bare_booking() -> Saga<Trip> {
    Saga::new("trip.book")
        .step("seat", take_seat, free_seat)
        .local("ticket", print, tear)
        .step("bed", take_bed, free_bed)
}

struct Travel {
    saga: fn() -> Saga<Trip>,
    database: Database,
    inn: Inn,
    runtime: Runtime,
}

impl Travel {
    async fn new(databases: &Databases, saga: fn() -> Saga<Trip>) -> Self {
        let inn = Inn::default();
        Self { saga, database: databases.open("trip").await.unwrap(), runtime: node(&inn, None).await, inn }
    }

    async fn rows(&self, id: Uuid) -> (i64, i64) {
        let count = async |sql| self.database.query(sql).bind(id).fetch_scalar::<i64>().await.unwrap();
        (
            count("SELECT COUNT(*) FROM trips WHERE id = $1").await,
            count("SELECT COUNT(*) FROM tickets WHERE trip = $1 AND seat = 7").await,
        )
    }
}

impl World for Travel {
    type State = Trip;

    fn saga(&self) -> Saga<Trip> {
        (self.saga)()
    }

    fn domain(&self) -> &'static str {
        "trip"
    }

    fn bus(&self) -> Bus {
        self.runtime.bus().clone()
    }

    fn begin(&self) -> (Caller, Uuid, Trip) {
        let id = Uuid::now_v7();
        (Caller::system(), id, Trip { id, seat: None })
    }

    async fn assert_whole(&self, id: Uuid) {
        let records = i64::from(self.saga().plan.steps.len() == 4);
        assert_eq!(self.rows(id).await, (records, 1));
        assert!(self.inn.seats.lock().contains_key(&id) && self.inn.beds.lock().contains_key(&id));
    }

    async fn assert_gone(&self, id: Uuid) {
        assert_eq!(self.rows(id).await, (0, 0));
        assert!(!self.inn.seats.lock().contains_key(&id) && !self.inn.beds.lock().contains_key(&id));
    }
}

enum Trips {}

impl SagaDomain for Trips {
    const LIST: &'static str = "trip.list_sagas";
    const RETRY: &'static str = "trip.retry_saga";
}

impl HasSagas for SagaEngine {
    fn sagas(&self) -> &SagaEngine {
        self
    }
}

async fn node(inn: &Inn, sagas: Option<&Sagas>) -> Runtime {
    let hosted = inn.clone();
    let inn =
        Domain::new("inn").answering::<Inn>().on::<TakeSeat>().on::<FreeSeat>().on::<TakeBed>().on::<FreeBed>().shared(
            move |_| {
                let hosted = hosted.clone();
                async move { Ok::<_, StartError>(hosted) }
            },
        );
    let trips = sagas.map(|sagas| {
        let begun = sagas.clone();
        let contract = Domain::new("trip").answering::<SagaEngine>().sagas::<Trips>();
        let open = move |context: ShardContext| {
            let begun = begun.clone();
            async move { Ok(begun.open(&context).await?) }
        };
        contract.shared(open).sagas(sagas).build()
    });
    let runtime = Runtime::builder().workers(1).build([inn.build()].into_iter().chain(trips).collect()).unwrap();
    runtime.attach().await;
    runtime
}

fn migrations() -> Migrator {
    let table = |version, name: &'static str, sql: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        table(1, "trips", "CREATE TABLE trips (id UUID NOT NULL PRIMARY KEY)"),
        table(2, "tickets", "CREATE TABLE tickets (trip UUID NOT NULL PRIMARY KEY, seat BIGINT)"),
    ])
}

async fn on_both(body: impl AsyncFn(Databases)) {
    on_both_engines(&[("trip", &migrations())], body).await;
}

#[actix_rt::test]
async fn every_fault_at_every_step_leaves_it_whole_or_gone() {
    on_both(async |databases| {
        for saga in [booking, bare_booking] {
            let travel = Travel::new(&databases, saga).await;
            prove(&databases, &travel).await;
            travel.runtime.stop(Duration::from_secs(5)).await;
        }
    })
    .await;
}

fn engine(sagas: &Sagas, database: &Database, runtime: &Runtime) -> SagaEngine {
    SagaEngine::new(sagas, database.clone(), runtime.bus().clone(), runtime.clock().clone())
}

#[actix_rt::test]
async fn whoever_began_it_is_told_the_end_and_the_domains_own_refusal() {
    on_both(async |databases| {
        let travel = Travel::new(&databases, booking).await;
        let sagas = Sagas::new("trip", &databases).with(booking());
        let engine = engine(&sagas, &travel.database, &travel.runtime);
        let (caller, id, trip) = travel.begin();
        assert_eq!(engine.run(&caller, id, trip.clone()).await.unwrap().seat, Some(7));
        // The first step is in the transaction of the beginning: refused, there is no saga.
        let again = engine.run(&caller, Uuid::now_v7(), trip).await;
        assert!(matches!(again, Err(CallError::Failed(Failure::Invalid))), "{again:?}");

        travel.inn.full.store(true, Ordering::SeqCst);
        let (caller, id, trip) = travel.begin();
        assert_eq!(engine.run(&caller, id, trip).await.unwrap_err(), CallError::Refused(TripError::Full));
        travel.assert_gone(id).await;
        assert_eq!(engine.list(None, Uuid::max(), 100).await.unwrap(), []);
        assert_eq!(engine.list(Some(SagaStatus::Undone), Uuid::max(), 100).await.unwrap()[0].id, id);
        assert_eq!(engine.retry(id).await.unwrap_err(), SagaError::NotStuck(SagaStatus::Undone).into());
        assert_eq!(engine.retry(Uuid::now_v7()).await.unwrap_err(), SagaError::NoSuchSaga.into());
        travel.runtime.stop(Duration::from_secs(5)).await;
    })
    .await;
}

#[actix_rt::test]
async fn a_domain_with_sagas_that_no_operator_would_see_does_not_start() {
    on_both(async |databases| {
        let sagas = Sagas::new("trip", &databases).with(booking());
        let untold = Domain::new("trip").answering::<()>().shared(|_| async { Ok(()) }).sagas(&sagas).build();
        let contract = Domain::new("trip").answering::<SagaEngine>().sagas::<Trips>();
        let undriven = contract.shared(|_| async { Err(StartError::from("nobody asks")) }).build();
        for domain in [untold, undriven] {
            let wrong = Runtime::builder().workers(1).build(vec![domain]).err().unwrap();
            assert!(wrong[0].contains("domain trip: its sagas are either"), "{wrong:?}");
        }
    })
    .await;
}

#[actix_rt::test]
async fn a_domain_that_stays_away_for_long_is_given_up_and_nothing_is_left() {
    on_both(async |databases| {
        let travel = Travel::new(&databases, booking).await;
        travel.runtime.force_breaker("inn", Some(crate::breaker::Force::Open));
        let settings = SagaSettings {
            backoff: Backoff { first: Duration::from_millis(1), ..Backoff::default() },
            tries: 4,
            ..SagaSettings::default()
        };
        let sagas = Sagas::new("trip", &databases).settings(settings).with(booking());
        let engine = engine(&sagas, &travel.database, &travel.runtime);
        let (caller, id, trip) = travel.begin();
        let given_up = engine.run(&caller, id, trip).await.unwrap_err();
        assert!(matches!(given_up, CallError::Failed(Failure::Unavailable { .. })), "{given_up:?}");
        travel.assert_gone(id).await;
        travel.runtime.stop(Duration::from_secs(5)).await;
    })
    .await;
}

#[actix_rt::test]
async fn what_a_gone_node_has_begun_is_finished_by_the_sweeper_of_another() {
    on_both(async |databases| {
        let inn = Inn::default();
        let settings = SagaSettings { ttl: Duration::from_millis(500), ..SagaSettings::default() };
        let sagas = Sagas::new("trip", &databases).settings(settings).with(booking());
        let travel = Travel::new(&databases, booking).await;
        let gone = engine(&sagas, &travel.database, &travel.runtime);
        let (caller, id, trip) = travel.begin();
        drop(gone.begin(&caller, id, trip).await.unwrap());
        travel.runtime.stop(Duration::from_secs(5)).await;

        let other = node(&inn, Some(&sagas)).await;
        let travel = Travel { runtime: other, inn, ..travel };
        let deadline = Instant::now() + Duration::from_secs(30);
        while log::get(&travel.database, id).await.unwrap().unwrap().status() != SagaStatus::Done {
            assert!(Instant::now() < deadline, "nobody has finished it");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        travel.assert_whole(id).await;
        travel.runtime.stop(Duration::from_secs(5)).await;
    })
    .await;
}

#[actix_rt::test]
async fn a_driver_that_was_replaced_writes_nothing_more() {
    on_both(async |databases| {
        let gate = Arc::new(Notify::new());
        let slow = Inn { gate: Some(gate.clone()), ..Inn::default() };
        let runtime = node(&slow, None).await;
        let travel = Travel { saga: booking, database: databases.open("trip").await.unwrap(), inn: slow, runtime };
        let sagas = Sagas::new("trip", &databases).with(booking());
        let engine = engine(&sagas, &travel.database, &travel.runtime);
        let (caller, id, trip) = travel.begin();
        let driver = engine.begin(&caller, id, trip).await.unwrap();
        let paused = actix_rt::spawn(driver.drive());
        // Another takes it over while the step is still under way, and finishes it.
        let row = log::get(&travel.database, id).await.unwrap().unwrap();
        let new = engine.take_over(&row).await.unwrap().unwrap();
        let finished = actix_rt::spawn(new.drive());
        let deadline = Instant::now() + Duration::from_secs(30);
        while travel.rows(id).await != (1, 1) {
            gate.notify_one();
            assert!(Instant::now() < deadline, "it does not end");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let (ends, end) = (finished.await.unwrap(), paused.await.unwrap());
        assert!(matches!(ends, driver::Ended::Done(_)), "{ends:?}");
        assert_eq!(end, driver::Ended::Lost);
        travel.assert_whole(id).await;
        travel.runtime.stop(Duration::from_secs(5)).await;
    })
    .await;
}
