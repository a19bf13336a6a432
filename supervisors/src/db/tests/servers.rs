//! Several nodes, several servers.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sqlx::{Connection, PgConnection, migrate::Migrate};
use tokio::time::timeout;
use url::Url;
use uuid::Uuid;

use super::{Proxy, Way, insert, migrator, on_postgres, things};
use crate::{
    db::{DatabaseSettings, Databases, PostgresSettings},
    testing::postgres_url,
};

#[actix_rt::test]
async fn nodes_that_start_together_migrate_once() {
    on_postgres(async |mut settings| {
        settings.schema_prefix.push_str("together_");
        let slow = migrator(&[
            (1, "CREATE TABLE a (id BIGINT); SELECT pg_sleep(0.3)"),
            (2, "CREATE TABLE b (id BIGINT); INSERT INTO b VALUES (1)"),
        ]);
        // Longer than any statement of a request may take, which must not limit the wait for another node.
        settings.statement_timeout = Duration::from_millis(200);
        let nodes: Vec<Databases> =
            (0..6).map(|_| Databases::new(DatabaseSettings::Postgres(settings.clone()))).collect();
        let outcomes = join_all(nodes.iter().map(|node| node.migrate("thing", &slow))).await;
        let database = nodes[0].open("thing").await.unwrap();
        let rows: i64 = database.query("SELECT COUNT(*) FROM b").fetch_scalar().await.unwrap();
        nodes[0].drop_schema("thing").await.unwrap();
        for outcome in outcomes {
            outcome.unwrap();
        }
        assert_eq!(rows, 1);
    })
    .await;
}

#[actix_rt::test]
async fn a_node_with_nothing_to_migrate_does_not_wait_for_one_that_froze_while_it_migrated() {
    on_postgres(async |settings| {
        let mut frozen = PgConnection::connect(&settings.url).await.unwrap();
        frozen.lock().await.unwrap();
        let node = Databases::new(DatabaseSettings::Postgres(settings.clone()));
        let outcome = timeout(Duration::from_secs(10), node.migrate("thing", &things())).await;
        frozen.close().await.unwrap();
        outcome.expect("it waits").unwrap();
    })
    .await;
}

#[actix_rt::test]
async fn a_replica_that_does_not_let_a_node_in_is_left_alone() {
    on_postgres(async |mut settings| {
        let mut elsewhere = Url::parse(&settings.url).unwrap();
        elsewhere.set_path("nobody_made_this_database");
        let replica = Proxy::to(elsewhere.as_str()).await;
        settings.read_url = Some(replica.url.clone());
        let databases = Databases::new(DatabaseSettings::Postgres(settings));
        assert!(databases.check_replica().await.unwrap_err().is_refusal());
        let database = databases.open("thing").await.unwrap();
        for _ in 0..200 {
            let count = database.read().query("SELECT COUNT(*) FROM things").fetch_scalar::<i64>().await;
            assert_eq!(count.unwrap(), 0, "the primary answers");
        }
        assert!(replica.accepted() < 100, "it was asked {} times", replica.accepted());
    })
    .await;
}

#[actix_rt::test]
async fn a_replica_that_has_not_got_a_table_yet_is_no_reason_to_fail() {
    on_postgres(async |mut settings| {
        let elsewhere = OwnDatabase::create().await;
        settings.read_url = Some(elsewhere.url.clone());
        let databases = Databases::new(DatabaseSettings::Postgres(settings));
        databases.check_replica().await.unwrap();
        let database = databases.open("thing").await.unwrap();
        let count = database.read().query("SELECT COUNT(*) FROM things").fetch_scalar::<i64>().await;
        databases.close().await;
        elsewhere.drop().await;
        assert_eq!(count.unwrap(), 0);
    })
    .await;
}

/// A database beside that of the other tests.
pub(super) struct OwnDatabase {
    pub(super) server: PgConnection,
    pub(super) name: String,
    pub(super) url: String,
}

