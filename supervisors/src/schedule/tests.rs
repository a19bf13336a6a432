//! Schedules on both engines, on several nodes at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Timelike};
use parking_lot::Mutex;
use sqlx::migrate::Migrator;
use tokio::sync::Notify;
use uuid::Uuid;

use super::*;
use crate::{Domain, Runtime, db::Databases, lease::TTL, testing::on_both_engines};

async fn on_both(body: impl AsyncFn(Databases)) {
    on_both_engines(&[("sample", &Migrator::with_migrations(Vec::new()))], body).await;
}

type Runs = Arc<Mutex<Vec<DateTime<Utc>>>>;

async fn node(databases: &Databases, expression: &str, runs: &Runs) -> Runtime {
    let runs = runs.clone();
    let schedule = Schedule::cron("tick", expression, move |slot: Slot| {
        runs.lock().push(slot.time);
        std::future::ready(Ok::<_, String>(()))
    });
    node_at(databases, &Clock::system(), schedule).await
}

async fn node_at(databases: &Databases, clock: &Clock, schedule: Schedule) -> Runtime {
    let sample = Domain::new("sample").answering::<()>().shared(|_| async { Ok(()) });
    let sample = sample.stored(databases).schedule(schedule).build();
    let runtime = Runtime::builder().workers(1).clock(clock.clone()).build(vec![sample]).unwrap();
    runtime.attach().await;
    runtime
}

