use std::panic::AssertUnwindSafe;

use chrono::{DateTime, SubsecRound, Utc};
use futures_util::FutureExt;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use uuid::Uuid;

use super::{DatabaseSettings, Databases, Engine, Error, MigrationError, PostgresSettings};
use crate::testing::{on_both_engines, postgres_url};
use proxy::{Proxy, Way};

mod clashes;
mod files;
mod pooler;
mod proxy;
mod servers;
mod shares;
mod silence;

/// Runs `body` with settings for a schema of its own with some rows in it; removed afterwards, also when `body` panics.
async fn on_postgres(body: impl AsyncFnOnce(PostgresSettings)) {
    let prefix = format!("test_{}_", Uuid::now_v7().simple());
    let settings = PostgresSettings { schema_prefix: prefix, ..PostgresSettings::new(postgres_url()) };
    let databases = Databases::new(DatabaseSettings::Postgres(settings.clone()));
    databases.migrate("thing", &things()).await.unwrap();
    let outcome = AssertUnwindSafe(body(settings)).catch_unwind().await;
    if let Err(error) = databases.drop_schema("thing").await {
        eprintln!("a schema is left behind: {error}");
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn migrator(versions: &[(i64, &'static str)]) -> Migrator {
    Migrator::with_migrations(
        versions
            .iter()
            .map(|(version, sql)| {
                Migration::new(
                    *version,
                    "test".into(),
                    MigrationType::Simple,
                    sqlx::SqlSafeStr::into_sql_str(*sql),
                    false,
                )
            })
            .collect(),
    )
}

fn things() -> Migrator {
    migrator(&[(
        1,
        "CREATE TABLE things (
            id UUID PRIMARY KEY,
            name TEXT NOT NULL CONSTRAINT things_name_key UNIQUE,
            stock BIGINT NOT NULL CONSTRAINT things_stock_check CHECK (stock >= 0),
            flags JSONB NOT NULL,
            live BOOLEAN NOT NULL,
            note TEXT,
            created_at TIMESTAMPTZ NOT NULL
        )",
    )])
}

#[derive(Debug, PartialEq, sqlx::FromRow)]
struct Thing {
    id: Uuid,
    name: String,
    stock: i64,
    flags: sqlx::types::Json<Vec<String>>,
    live: bool,
    note: Option<String>,
    created_at: DateTime<Utc>,
}

const INSERT: &str = "INSERT INTO things (id, name, stock, flags, live, note, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

async fn insert(databases: &Databases, name: &str, stock: i64) -> Result<Thing, super::Error> {
    let thing = Thing {
        id: Uuid::now_v7(),
        name: name.to_owned(),
        stock,
        flags: sqlx::types::Json(vec!["a".to_owned(), "b".to_owned()]),
        live: true,
        note: None,
        created_at: Utc::now().trunc_subsecs(6),
    };
    let database = databases.open("thing").await?;
    database
        .query(INSERT)
        .bind(thing.id)
        .bind(thing.name.clone())
        .bind(thing.stock)
        .bind(sqlx::types::Json(thing.flags.0.clone()))
        .bind(thing.live)
        .bind(thing.note.clone())
        .bind(thing.created_at)
        .execute()
        .await?;
    Ok(thing)
}

#[actix_rt::test]
async fn a_row_comes_back_as_it_was_written() {
    on_both_engines(&[("thing", &things())], async |databases| {
        let thing = insert(&databases, "one", 3).await.unwrap();
        let database = databases.open("thing").await.unwrap();
        let read: Thing =
            database.query("SELECT * FROM things WHERE id = $1").bind(thing.id).fetch_one().await.unwrap();
        assert_eq!(read, thing);
        let before: Option<Thing> = database
            .query("SELECT * FROM things WHERE created_at < $1")
            .bind(thing.created_at)
            .fetch_optional()
            .await
            .unwrap();
        assert_eq!(before, None, "times compare as times");
    })
    .await;
}

#[actix_rt::test]
async fn a_violated_constraint_is_told_by_name() {
    on_both_engines(&[("thing", &things())], async |databases| {
        insert(&databases, "one", 3).await.unwrap();
        let error = insert(&databases, "one", 3).await.unwrap_err();
        assert!(error.violates("things_name_key", "things.name"));
        assert!(!error.violates("things_pkey", "things.id"));
        let error = insert(&databases, "two", -1).await.unwrap_err();
        assert!(error.is_check_violation());
        assert!(!error.is_connection());
    })
    .await;
}

#[actix_rt::test]
async fn a_dropped_transaction_leaves_nothing() {
    on_both_engines(&[("thing", &things())], async |databases| {
        insert(&databases, "one", 3).await.unwrap();
        let database = databases.open("thing").await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        assert_eq!(transaction.query("UPDATE things SET stock = 0").execute().await.unwrap(), 1);
        drop(transaction);
        assert_eq!(database.query("SELECT stock FROM things").fetch_scalar::<i64>().await.unwrap(), 3);
        let mut transaction = database.begin().await.unwrap();
        transaction.query("UPDATE things SET stock = 1").execute().await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(database.query("SELECT stock FROM things").fetch_scalar::<i64>().await.unwrap(), 1);
    })
    .await;
}

#[actix_rt::test]
async fn fifty_writers_at_once_lose_no_update_and_see_no_busy() {
    on_both_engines(&[("thing", &things())], async |databases| {
        let thing = insert(&databases, "one", 50).await.unwrap();
        let database = databases.open("thing").await.unwrap();
        let takes = (0..60).map(|_| {
            let database = database.clone();
            async move {
                let mut transaction = database.begin().await.unwrap();
                let taken = transaction
                    .query("UPDATE things SET stock = stock - 1 WHERE id = $1 AND stock >= 1")
                    .bind(thing.id)
                    .execute()
                    .await
                    .unwrap();
                transaction.commit().await.unwrap();
                taken
            }
        });
        let taken: u64 = futures_util::future::join_all(takes).await.into_iter().sum();
        assert_eq!(taken, 50);
        assert_eq!(database.query("SELECT stock FROM things").fetch_scalar::<i64>().await.unwrap(), 0);
    })
    .await;
}

#[actix_rt::test]
async fn migrations_run_once_and_a_newer_schema_is_refused() {
    let newer = migrator(&[(1, "CREATE TABLE a (id BIGINT)"), (2, "CREATE TABLE b (id BIGINT)")]);
    on_both_engines(&[("thing", &newer)], async |databases| {
        databases.migrate("thing", &newer).await.unwrap();
        let older = migrator(&[(1, "CREATE TABLE a (id BIGINT)")]);
        let error = databases.migrate("thing", &older).await.unwrap_err();
        assert!(matches!(error, MigrationError::TooNew { version: 2, .. }), "{error}");
        let broken = migrator(&[
            (1, "CREATE TABLE a (id BIGINT)"),
            (2, "CREATE TABLE b (id BIGINT)"),
            (3, "CREATE TABLE c (id BIGINT); SELECT nonsense FROM nowhere"),
        ]);
        let error = databases.migrate("thing", &broken).await.unwrap_err();
        assert!(matches!(error, MigrationError::Failed { .. }), "{error}");
        let database = databases.open("thing").await.unwrap();
        assert!(database.query("SELECT id FROM c").fetch_all::<(i64,)>().await.is_err(), "all or nothing");
    })
    .await;
}

#[actix_rt::test]
async fn a_server_that_is_not_there_is_a_connection_error() {
    // A port that was free a moment ago, on which nothing listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let databases = Databases::new(DatabaseSettings::postgres(format!("postgres://nobody@127.0.0.1:{port}/none")));
    assert_eq!(databases.engine(), Engine::Postgres);
    let error = databases.migrate("thing", &things()).await.unwrap_err();
    assert!(matches!(&error, MigrationError::Open { source, .. } if source.is_connection()), "{error}");
}

#[actix_rt::test]
async fn what_the_input_caused_is_told_from_a_failure_of_the_server() {
    on_both_engines(&[("thing", &things())], async |databases| {
        let database = databases.open("thing").await.unwrap();
        let mut caused = vec![insert(&databases, "negative", -1).await.unwrap_err()];
        let unnamed = "INSERT INTO things (id, name) VALUES ($1, 'x')";
        caused.push(database.query(unnamed).bind(Uuid::now_v7()).execute().await.unwrap_err());
        let twice = insert(&databases, "one", 1).await.unwrap();
        let sql = "INSERT INTO things SELECT * FROM things WHERE id = $1";
        caused.push(database.query(sql).bind(twice.id).execute().await.unwrap_err());
        match databases.engine() {
            Engine::Postgres => {
                caused.push(insert(&databases, "a\0b", 1).await.unwrap_err());
                let by_name = database.query("SELECT stock FROM things WHERE name = $1").bind("\0");
                caused.push(by_name.fetch_optional::<(i64,)>().await.unwrap_err());
                let flags = database.query("UPDATE things SET flags = $1").bind(sqlx::types::Json(vec!["\0"]));
                caused.push(flags.execute().await.unwrap_err());
                let large = database.query("UPDATE things SET stock = $1 * $1").bind(i64::MAX);
                caused.push(large.execute().await.unwrap_err());
                // More than an index can hold in one row, and nothing that can be compressed.
                let long: String = (0..400).map(|_| Uuid::new_v4().simple().to_string()).collect();
                caused.push(insert(&databases, &long, 1).await.unwrap_err());
            }
            Engine::Sqlite => {
                let datatype = database.query("INSERT INTO numbers VALUES ($1)").bind("no number");
                database.query("CREATE TABLE numbers (id INTEGER PRIMARY KEY)").execute().await.unwrap();
                caused.push(datatype.execute().await.unwrap_err());
            }
        }
        for error in caused {
            let told = error.to_string();
            assert!(error.is_of_input() && !error.is_connection() && !error.is_full(), "{told}");
            assert_eq!(callboard_messages::Failure::from(error), callboard_messages::Failure::Invalid, "{told}");
        }
        let unknown = database.query("SELECT nonsense FROM things").fetch_optional::<(i64,)>().await.unwrap_err();
        assert!(!unknown.is_of_input(), "a fault of ours");
    })
    .await;
}
