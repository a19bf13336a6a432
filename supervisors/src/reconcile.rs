//! What is marked in the store and then has to come to its end, such as a deletion.
//!
//! The mark can't be taken back, and every step after it can be repeated. Whoever sets it carries it on while its own caller
//! waits. What a crash, something that ends slowly or a domain out of reach keeps from its end is finished by the reconciler:
//! a child on every node that hosts the domain, which looks at the start, when it is woken, and every minute.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use callboard_messages::{CallError, Caller, DomainError, OrganizationId};
use tokio::sync::Notify;

use crate::{
    call::bus::Bus,
    db::{Database, Databases, Error},
    health::outage::Outage,
    restart::{Backoff, Exit},
    supervise::{ChildContext, ChildSpec},
    tasks::TaskSet,
    time::clock::Clock,
};

/// How long one try may take.
const FINISHED_WITHIN: Duration = Duration::from_secs(20);
/// What is left of a caller's own time for the answer.
const TO_ANSWER: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_secs(60);
/// The pauses while one can't be finished.
const AGAIN: Backoff = Backoff { first: Duration::from_secs(1), at_most: EVERY, factor: 2.0, jitter: 0.2 };
/// How many are looked at in one pass.
const PAGE: i64 = 100;
/// How many are finished at a time: one that ends slowly keeps no other.
const AT_ONCE: usize = 8;

/// What is marked, and how it is finished.
pub trait Reconcile: 'static {
    /// All of them, as people call them: `the deletion of projects`.
    const WHAT: &'static str;
    /// Names one.
    type Id: fmt::Display + Copy + 'static;

    /// Up to `limit` that are marked, the oldest first, each with the tenant for whom it is finished.
    fn marked(database: &Database, limit: i64) -> impl Future<Output = Result<Vec<(Self::Id, OrganizationId)>, Error>>;

    /// What remains of one. Of two that are at it at the same time one has the effect.
    fn finish(
        database: &Database,
        bus: &Bus,
        caller: &Caller,
        id: Self::Id,
    ) -> impl Future<Output = Result<(), Unfinished>>;
}

/// Why something is not finished, the gravest last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfinished {
    /// Somebody else is at it.
    UnderWay,
    /// Something of this one alone.
    Trouble(String),
    /// What all of them stand on is away.
    Outage(String),
}

impl Unfinished {
    /// Another domain could not be had to do something, as the sentence `what` says.
    pub fn of<E: DomainError>(what: &str, error: &CallError<E>) -> Self {
        let reason = format!("{what}: {error}");
        match error {
            CallError::Failed(failure) if failure.is_outage() => Self::Outage(reason),
            _ => Self::Trouble(reason),
        }
    }
}

impl From<Error> for Unfinished {
    fn from(error: Error) -> Self {
        match error.outside_outage() {
            None => Self::Outage(error.to_string()),
            Some(_) => Self::Trouble(error.to_string()),
        }
    }
}

/// Finishes what `R` says is marked, on one node. Cheap to clone.
pub struct Reconciler<R> {
    shared: Arc<Shared>,
    of: PhantomData<fn() -> R>,
}

struct Shared {
    /// One can't be finished while its caller waits.
    wake: Notify,
    /// What they stand on is away: said once, however many of them wait for it.
    outage: Outage,
}

impl<R> Clone for Reconciler<R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), of: PhantomData }
    }
}

impl<R: Reconcile> Default for Reconciler<R> {
    fn default() -> Self {
        let shared = Shared { wake: Notify::new(), outage: Outage::new(R::WHAT) };
        Self { shared: Arc::new(shared), of: PhantomData }
    }
}

impl<R: Reconcile> Reconciler<R> {
    /// Carries on one that was just marked, as long as its caller waits; whether it is finished.
    pub async fn carry_on(&self, database: &Database, bus: &Bus, clock: &Clock, mut caller: Caller, id: R::Id) -> bool {
        caller.deadline = caller.deadline.map(|deadline| deadline.checked_sub(TO_ANSWER).unwrap_or(deadline));
        let finished = finish::<R>(database, bus, clock, caller, id).await;
        if let Err(unfinished) = &finished {
            self.left(id, unfinished);
            self.wake();
        }
        finished.is_ok()
    }

