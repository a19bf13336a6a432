//! Two domains, one that emits and one that reacts, and transports between them.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use callboard_messages::{
    CallError, Caller,
    cluster::{Bury, DeadLetter},
};
use futures_util::{FutureExt, future::LocalBoxFuture};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sqlx::{
    SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};
use uuid::Uuid;

use super::super::*;
use crate::{
    Clock, Domain, Handle, Outcome, Runtime, StartError,
    db::{Database, Databases, Transaction},
    testing::on_both_engines,
};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Happened {
    pub(super) to: Uuid,
    pub(super) number: i64,
    /// Added in a later version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

impl Happened {
    pub(super) fn new(to: Uuid, number: i64) -> Self {
        Self { to, number, note: None }
    }
}

impl Event for Happened {
    const NAME: &'static str = "thing.happened";
    fn aggregate(&self) -> Uuid {
        self.to
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Unheard(pub(super) Uuid);

impl Event for Unheard {
    const NAME: &'static str = "thing.unheard";
    fn aggregate(&self) -> Uuid {
        self.0
    }
}

/// An event that `target` can't apply, however often it is delivered.
pub(super) const POISON: i64 = 13;
/// An event whose reaction in `target` never ends.
pub(super) const ENDLESS: i64 = 88;

pub(super) struct Target(Database);

impl Stored for Target {
    fn database(&self) -> &Database {
        &self.0
    }
}

impl React<Happened> for Target {
    async fn react(
        &self,
        transaction: &mut Transaction,
        event: &Occurred<Happened>,
    ) -> Result<(), CallError<Inapplicable>> {
        transaction
            .query("INSERT INTO applied (event, aggregate, number, place) SELECT $1, $2, $3, COUNT(*) FROM applied")
            .bind(event.id)
            .bind(event.event.to)
            .bind(event.event.number)
            .execute()
            .await?;
        if event.event.number == ENDLESS {
            std::future::pending::<()>().await;
        }
        if event.event.number == POISON {
            return Err(Inapplicable("thirteen".to_owned()).into());
        }
        Ok(())
    }
}

#[derive(Clone, Default)]
pub(super) struct Graves(pub(super) Arc<Mutex<Vec<DeadLetter>>>);

impl Handle<Bury> for Graves {
    async fn handle(&self, _: &Caller, message: Bury) -> Outcome<Bury> {
        self.0.lock().push(message.letter);
        Ok(())
    }
}

pub(super) struct Node {
    pub(super) runtime: Runtime,
    pub(super) graves: Graves,
}

impl Node {
    pub(super) async fn start(databases: &Databases, transport: Arc<dyn EventTransport>) -> Self {
        Self::start_at(databases, transport, &Clock::system()).await
    }

    pub(super) async fn start_at(databases: &Databases, transport: Arc<dyn EventTransport>, clock: &Clock) -> Self {
        let graves = Graves::default();
        let (kept, opened) = (graves.clone(), databases.clone());
        let cluster = Domain::new("cluster").answering::<Graves>().on::<Bury>().shared(move |_| {
            let kept = kept.clone();
            async move { Ok::<_, StartError>(kept) }
        });
        let source = Domain::new("source").answering::<()>().shared(|_| async { Ok(()) });
        let target = Domain::new("target").answering::<Target>().reacts_to::<Happened>().shared(move |_| {
            let opened = opened.clone();
            async move { Ok(Target(opened.open("target").await?)) }
        });
        let domains = vec![cluster.build(), source.stored(databases).build(), target.stored(databases).build()];
        let runtime = Runtime::builder().workers(1).clock(clock.clone()).events(transport).build(domains).unwrap();
        runtime.attach().await;
        Self { runtime, graves }
    }

    pub(super) async fn stop(&self) {
        self.runtime.stop(Duration::from_secs(5)).await;
    }

    pub(super) fn metric(&self, name: &str) -> f64 {
        let families = self.runtime.metrics().gather();
        let family = families.iter().find(|family| family.name() == name);
        family.map_or(0.0, |family| family.get_metric().iter().map(|metric| metric.get_gauge().get_value()).sum())
    }
}

fn migrations() -> [Migrator; 2] {
    let table = "CREATE TABLE applied (event UUID NOT NULL, aggregate UUID NOT NULL, number BIGINT NOT NULL,
                                       place BIGINT NOT NULL)";
    let applied = Migration::new(1, "applied".into(), MigrationType::Simple, table.into_sql_str(), false);
    [Migrator::with_migrations(Vec::new()), Migrator::with_migrations(vec![applied])]
}

pub(super) async fn on_both(body: impl AsyncFn(Databases)) {
    let [source, target] = migrations();
    on_both_engines(&[("source", &source), ("target", &target)], body).await;
}

pub(super) async fn emit_one<E: Event>(database: &Database, event: &E) {
    let mut transaction = database.begin().await.unwrap();
    emit(&mut transaction, &Caller::system(), event).await.unwrap();
    transaction.commit().await.unwrap();
}

pub(super) async fn pending(database: &Database) -> i64 {
    database.query("SELECT COUNT(*) FROM outbox WHERE published_at IS NULL").fetch_scalar().await.unwrap()
}

/// The applied numbers by aggregate, in order.
pub(super) async fn applied(databases: &Databases) -> HashMap<Uuid, Vec<i64>> {
    let database = databases.open("target").await.unwrap();
    let rows: Vec<(Uuid, i64)> =
        database.query("SELECT aggregate, number FROM applied ORDER BY place").fetch_all().await.unwrap();
    let mut numbers: HashMap<Uuid, Vec<i64>> = HashMap::new();
    for (aggregate, number) in rows {
        numbers.entry(aggregate).or_default().push(number);
    }
    numbers
}

pub(super) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so().await {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A transport that records what is published, and lets a test decide the outcome.
#[derive(Clone, Default)]
pub(super) struct Recorder(pub(super) Arc<Mutex<Recorded>>);

#[derive(Default)]
pub(super) struct Recorded {
    pub(super) published: Vec<CloudEvent>,
    pub(super) sinks: Vec<EventSink>,
    pub(super) fails: Option<PublishError>,
    /// Number of publishes.
    pub(super) tries: u32,
    pub(super) catalogue: Catalogue,
}

impl EventTransport for Recorder {
    fn declare(&self, catalogue: Catalogue) {
        self.0.lock().catalogue = catalogue;
    }
    fn subscribe(&self, sink: EventSink) {
        self.0.lock().sinks.push(sink);
    }
    fn publish(&self, event: CloudEvent) -> LocalBoxFuture<'static, Result<(), PublishError>> {
        let this = self.clone();
        async move {
            // A broker answers later.
            tokio::task::yield_now().await;
            let mut recorded = this.0.lock();
            recorded.tries += 1;
            if let Some(error) = recorded.fails.clone() {
                return Err(error);
            }
            recorded.published.push(event);
            Ok(())
        }
        .boxed_local()
    }
    fn redeliver(&self, _: &str, event: CloudEvent) -> LocalBoxFuture<'static, Result<(), PublishError>> {
        self.publish(event)
    }
}