/// Makes the schedule due: its last slot was days ago.
async fn is_due(databases: &Databases) {
    let database = databases.open("sample").await.unwrap();
    let long_ago = Clock::system().now() - TimeDelta::days(3);
    database.query("INSERT INTO schedules (name, slot) VALUES ('tick', $1)").bind(long_ago).execute().await.unwrap();
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
        is_due(&databases).await;
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

/// Counts and writes its run, once the gate is open.
async fn write(slot: Slot, gate: Arc<Notify>, began: Arc<Mutex<u32>>) -> Result<(), FenceError> {
    *began.lock() += 1;
    gate.notified().await;
    let mut transaction = slot.database.begin().await?;
    slot.fence(&mut transaction).await?;
    transaction
        .query("INSERT INTO inbox (event_id, type, applied_at) VALUES ($1, 'x', $2)")
        .bind(Uuid::now_v7())
        .bind(slot.time)
        .execute()
        .await?;
    Ok(transaction.commit().await?)
}

#[actix_rt::test]
async fn a_node_that_was_paused_writes_nothing_once_another_has_taken_over() {
    on_both(async |databases| {
        is_due(&databases).await;
        // The clock of a stopped process stands still.
        let now = Clock::system().now();
        let (paused, moving) = (Clock::manual(now), Clock::manual(now));
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let mut nodes = Vec::new();
        let mut gates = Vec::new();
        for (name, clock) in [("paused", &paused), ("moving", &moving)] {
            let (gate, began, outcomes) = (Arc::new(Notify::new()), Arc::new(Mutex::new(0)), outcomes.clone());
            let (open, has_begun) = (gate.clone(), began.clone());
            let schedule = Schedule::cron("tick", "0 0 * * *", move |slot| {
                let (gate, began, outcomes) = (gate.clone(), began.clone(), outcomes.clone());
                async move {
                    let outcome = write(slot, gate, began).await;
                    outcomes.lock().push((name, matches!(outcome, Err(FenceError::Lost(_)))));
                    outcome
                }
            });
            nodes.push(node_at(&databases, clock, schedule).await);
            eventually("it has begun", || {
                // The second begins when it has seen no beat of the first for long enough.
                moving.advance(Duration::from_millis(if name == "moving" { 500 } else { 0 }));
                *has_begun.lock() > 0
            })
            .await;
            gates.push(open);
        }
        for (open, done) in [(1, 1), (0, 2)] {
            gates[open].notify_one();
            eventually("it has ended", || outcomes.lock().len() == done).await;
        }
        assert_eq!(*outcomes.lock(), [("moving", false), ("paused", true)]);
        let database = databases.open("sample").await.unwrap();
        let written: i64 = database.query("SELECT COUNT(*) FROM inbox").fetch_scalar().await.unwrap();
        assert_eq!(written, 1);
        for node in nodes {
            node.stop(Duration::from_secs(5)).await;
        }
    })
    .await;
}

#[actix_rt::test]
async fn work_whose_time_is_over_does_not_go_on() {
    on_both(async |databases| {
        is_due(&databases).await;
        let clock = Clock::manual(Clock::system().now());
        let (gate, began, ended) = (Arc::new(Notify::new()), Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
        let schedule = Schedule::cron("tick", "0 0 * * *", {
            let (gate, began, ended) = (gate.clone(), began.clone(), ended.clone());
            move |_| {
                let (gate, began, ended) = (gate.clone(), began.clone(), ended.clone());
                async move {
                    let run = {
                        let mut began = began.lock();
                        *began += 1;
                        *began
                    };
                    gate.notified().await;
                    ended.lock().push(run);
                    Ok::<_, String>(())
                }
            }
        });
        let node = node_at(&databases, &clock, schedule).await;
        eventually("it has begun", || *began.lock() == 1).await;
        // It wakes after a sleep that was longer than its lease.
        gate.notify_one();
        clock.advance(TTL);
        eventually("it begins again", || {
            clock.advance(Duration::from_millis(500));
            *began.lock() > 1
        })
        .await;
        gate.notify_one();
        eventually("it has ended", || !ended.lock().is_empty()).await;
        assert!(!ended.lock().contains(&1), "{:?}", ended.lock());
        node.stop(Duration::from_secs(5)).await;
    })
    .await;
}

#[actix_rt::test]
async fn what_is_no_expression_is_refused_at_the_start() {
    let schedule = Schedule::cron("tick", "every day", |_| std::future::ready(Ok::<_, String>(())));
    let sample = Domain::new("sample").answering::<()>().shared(|_| async { Ok(()) });
    let wrong = Runtime::builder().workers(1).build(vec![sample.schedule(schedule).build()]).err().unwrap();
    assert!(wrong[0].contains("every day"), "{wrong:?}");
    assert!(wrong[1].contains("must be stored"), "{wrong:?}");
}

#[actix_rt::test]
async fn what_was_kept_long_enough_is_forgotten_and_what_waits_is_not() {
    on_both(async |databases| {
        let database = databases.open("sample").await.unwrap();
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

/// Number of runs with this outcome in the metrics; `None` if there is none.
fn counted(runtime: &Runtime, outcome: &str) -> Option<u64> {
    let families = runtime.metrics().gather();
    let family = families.iter().find(|family| family.name() == "callboard_schedule_runs_total")?;
    let is = |labels: &[prometheus::proto::LabelPair], name, value| {
        labels.iter().any(|label| (label.name(), label.value()) == (name, value))
    };
    let of_outcome = family.get_metric().iter().find(|metric| {
        let labels = metric.get_label();
        is(labels, "schedule", "tick") && is(labels, "outcome", outcome)
    })?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    Some(of_outcome.get_counter().get_value() as u64)
}

#[actix_rt::test]
async fn runs_are_counted_from_naught_so_that_the_first_failure_is_an_increase() {
    on_both(async |databases| {
        is_due(&databases).await;
        let gate = Arc::new(Notify::new());
        let opened = gate.clone();
        let schedule = Schedule::cron("tick", "0 0 * * *", move |_| {
            let gate = gate.clone();
            async move {
                gate.notified().await;
                Err::<(), _>("it fails")
            }
        });
        let node = node_at(&databases, &Clock::system(), schedule).await;
        eventually("it is counted", || counted(&node, "failed").is_some()).await;
        assert_eq!((counted(&node, "done"), counted(&node, "failed")), (Some(0), Some(0)));
        opened.notify_one();
        eventually("its failure is counted", || counted(&node, "failed") == Some(1)).await;
        node.stop(Duration::from_secs(5)).await;
    })
    .await;
}