    /// Something was marked that nobody carries on.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// The child of the domain that finishes what is left.
    #[must_use]
    pub fn child(&self, name: &'static str, databases: &Databases, domain: &'static str) -> ChildSpec {
        let reconciler = self.clone();
        ChildSpec::with_database(name, databases.clone(), domain, move |context, database| {
            reconciler.clone().run(context, database)
        })
    }

    async fn run(self, context: ChildContext, database: Database) -> Exit {
        let mut tried = 0;
        loop {
            let left = tokio::select! {
                () = context.stopping() => return Exit::Shutdown,
                left = self.pass(&database, &context) => left,
            };
            // As long as one of them waits for what is away, it is away.
            if !matches!(left, Some(Unfinished::Outage(_))) {
                self.shared.outage.works();
            }
            let pause = if left.is_none() { EVERY } else { AGAIN.delay(tried) };
            tried += 1;
            tokio::select! {
                () = context.stopping() => return Exit::Shutdown,
                () = self.shared.wake.notified() => tried = 0,
                () = context.clock.sleep(pause) => {}
            }
        }
    }

    /// The gravest reason why one is left.
    async fn pass(&self, database: &Database, context: &ChildContext) -> Option<Unfinished> {
        let marked = match R::marked(database, PAGE).await {
            Ok(marked) => marked,
            Err(error) => {
                let unfinished = Unfinished::from(error);
                match &unfinished {
                    Unfinished::Outage(reason) => drop(self.shared.outage.failed(reason)),
                    other => {
                        tracing::warn!(what = R::WHAT, reason = ?other, "reading what is marked failed; retrying")
                    }
                }
                return Some(unfinished);
            }
        };
        let (mut finishing, mut worst) = (TaskSet::default(), None::<Unfinished>);
        for (id, organization_id) in marked {
            if finishing.len() == AT_ONCE {
                worst = worst.max(finishing.next().await.flatten());
            }
            let (reconciler, database) = (self.clone(), database.clone());
            let (bus, clock) = (context.bus.clone(), context.clock.clone());
            let caller = Caller { organization_id: Some(organization_id), ..Caller::system() };
            finishing.spawn(async move {
                let unfinished = finish::<R>(&database, &bus, &clock, caller, id).await.err();
                match &unfinished {
                    None => tracing::info!(what = R::WHAT, %id, "what was left is finished"),
                    Some(unfinished) => reconciler.left(id, unfinished),
                }
                unfinished
            });
        }
        while let Some(unfinished) = finishing.next().await {
            worst = worst.max(unfinished);
        }
        worst
    }

    /// Says why one is finished later.
    fn left(&self, id: R::Id, unfinished: &Unfinished) {
        match unfinished {
            Unfinished::UnderWay => {}
            Unfinished::Outage(reason) => drop(self.shared.outage.failed(reason)),
            Unfinished::Trouble(reason) => {
                tracing::warn!(what = R::WHAT, %id, %reason, "finishing what is marked failed; retrying")
            }
        }
    }
}