impl OwnDatabase {
    pub(super) async fn create() -> Self {
        let name = format!("callboard_test_{}", Uuid::now_v7().simple());
        let mut server = PgConnection::connect(&postgres_url()).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut server).await.unwrap();
        let mut url = Url::parse(&postgres_url()).unwrap();
        url.set_path(&name);
        Self { server, name, url: url.into() }
    }

    pub(super) async fn drop(mut self) {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut self.server).await.unwrap();
    }
}

#[actix_rt::test]
async fn a_domain_can_have_a_database_of_its_own() {
    let own = OwnDatabase::create().await;
    let settings = PostgresSettings {
        own_urls: [("thing".to_owned(), own.url.clone())].into(),
        ..PostgresSettings::new(postgres_url())
    };
    let databases = Databases::new(DatabaseSettings::Postgres(settings));
    let where_it_is = async {
        databases.migrate("thing", &things()).await.unwrap();
        let thing = databases.open("thing").await.unwrap();
        let other = databases.open("other").await.unwrap();
        let name = "SELECT current_database()::text";
        (thing.query(name).fetch_scalar::<String>().await, other.query(name).fetch_scalar::<String>().await)
    };
    let (thing, other) = where_it_is.await;
    databases.close().await;
    let name = own.name.clone();
    own.drop().await;
    assert_eq!(thing.unwrap(), name);
    assert_ne!(other.unwrap(), name);
}

#[actix_rt::test]
async fn reads_that_ask_for_it_go_to_the_replica_and_to_the_primary_while_it_is_down() {
    on_postgres(async |mut settings| {
        let replica = Proxy::to(&settings.url).await;
        settings.read_url = Some(replica.url.clone());
        settings.statement_timeout = Duration::from_millis(300);
        let databases = Databases::new(DatabaseSettings::Postgres(settings));
        let database = databases.open("thing").await.unwrap();
        let read = async || database.read().query("SELECT COUNT(*) FROM things").fetch_scalar::<i64>().await;
        let count: i64 = database.query("SELECT COUNT(*) FROM things").fetch_scalar().await.unwrap();
        assert_eq!((count, replica.accepted()), (0, 0), "nobody asked for the replica");
        assert_eq!(read().await.unwrap(), 0);
        assert_eq!(replica.accepted(), 1);

        let written = database.read().query("DELETE FROM things").execute().await;
        assert!(written.is_err(), "what writes is no read");

        for way in [Way::Refused, Way::Silent] {
            replica.set(way);
            for _ in 0..20 {
                assert_eq!(read().await.unwrap(), 0, "{way:?}");
            }
            replica.set(Way::Open);
            let (before, deadline) = (replica.accepted(), Instant::now() + Duration::from_secs(60));
            while replica.accepted() == before && way == Way::Silent {
                assert!(Instant::now() < deadline, "the replica is not asked again");
                assert_eq!(read().await.unwrap(), 0);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    })
    .await;
}

#[actix_rt::test]
async fn a_node_that_froze_within_a_transaction_keeps_its_locks_for_a_while_only() {
    on_postgres(async |settings| {
        let databases = Databases::new(DatabaseSettings::Postgres(settings.clone()));
        insert(&databases, "one", 1).await.unwrap();
        let frozen = databases.open("thing").await.unwrap();
        let mut held = frozen.begin().await.unwrap();
        held.query("UPDATE things SET stock = 7").execute().await.unwrap();
        // Its node is silent, and its connection stays open.
        let heir = Databases::new(DatabaseSettings::Postgres(settings));
        let took = heir.open("thing").await.unwrap().query("UPDATE things SET stock = 8").execute().await.unwrap();
        assert_eq!(took, 1);
        let late = held.query("UPDATE things SET stock = 9").execute().await.unwrap_err();
        assert!(late.is_connection(), "{late}");
        databases.close().await;
        heir.close().await;
    })
    .await;
}
