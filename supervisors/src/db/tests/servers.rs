//! Several nodes, several servers.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sqlx::{Connection, PgConnection};
use url::Url;
use uuid::Uuid;

use super::{Proxy, Way, migrator, on_postgres, things};
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
        // Longer than any statement of a request may take: waiting for another node is none.
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
async fn a_domain_can_have_a_database_of_its_own() {
    let name = format!("callboard_test_{}", Uuid::now_v7().simple());
    let mut server = PgConnection::connect(&postgres_url()).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut server).await.unwrap();
    let mut url = Url::parse(&postgres_url()).unwrap();
    url.set_path(&name);
    let settings = PostgresSettings {
        own_urls: [("thing".to_owned(), url.to_string())].into(),
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
    let drop = format!("DROP DATABASE {name} WITH (FORCE)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut server).await.unwrap();
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
