//! Conflicting transactions.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use callboard_messages::Failure;
use futures_util::future::join_all;
use tokio::{sync::Barrier, time::timeout};

use super::{Error, insert, on_postgres, things};
use crate::{
    db::{DatabaseSettings, Databases, Engine, Transaction},
    testing::on_both_engines,
};

#[actix_rt::test]
async fn two_transactions_that_wait_for_each_other_both_happen_once() {
    on_both_engines(&[("thing", &things())], async |databases| {
        if databases.engine() == Engine::Sqlite {
            return; // one writer at a time: nobody waits while it holds anything
        }
        insert(&databases, "left", 0).await.unwrap();
        insert(&databases, "right", 0).await.unwrap();
        let database = databases.open("thing").await.unwrap();
        let (both_hold_one, runs) = (Barrier::new(2), AtomicU32::new(0));
        let add = async |first: &'static str, second: &'static str| {
            let is_first_run = Cell::new(true);
            database
                .transact(async |transaction: &mut Transaction| -> Result<(), Error> {
                    runs.fetch_add(1, Ordering::SeqCst);
                    let update = "UPDATE things SET stock = stock + 1 WHERE name = $1";
                    transaction.query(update).bind(first).execute().await?;
                    if is_first_run.replace(false) {
                        let _ = timeout(Duration::from_secs(5), both_hold_one.wait()).await;
                    }
                    transaction.query(update).bind(second).execute().await?;
                    Ok(())
                })
                .await
        };
        let (one, other) = futures_util::join!(add("left", "right"), add("right", "left"));
        one.unwrap();
        other.unwrap();
        let stocks: Vec<(i64,)> = database.query("SELECT stock FROM things").fetch_all().await.unwrap();
        assert_eq!(stocks, [(2,), (2,)]);
        assert_eq!(runs.load(Ordering::SeqCst), 3, "the one that was taken back ran twice");
    })
    .await;
}

#[actix_rt::test]
async fn transactions_that_could_not_have_run_one_after_the_other_are_run_again() {
    on_both_engines(&[("thing", &things())], async |databases| {
        insert(&databases, "one", 0).await.unwrap();
        let database = databases.open("thing").await.unwrap();
        let add = async || {
            database
                .transact(async |transaction: &mut Transaction| -> Result<(), Error> {
                    if databases.engine() == Engine::Postgres {
                        transaction.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").execute().await?;
                    }
                    let stock: i64 = transaction.query("SELECT stock FROM things").fetch_scalar().await?;
                    transaction.query("UPDATE things SET stock = $1").bind(stock + 1).execute().await?;
                    Ok(())
                })
                .await
        };
        for outcome in join_all((0..4).map(|_| add())).await {
            outcome.unwrap();
        }
        let stock: i64 = database.query("SELECT stock FROM things").fetch_scalar().await.unwrap();
        assert_eq!(stock, 4);
    })
    .await;
}

#[actix_rt::test]
async fn a_clash_that_does_not_end_is_told_and_a_refusal_is_not_repeated() {
    on_both_engines(&[("thing", &things())], async |databases| {
        insert(&databases, "one", 1).await.unwrap();
        let database = databases.open("thing").await.unwrap();
        let runs = Cell::new(0);
        let outcome = database
            .transact(async |transaction: &mut Transaction| -> Result<(), Error> {
                runs.set(runs.get() + 1);
                transaction.query("UPDATE things SET stock = -1").execute().await.map(drop)
            })
            .await;
        assert!(outcome.unwrap_err().is_check_violation());
        assert_eq!(runs.replace(0), 1);
        if databases.engine() == Engine::Postgres {
            let outcome = database
                .transact(async |transaction: &mut Transaction| -> Result<(), Error> {
                    runs.set(runs.get() + 1);
                    let always = "DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$";
                    transaction.query(always).execute().await.map(drop)
                })
                .await;
            assert!(outcome.unwrap_err().is_clash());
            assert_eq!(runs.get(), 5);
        }
        let stock: i64 = database.query("SELECT stock FROM things").fetch_scalar().await.unwrap();
        assert_eq!(stock, 1);
    })
    .await;
}

