//! A server that goes silent, which no socket reports.

use std::time::{Duration, Instant};

use callboard_messages::Failure;
use futures_util::future::join_all;
use sqlx::postgres::PgConnectOptions;
use tokio::time::timeout;

use super::{Proxy, Way, on_postgres};
use crate::{
    Domain, Part, Runtime,
    db::{
        Database, Databases,
        pool::{Bounds, Pool},
        server::Server,
    },
};

const PATIENCE: Duration = Duration::from_secs(30);

fn in_use(databases: &Databases) -> usize {
    databases.shares().iter().map(|(_, counts)| counts.in_use).sum()
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn stock(database: &Database) -> Result<i64, crate::db::Error> {
    database.query("SELECT stock FROM things WHERE name = 'one'").fetch_scalar().await
}

async fn insert(database: &Database, name: &str) {
    database
        .query("INSERT INTO things (id, name, stock, flags, live, created_at) VALUES ($1, $2, 1, '[]', true, $3)")
        .bind(uuid::Uuid::now_v7())
        .bind(name.to_owned())
        .bind(chrono::Utc::now())
        .execute()
        .await
        .unwrap();
}

#[actix_rt::test]
async fn a_server_that_falls_silent_keeps_no_place_and_is_used_again_when_it_speaks() {
    on_postgres(async |mut settings| {
        let proxy = Proxy::to(&settings.url).await;
        settings.url = proxy.url.clone();
        // One domain may have four of them.
        settings.connections = 8;
        settings.statement_timeout = Duration::from_millis(500);
        settings.acquire_timeout = Duration::from_secs(2);
        let databases = Databases::new(super::DatabaseSettings::Postgres(settings));
        let database = databases.open("thing").await.unwrap();
        insert(&database, "one").await;
        let opened = join_all((0..4).map(|_| stock(&database))).await;
        assert!(opened.iter().all(Result::is_ok));
        let mut transaction = database.begin().await.unwrap();
        transaction.query("UPDATE things SET stock = 7").execute().await.unwrap();

        proxy.set(Way::Silent);
        let began = Instant::now();
        // Dropped requests, as many as there are permits, some in transactions, and more that wait.
        assert!(timeout(Duration::from_millis(50), stock(&database)).await.is_err());
        let statements = join_all((0..8).map(|_| stock(&database)));
        let in_transaction = transaction.query("UPDATE things SET stock = 8").execute();
        let (statements, in_transaction) = futures_util::join!(statements, in_transaction);
        assert!(statements.iter().all(|outcome| outcome.as_ref().is_err_and(super::Error::is_connection)));
        assert!(in_transaction.unwrap_err().is_connection());
        drop(transaction);
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        until(async || in_use(&databases) == 0).await;

        proxy.set(Way::Open);
        until(async || stock(&database).await.is_ok()).await;
        assert_eq!(stock(&database).await.unwrap(), 1, "what was not committed was taken back");
        // Every connection can be used at the same time.
        let held = join_all((0..4).map(|_| database.begin())).await;
        assert!(held.iter().all(Result::is_ok));
        drop(held);
        until(async || in_use(&databases) == 0).await;
        databases.close().await;
    })
    .await;
}

#[actix_rt::test]
async fn an_idle_domain_is_not_ready_while_its_database_is_away_and_a_busy_one_is() {
    on_postgres(async |mut settings| {
        let proxy = Proxy::to(&settings.url).await;
        settings.url = proxy.url.clone();
        settings.connections = 1;
        let databases = Databases::new(super::DatabaseSettings::Postgres(settings));
        let database = databases.open("thing").await.unwrap();
        let domain = Domain::new("thing").answering::<()>().shared(|_| async { Ok(()) });
        let runtime = Runtime::builder().workers(1).build(vec![domain.watches(&databases).build()]).unwrap();
        runtime.attach().await;
        let part = || runtime.ready()[0].part;
        let away = |of: &str| {
            let families = runtime.metrics().gather();
            let all = families.iter().find(|family| family.name() == "callboard_domain_away").unwrap().get_metric();
            let of = all.iter().find(|metric| metric.get_label().iter().any(|label| label.value() == of));
            of.unwrap().get_gauge().get_value()
        };
        for way in [Way::Refused, Way::Silent] {
            proxy.set(way);
            if way == Way::Refused {
                // Its connection is ended by the server.
                database.query("SELECT pg_terminate_backend(pg_backend_pid())").execute().await.unwrap_err();
            }
            until(async || part() == Some(Part::Database)).await;
            let ready = &runtime.ready()[0];
            assert!(ready.reason.as_ref().unwrap().starts_with("PostgreSQL, which has the data of thing, can't be"));
            assert_eq!((away("database"), away("node")), (1.0, 0.0));
            proxy.set(Way::Open);
            until(async || part().is_none()).await;
            assert_eq!(away("database"), 0.0);
        }
        // Others use the only connection one after the other, and get their answers.
        let slow = async || {
            for _ in 0..16 {
                database.query("SELECT pg_sleep(0.25)").execute().await.unwrap();
            }
        };
        let mut seen = None;
        let watched = async {
            for _ in 0..80 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                seen = seen.or_else(part);
            }
        };
        futures_util::join!(slow(), slow(), watched);
        assert_eq!(seen, None, "it is busy, and not away");
        runtime.stop(Duration::from_secs(5)).await;
        databases.close().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_commit_without_an_answer_is_neither_done_nor_undone_but_unknown() {
    on_postgres(async |settings| {
        let direct = Databases::new(super::DatabaseSettings::Postgres(settings.clone()));
        let direct = direct.open("thing").await.unwrap();
        insert(&direct, "one").await;
        let cases = [(Way::NoAnswers, "it has happened", 2), (Way::Silent, "it has not", 1)];
        for (way, what, expected) in cases {
            direct.query("UPDATE things SET stock = 1").execute().await.unwrap();
            let proxy = Proxy::to(&settings.url).await;
            let mut settings = settings.clone();
            settings.url = proxy.url.clone();
            settings.statement_timeout = Duration::from_secs(1);
            let databases = Databases::new(super::DatabaseSettings::Postgres(settings));
            let database = databases.open("thing").await.unwrap();
            let mut transaction = database.begin().await.unwrap();
            transaction.query("UPDATE things SET stock = 2").execute().await.unwrap();
            let (told, was_told) = std::sync::mpsc::channel();
            transaction.on_commit(move || told.send(()).unwrap());
            proxy.set(way);
            let error = transaction.commit().await.unwrap_err();
            assert!(error.is_unknown(), "{error}");
            assert_eq!(Failure::from(error), Failure::Unknown);
            assert!(was_told.recv().is_err(), "nobody is told of a commit that may not be");
            // The server rolls back what was not committed when it sees the end of the connection, which the proxy
            // withholds until then.
            drop(proxy);
            assert_eq!(stock(&direct).await.unwrap(), expected, "{what}");
            assert_eq!(in_use(&databases), 0);
        }
    })
    .await;
}

#[actix_rt::test]
async fn a_statement_that_writes_and_gets_no_answer_is_unknown_and_one_that_reads_is_not() {
    on_postgres(async |mut settings| {
        let proxy = Proxy::to(&settings.url).await;
        settings.url = proxy.url.clone();
        settings.statement_timeout = Duration::from_secs(1);
        let databases = Databases::new(super::DatabaseSettings::Postgres(settings));
        let database = databases.open("thing").await.unwrap();
        insert(&database, "one").await;
        proxy.set(Way::Silent);
        let error = database.query("UPDATE things SET stock = 5").execute().await.unwrap_err();
        assert!(error.is_unknown());
        proxy.set(Way::Open);
        until(async || stock(&database).await.is_ok()).await;
        proxy.set(Way::Silent);
        let error = stock(&database).await.unwrap_err();
        assert!(!error.is_unknown() && error.is_connection());
        assert!(matches!(Failure::from(error), Failure::Unavailable { .. }));
    })
    .await;
}

#[actix_rt::test]
async fn a_connection_that_nobody_uses_is_closed_in_time() {
    on_postgres(async |settings| {
        let bounds = Bounds {
            connections: 2,
            share: 2,
            acquire_within: PATIENCE,
            statement_timeout: PATIENCE,
            idle_for: Duration::from_millis(200),
            is_pooled: false,
        };
        let options: PgConnectOptions = settings.url.parse().unwrap();
        let pool = Pool::new(options.clone(), Server::at(&options), bounds);
        let share = pool.share();
        for _ in 0..2 {
            let (used, other) = (share.acquire().await.unwrap(), share.acquire().await.unwrap());
            drop(other);
            until(async || pool.counts().idle == 0).await;
            assert_eq!(pool.counts().in_use, 1);
            drop(used);
            assert_eq!(pool.counts().idle, 1);
        }
        until(async || pool.counts().idle == 0).await;
    })
    .await;
}

#[actix_rt::test]
async fn closing_waits_neither_for_a_silent_server_nor_for_ever() {
    on_postgres(async |mut settings| {
        let proxy = Proxy::to(&settings.url).await;
        settings.url = proxy.url.clone();
        settings.statement_timeout = Duration::from_secs(60);
        let databases = Databases::new(super::DatabaseSettings::Postgres(settings));
        let database = databases.open("thing").await.unwrap();
        insert(&database, "one").await;
        join_all((0..4).map(|_| stock(&database))).await;
        proxy.set(Way::Silent);
        let asking = database.clone();
        let asked = actix_rt::spawn(async move { stock(&asking).await.map(drop) });
        until(async || in_use(&databases) == 1).await;
        timeout(PATIENCE, databases.close()).await.unwrap();
        let error = database.query("SELECT 1").fetch_scalar::<i32>().await.unwrap_err();
        assert!(error.is_connection(), "a closed pool opens nothing");
        asked.abort();
    })
    .await;
}

#[actix_rt::test]
async fn a_server_that_is_back_is_noticed_within_two_seconds_by_all_who_stand_on_it() {
    on_postgres(async |mut settings| {
        let proxy = Proxy::to(&settings.url).await;
        settings.url = proxy.url.clone();
        settings.statement_timeout = Duration::from_millis(300);
        let databases = Databases::new(super::DatabaseSettings::Postgres(settings));
        let (server, other) = (databases.server("thing").unwrap(), databases.server("other").unwrap());
        let database = databases.open("thing").await.unwrap();
        insert(&database, "one").await;
        for (returns, way) in [(0, Way::Refused), (1, Way::Silent)] {
            proxy.set(way);
            // Open connections keep working while new ones are refused.
            until(async || {
                join_all((0..12).map(|_| stock(&database))).await;
                server.is_away()
            })
            .await;
            assert_eq!(server.returns(), returns);
            proxy.set(Way::Open);
            let back = Instant::now();
            until(async || server.returns() > returns).await;
            assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
            assert_eq!((other.returns(), server.is_away()), (returns + 1, false), "one server for all domains");
            until(async || stock(&database).await.is_ok()).await;
        }
        databases.close().await;
    })
    .await;
}