async fn finish<R: Reconcile>(
    database: &Database,
    bus: &Bus,
    clock: &Clock,
    caller: Caller,
    id: R::Id,
) -> Result<(), Unfinished> {
    let caller = caller.with_deadline(clock.instant() + FINISHED_WITHIN);
    R::finish(database, bus, &caller, id).await
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use callboard_messages::Failure;
    use sqlx::{
        SqlSafeStr,
        migrate::{Migration, MigrationType, Migrator},
    };
    use uuid::Uuid;

    use super::*;
    use crate::{Domain, testing::TestNode};

    /// Things that are removed as their name says.
    struct Removal;

    impl Reconcile for Removal {
        const WHAT: &'static str = "the removal of things";
        type Id = Uuid;

        async fn marked(database: &Database, limit: i64) -> Result<Vec<(Uuid, OrganizationId)>, Error> {
            let sql = "SELECT id, organization_id FROM things WHERE marked ORDER BY id LIMIT $1";
            database.query(sql).bind(limit).fetch_all().await
        }

        async fn finish(database: &Database, _: &Bus, _: &Caller, id: Uuid) -> Result<(), Unfinished> {
            let name: (String,) = database
                .query("SELECT name FROM things WHERE id = $1")
                .bind(id)
                .fetch_optional()
                .await?
                .ok_or(Unfinished::UnderWay)?;
            match name.0.as_str() {
                "slow" => std::future::pending().await,
                "stubborn" => Err(Unfinished::Trouble("it does not go".to_owned())),
                _ => {
                    database.query("DELETE FROM things WHERE id = $1").bind(id).execute().await?;
                    Ok(())
                }
            }
        }
    }

    async fn make(database: &Database, name: &str) -> Uuid {
        let id = Uuid::now_v7();
        let sql = "INSERT INTO things (id, organization_id, name, marked) VALUES ($1, $1, $2, FALSE)";
        database.query(sql).bind(id).bind(name.to_owned()).execute().await.unwrap();
        id
    }

    async fn mark(database: &Database) {
        database.query("UPDATE things SET marked = TRUE").execute().await.unwrap();
    }

    async fn left(database: &Database) -> Vec<String> {
        let names: Vec<(String,)> = database.query("SELECT name FROM things ORDER BY name").fetch_all().await.unwrap();
        names.into_iter().map(|(name,)| name).collect()
    }

    async fn until(what: &str, holds: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds().await {
            assert!(Instant::now() < deadline, "{what}: not in time");
            tokio::task::yield_now().await;
        }
    }

    async fn on_each(body: impl AsyncFn(&TestNode, &Database, &Reconciler<Removal>)) {
        let sql =
            "CREATE TABLE things (id UUID NOT NULL PRIMARY KEY, organization_id UUID NOT NULL, name TEXT NOT NULL,
                                        marked BOOLEAN NOT NULL)";
        let table = Migration::new(1, "things".into(), MigrationType::Simple, sql.into_sql_str(), false);
        let things = Migrator::with_migrations(vec![table]);
        let reconciler = Reconciler::default();
        let domains = |databases: &Databases| {
            let child = reconciler.child("removals", databases, "thing");
            vec![Domain::new("thing").answering::<()>().shared(|_| async { Ok(()) }).child(child).build()]
        };
        let body = async |node: &TestNode| body(node, &node.database("thing").await, &reconciler).await;
        TestNode::on_each(&[("thing", &things)], domains, body).await;
    }

    #[actix_rt::test]
    async fn what_is_left_is_finished_when_the_reconciler_is_woken_and_what_ends_slowly_keeps_no_other() {
        on_each(async |_, database, reconciler| {
            for name in ["slow", "quick", "stubborn", "quick", "quick"] {
                make(database, name).await;
            }
            mark(database).await;
            reconciler.wake();
            until("the others are gone", async || left(database).await == ["slow", "stubborn"]).await;
        })
        .await;
    }

    #[actix_rt::test]
    async fn what_can_t_be_finished_while_its_caller_waits_is_tried_again_after_a_pause() {
        on_each(async |node, database, reconciler| {
            let bus = node.runtime.bus();
            let carry_on = async |id| reconciler.carry_on(database, bus, &node.clock, Caller::system(), id).await;
            assert!(carry_on(make(database, "quick").await).await);
            let stubborn = make(database, "stubborn").await;
            mark(database).await;
            assert!(!carry_on(stubborn).await);
            assert_eq!(left(database).await, ["stubborn"]);
            database.query("UPDATE things SET name = 'quick'").execute().await.unwrap();
            until("it is gone", async || {
                node.clock.advance(Duration::from_secs(1));
                left(database).await.is_empty()
            })
            .await;
        })
        .await;
    }

    #[test]
    fn the_gravest_reason_is_what_all_of_them_stand_on() {
        let away = CallError::<callboard_messages::SagaError>::Failed(Failure::Unavailable {
            retry_after: Duration::from_secs(1),
        });
        let refused = CallError::Refused(callboard_messages::SagaError::NoSuchSaga);
        let (outage, trouble) = (Unfinished::of("it stays", &away), Unfinished::of("it stays", &refused));
        assert_eq!(trouble, Unfinished::Trouble("it stays: there is no such saga".to_owned()));
        assert!(matches!(&outage, Unfinished::Outage(reason) if reason.starts_with("it stays: ")), "{outage:?}");
        assert_eq!(
            [Some(trouble), None, Some(Unfinished::UnderWay), Some(outage.clone())].into_iter().max(),
            Some(Some(outage))
        );
    }
}
