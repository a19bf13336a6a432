//! Schedules on both engines, on several nodes at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Timelike};
use parking_lot::Mutex;
use sqlx::migrate::Migrator;
use uuid::Uuid;

use super::*;
use crate::{Bulkhead, Domain, Runtime, db::Databases, testing::on_both_engines};

async fn on_both(body: impl AsyncFn(Databases)) {
    on_both_engines(&[("stage", &Migrator::with_migrations(Vec::new()))], body).await;
}

type Runs = Arc<Mutex<Vec<DateTime<Utc>>>>;

async fn node(databases: &Databases, expression: &str, runs: &Runs) -> Runtime {
    let runs = runs.clone();
    let schedule = Schedule::cron("tick", expression, move |slot: Slot| {
        runs.lock().push(slot.time);
        std::future::ready(Ok::<_, String>(()))
    });
    let stage = Domain::new("stage", Bulkhead::default()).answering::<()>().shared(|_| async { Ok(()) });
    let stage = stage.stored(databases).schedule(schedule).build();
    let runtime = Runtime::builder().workers(1).build(vec![stage]).unwrap();
    runtime.attach().await;
    runtime
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[actix_rt::test]
async fn a_slot_is_carried_out_once_by_however_many_nodes() {
    on_both(async |databases| {
        let runs = Runs::default();
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(node(&databases, "* * * * * *", &runs).await);
        }
        eventually("three slots", || runs.lock().len() >= 3).await;
        for node in nodes {
            node.stop(Duration::from_secs(5)).await;
        }
        let mut slots = runs.lock().clone();
        assert!(slots.iter().all(|slot| slot.nanosecond() == 0), "{slots:?}");
        let all = slots.len();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), all, "none was carried out twice");
    })
    .await;
}

#[actix_rt::test]
async fn slots_that_went_by_while_nobody_ran_are_made_up_for_by_one_run() {
    on_both(async |databases| {
        let database = databases.open("stage").await.unwrap();
        let long_ago = Clock::system().now() - TimeDelta::days(3);
        database
            .query("INSERT INTO schedules (name, slot) VALUES ('tick', $1)")
            .bind(long_ago)
            .execute()
            .await
            .unwrap();
        let runs = Runs::default();
        let node = node(&databases, "0 0 * * *", &runs).await;
        eventually("one run", || !runs.lock().is_empty()).await;
        node.stop(Duration::from_secs(5)).await;
        let [slot] = *runs.lock().as_slice() else { panic!("{:?}", runs.lock()) };
        assert_eq!((slot.hour(), slot.minute()), (0, 0));
        assert!(Clock::system().now() - slot < TimeDelta::days(1), "the latest stands for all of them");
    })
    .await;
}

#[actix_rt::test]
async fn what_is_no_expression_is_refused_at_the_start() {
    let schedule = Schedule::cron("tick", "every day", |_| std::future::ready(Ok::<_, String>(())));
    let stage = Domain::new("stage", Bulkhead::default()).answering::<()>().shared(|_| async { Ok(()) });
    let wrong = Runtime::builder().workers(1).build(vec![stage.schedule(schedule).build()]).err().unwrap();
    assert!(wrong[0].contains("every day"), "{wrong:?}");
    assert!(wrong[1].contains("must be stored"), "{wrong:?}");
}

#[actix_rt::test]
async fn what_was_kept_long_enough_is_forgotten_and_what_waits_is_not() {
    on_both(async |databases| {
        let database = databases.open("stage").await.unwrap();
        let now = Clock::system().now();
        for (number, published) in [Some(now - TimeDelta::days(2)), Some(now), None].into_iter().enumerate() {
            database
                .query(
                    "INSERT INTO outbox (id, aggregate, position, type, event, created_at, published_at)
                     VALUES ($1, $2, $3, 'x', '{}', $4, $5)",
                )
                .bind(Uuid::now_v7())
                .bind(Uuid::nil())
                .bind(i64::try_from(number).unwrap())
                .bind(now - TimeDelta::days(60))
                .bind(published)
                .execute()
                .await
                .unwrap();
        }
        for applied in [now - TimeDelta::days(31), now] {
            database
                .query("INSERT INTO inbox (event_id, type, applied_at) VALUES ($1, 'x', $2)")
                .bind(Uuid::now_v7())
                .bind(applied)
                .execute()
                .await
                .unwrap();
        }
        housekeeping::forget(&database, now).await.unwrap();
        let count = async |sql| database.query(sql).fetch_scalar::<i64>().await.unwrap();
        assert_eq!(count("SELECT COUNT(*) FROM outbox").await, 2);
        assert_eq!(count("SELECT COUNT(*) FROM outbox WHERE published_at IS NULL").await, 1);
        assert_eq!(count("SELECT COUNT(*) FROM inbox").await, 1);
    })
    .await;
}
