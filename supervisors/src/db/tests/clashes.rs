//! Transactions in each other's way.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{sync::Barrier, time::timeout};

use super::{Error, insert, things};
use crate::{db::Engine, db::Transaction, testing::on_both_engines};

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