#[actix_rt::test]
async fn what_stood_behind_others_for_too_long_may_be_tried_again() {
    on_postgres(async |mut settings| {
        settings.statement_timeout = Duration::from_secs(1);
        let databases = Databases::new(DatabaseSettings::Postgres(settings));
        insert(&databases, "one", 1).await.unwrap();
        let database = databases.open("thing").await.unwrap();
        let mut failures = Vec::new();
        for clash in [
            "DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$",
            "DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40P01'; END $$",
            "SELECT pg_sleep(10)",
        ] {
            failures.push(database.query(clash).execute().await.unwrap_err());
        }
        let mut holder = database.begin().await.unwrap();
        holder.query("UPDATE things SET stock = 2").execute().await.unwrap();
        let mut other = database.begin().await.unwrap();
        other.query("SET LOCAL lock_timeout = 50").execute().await.unwrap();
        failures.push(other.query("UPDATE things SET stock = 3").execute().await.unwrap_err());
        failures.push(database.query("UPDATE things SET stock = 4").execute().await.unwrap_err());
        for error in failures {
            assert!(!error.is_unknown() && !error.is_refusal(), "{error}");
            let told = error.to_string();
            assert!(matches!(Failure::from(error), Failure::Unavailable { .. }), "{told}");
        }
        drop(other);
        holder.commit().await.unwrap();
        let stock: i64 = database.query("SELECT stock FROM things").fetch_scalar().await.unwrap();
        assert_eq!(stock, 2);
        databases.close().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_transaction_that_the_server_ended_is_a_broken_connection() {
    on_postgres(async |mut settings| {
        let watching = Databases::new(DatabaseSettings::Postgres(settings.clone()));
        let watching = watching.open("thing").await.unwrap();
        settings.connections = 1;
        let databases = Databases::new(DatabaseSettings::Postgres(settings));
        insert(&databases, "one", 1).await.unwrap();
        let database = databases.open("thing").await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        transaction.query("SET LOCAL idle_in_transaction_session_timeout = 50").execute().await.unwrap();
        let pid: i32 = transaction.query("SELECT pg_backend_pid()").fetch_scalar().await.unwrap();
        transaction.query("UPDATE things SET stock = 2").execute().await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut lives = 1_i64;
        while lives > 0 {
            assert!(Instant::now() < deadline, "the server did not end it");
            let count = watching.query("SELECT COUNT(*) FROM pg_stat_activity WHERE pid = $1").bind(pid);
            lives = count.fetch_scalar().await.unwrap();
        }
        let error = transaction.query("UPDATE things SET stock = 3").execute().await.unwrap_err();
        assert!(error.is_connection(), "{error}");
        drop(transaction);
        // Its permit is free, and the connection is another one.
        let stock: i64 = database.query("SELECT stock FROM things").fetch_scalar().await.unwrap();
        assert_eq!(stock, 1);
        databases.close().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_transaction_with_a_failed_statement_is_never_called_committed() {
    on_both_engines(&[("thing", &things())], async |databases| {
        if databases.engine() == Engine::Sqlite {
            return; // there a failed statement leaves the others as they are, and the commit keeps them
        }
        insert(&databases, "one", 1).await.unwrap();
        let database = databases.open("thing").await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        transaction.query("UPDATE things SET stock = 2").execute().await.unwrap();
        transaction.query("UPDATE things SET stock = -1").execute().await.unwrap_err();
        let error = transaction.commit().await.unwrap_err();
        assert!(!error.is_unknown(), "{error}");
        let stock: i64 = database.query("SELECT stock FROM things").fetch_scalar().await.unwrap();
        assert_eq!(stock, 1);
    })
    .await;
}
