//! Connections to an SQLite file whose disk is full.

use std::{panic::AssertUnwindSafe, pin::pin, task::Poll, time::Duration};

use callboard_messages::{CallError, Failure};
use futures_util::{FutureExt, poll};
use sqlx::migrate::Migrator;
use tokio::time::timeout;

use super::{insert, things};
use crate::{
    db::{Database, Databases, Engine, Error, Transaction},
    testing::on_both_engines,
};

const PATIENCE: Duration = Duration::from_secs(30);

async fn on_sqlite(body: impl AsyncFn(Databases, Database)) {
    let migrator: &Migrator = &things();
    on_both_engines(&[("thing", migrator)], async |databases| {
        if databases.engine() == Engine::Sqlite {
            insert(&databases, "before", 1).await.unwrap();
            let database = databases.open("thing").await.unwrap();
            body(databases, database).await;
        }
    })
    .await;
}

/// Fills the database for the connection of this transaction alone.
async fn fill(transaction: &mut Transaction) {
    let _: i64 = transaction.query("PRAGMA max_page_count = 1").fetch_scalar().await.unwrap();
}

async fn write_much(transaction: &mut Transaction) -> Result<u64, Error> {
    transaction.query("UPDATE things SET note = $1").bind("x".repeat(1_000_000)).execute().await
}

/// Whether the writer is another connection than the marked one.
async fn is_fresh(database: &Database) -> bool {
    let mut transaction = database.begin().await.unwrap();
    let marked: i64 = transaction.query("PRAGMA max_page_count").fetch_scalar().await.unwrap();
    transaction.rollback().await.unwrap();
    marked > 1_000_000
}

async fn mark(transaction: &mut Transaction) {
    let _: i64 = transaction.query("PRAGMA max_page_count = 1000000").fetch_scalar().await.unwrap();
}

async fn writes_again(databases: &Databases, database: &Database, name: &str) {
    let written = timeout(PATIENCE, async {
        insert(databases, name, 1).await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        let sql = "UPDATE things SET stock = stock + 1 WHERE name = $1";
        assert_eq!(transaction.query(sql).bind(name.to_owned()).execute().await.unwrap(), 1);
        transaction.commit().await.unwrap();
    });
    written.await.unwrap();
    let sql = "SELECT stock FROM things WHERE name = $1";
    assert_eq!(database.query(sql).bind(name.to_owned()).fetch_scalar::<i64>().await.unwrap(), 2);
}

#[actix_rt::test]
async fn after_a_full_disk_a_domain_writes_again() {
    on_sqlite(async |databases, database| {
        let mut transaction = database.begin().await.unwrap();
        fill(&mut transaction).await;
        let error = write_much(&mut transaction).await.unwrap_err();
        assert!(error.is_full(), "{error}");
        drop(transaction);
        let name: String = database.query("SELECT name FROM things").fetch_scalar().await.unwrap();
        assert_eq!(name, "before", "what is there can be read");
        writes_again(&databases, &database, "dropped").await;

        let mut transaction = database.begin().await.unwrap();
        fill(&mut transaction).await;
        write_much(&mut transaction).await.unwrap_err();
        transaction.rollback().await.unwrap_err();
        writes_again(&databases, &database, "taken back").await;

        // Outside of a transaction, too.
        database.query("PRAGMA max_page_count = 1").fetch_scalar::<i64>().await.unwrap();
        let much = database.query("UPDATE things SET note = $1").bind("x".repeat(1_000_000)).execute().await;
        assert!(much.unwrap_err().is_full());
        writes_again(&databases, &database, "alone").await;
    })
    .await;
}

#[actix_rt::test]
async fn nothing_of_a_transaction_that_met_a_full_disk_happens() {
    on_sqlite(async |databases, database| {
        let outcome: Result<(), CallError<callboard_messages::auth::AuthError>> = database
            .transact(async |transaction: &mut Transaction| {
                transaction.query("UPDATE things SET stock = 7").execute().await?;
                fill(transaction).await;
                // Code that ignores the error must not write outside of the transaction, which has ended.
                write_much(transaction).await.unwrap_err();
                let after = transaction.query("UPDATE things SET stock = 8").execute().await.unwrap_err();
                assert!(after.is_full(), "{after}");
                Ok(())
            })
            .await;
        assert!(matches!(outcome, Err(CallError::Failed(Failure::DiskFull { .. }))), "{outcome:?}");
        let stock: i64 = database.query("SELECT stock FROM things").fetch_scalar().await.unwrap();
        assert_eq!(stock, 1);
        writes_again(&databases, &database, "after").await;
    })
    .await;
}

#[actix_rt::test]
async fn a_connection_that_is_in_a_transaction_already_begins_no_other() {
    on_sqlite(async |databases, database| {
        let mut transaction = database.begin().await.unwrap();
        mark(&mut transaction).await;
        transaction.commit().await.unwrap();
        // A transaction that nobody ends.
        database.query("BEGIN").execute().await.unwrap();
        let mut transaction = timeout(PATIENCE, database.begin()).await.unwrap().unwrap();
        transaction.query("UPDATE things SET stock = 2").execute().await.unwrap();
        transaction.commit().await.unwrap();
        assert!(is_fresh(&database).await);
        writes_again(&databases, &database, "after").await;
    })
    .await;
}

#[actix_rt::test]
async fn a_transaction_that_is_dropped_in_the_middle_of_a_statement_leaves_no_connection_behind() {
    on_sqlite(async |databases, database| {
        let mut transaction = database.begin().await.unwrap();
        mark(&mut transaction).await;
        transaction.query("UPDATE things SET stock = 5").execute().await.unwrap();
        {
            let long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
                        UPDATE things SET stock = (SELECT MAX(i) FROM n)";
            let mut statement = pin!(transaction.query(long).execute());
            assert!(matches!(poll!(&mut statement), Poll::Pending));
        }
        drop(transaction);
        assert!(is_fresh(&database).await);
        let stock: i64 = database.query("SELECT stock FROM things").fetch_scalar().await.unwrap();
        assert_eq!(stock, 1);
        writes_again(&databases, &database, "after").await;
    })
    .await;
}

#[actix_rt::test]
async fn a_transaction_that_a_panic_ends_leaves_no_connection_behind() {
    on_sqlite(async |databases, database| {
        let panicking = AssertUnwindSafe(async {
            let mut transaction = database.begin().await.unwrap();
            mark(&mut transaction).await;
            transaction.query("UPDATE things SET stock = 5").execute().await.unwrap();
            panic!("on purpose");
        });
        assert!(panicking.catch_unwind().await.is_err());
        assert!(is_fresh(&database).await);
        let stock: i64 = database.query("SELECT stock FROM things").fetch_scalar().await.unwrap();
        assert_eq!(stock, 1);
        writes_again(&databases, &database, "after").await;
    })
    .await;
}

#[actix_rt::test]
async fn a_transaction_that_is_refused_costs_no_connection() {
    on_sqlite(async |databases, database| {
        let mut transaction = database.begin().await.unwrap();
        mark(&mut transaction).await;
        let error = transaction.query("UPDATE things SET stock = -1").execute().await.unwrap_err();
        assert!(error.is_check_violation());
        drop(transaction);
        assert!(!is_fresh(&database).await, "it goes back");
        writes_again(&databases, &database, "after").await;
    })
    .await;
}
