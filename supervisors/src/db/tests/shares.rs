//! Shares of domains in the connections of one thread.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use sqlx::{Connection, PgConnection};

use super::{insert, on_postgres, servers::OwnDatabase, things};
use crate::db::{DatabaseSettings, Databases, PostgresSettings};

const PATIENCE: Duration = Duration::from_secs(30);

/// Enough for an answer; a domain that waits for another takes longer.
const SOON: Duration = Duration::from_secs(10);

fn databases(settings: &PostgresSettings, connections: u32) -> Databases {
    Databases::new(DatabaseSettings::Postgres(PostgresSettings { connections, ..settings.clone() }))
}

#[actix_rt::test]
async fn domains_that_hang_leave_connections_to_the_others() {
    on_postgres(async |settings| {
        let databases = databases(&settings, 8);
        let hanging = ["one", "two"].map(|domain| databases.open(domain));
        let hanging = join_all(hanging).await;
        let statements: Vec<_> = hanging
            .into_iter()
            .map(Result::unwrap)
            .flat_map(|database| std::iter::repeat_n(database, 20))
            .map(|database| {
                actix_rt::spawn(async move { database.query("SELECT pg_sleep(30)").execute().await.map(drop) })
            })
            .collect();
        // The first takes its half, the second what is left of the common ones, and one of the reserve.
        let waited = async {
            while databases.shares().iter().map(|(_, counts)| counts.in_use).sum::<usize>() < 8 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, waited).await.unwrap();
        let in_use = databases.counts()[0].1.in_use;
        assert!(in_use < 8, "{in_use} of 8");
        insert(&databases, "three", 1).await.unwrap();
        let (server, counts) = databases.counts().remove(0);
        assert_eq!((server.as_str(), counts.limit), ("primary", 8));
        for statement in statements {
            statement.abort();
        }
        databases.close().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_domain_that_waits_for_another_within_a_transaction_gets_on() {
    on_postgres(async |settings| {
        let databases = databases(&settings, 2);
        let chain = async || {
            let first = databases.open("one").await.unwrap();
            let held = first.begin().await.unwrap();
            insert(&databases, &uuid::Uuid::now_v7().to_string(), 1).await.unwrap();
            drop(held);
        };
        let all = join_all((0..8).map(|_| chain()));
        tokio::time::timeout(SOON, all).await.expect("they wait for one another");
        databases.close().await;
    })
    .await;
}

#[actix_rt::test]
async fn connections_serve_every_domain_and_are_no_more_than_the_node_may_have() {
    on_postgres(async |settings| {
        let databases = databases(&settings, 6);
        let domains: Vec<String> = (0..17).map(|number| format!("other{number}")).collect();
        for domain in &domains {
            databases.migrate(domain, &things()).await.unwrap();
        }
        let name = settings.schema_prefix.clone();
        let write = async |domain: &String| {
            let database = databases.open(domain).await.unwrap();
            let mut transaction = database.begin().await.unwrap();
            let sql =
                "INSERT INTO things (id, name, stock, flags, live, created_at) VALUES ($1, $2, 1, '[]', true, $3)";
            let insert = transaction.query(sql).bind(uuid::Uuid::now_v7()).bind(domain.clone());
            insert.bind(chrono::Utc::now()).execute().await.unwrap();
            transaction.commit().await.unwrap();
        };
        join_all(domains.iter().map(write)).await;
        let (_, counts) = databases.counts().remove(0);
        assert!(counts.in_use == 0 && (1..=6).contains(&counts.idle), "{counts:?}");
        for domain in &domains {
            let read = databases.open(domain).await.unwrap();
            let names: Vec<(String,)> = read.query("SELECT name FROM things").fetch_all().await.unwrap();
            assert_eq!(names, [(domain.clone(),)], "what a domain wrote is in its schema, and nothing else");
        }
        let mut direct = PgConnection::connect(&settings.url).await.unwrap();
        let count = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE $1";
        let like = format!("{}other%", name.replace('_', "\\_"));
        let schemas: i64 = sqlx::query_scalar(count).bind(like).fetch_one(&mut direct).await.unwrap();
        assert_eq!(schemas, 17);
        direct.close().await.unwrap();
        for domain in &domains {
            databases.drop_schema(domain).await.unwrap();
        }
        databases.close().await;
    })
    .await;
}

/// Phases of the threads' load.
const LOADED: usize = 0;
const IDLE: usize = 1;
const ENDED: usize = 2;

/// The load of one thread: each of its domains asks for more than it may have, and later now and then.
async fn work_on_a_thread(databases: Databases, phase: &AtomicUsize) {
    let domains = (0..17).map(|number| format!("domain{number}"));
    let open = join_all(domains.map(async |domain| databases.open(&domain).await.unwrap())).await;
    let load = open.iter().flat_map(|database| std::iter::repeat_n(database, 8)).map(async |database| {
        while phase.load(Ordering::Relaxed) == LOADED {
            database.query("SELECT pg_sleep(0.02)").execute().await.unwrap();
        }
    });
    join_all(load).await;
    while phase.load(Ordering::Relaxed) == IDLE {
        for database in &open {
            database.query("SELECT 1").execute().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[actix_rt::test]
async fn a_node_of_seventeen_domains_on_eight_threads_stays_below_64_connections_and_idle_below_20() {
    const THREADS: u32 = 8;
    let mut own = OwnDatabase::create().await;
    let databases = Databases::new(DatabaseSettings::Postgres(PostgresSettings {
        threads: THREADS,
        idle_timeout: Duration::from_millis(300),
        // A machine that is busy with other tests is no reason to fail.
        acquire_timeout: PATIENCE,
        ..PostgresSettings::new(own.url.clone())
    }));
    let phase = Arc::new(AtomicUsize::new(LOADED));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (databases, phase) = (databases.clone(), phase.clone());
            thread::spawn(move || actix_rt::System::new().block_on(work_on_a_thread(databases, &phase)))
        })
        .collect();
    let mut most = 0;
    let mut reaches = async |wanted: RangeInclusive<i64>| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
            let count: i64 = sqlx::query_scalar(query).bind(&own.name).fetch_one(&mut own.server).await.unwrap();
            most = most.max(count);
            if wanted.contains(&count) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // All but the reserve.
    let is_loaded = reaches(48..=64).await;
    phase.store(IDLE, Ordering::Relaxed);
    let is_idle = reaches(1..=19).await;
    phase.store(ENDED, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    databases.close().await;
    own.drop().await;
    assert!(is_loaded && is_idle && most <= 64, "loaded: {is_loaded}, idle: {is_idle}, {most} at most");
}
