//! A log that is away, connections that are scarce, steps that panic, a node that stops, and versions with other steps.

use std::future::Future;

use chrono::DateTime;

use super::*;
use crate::{
    saga::{driver::Ended, log::Progress, sweeper::Sweeper},
    testing::on_scarce_connections,
    time::clock::Clock,
};

const SOON: Duration = Duration::from_secs(30);

/// An engine whose time the test moves, so that nothing lapses unless it is meant to.
fn standing(sagas: &Sagas, travel: &Travel) -> (SagaEngine, Clock) {
    let clock = Clock::manual(DateTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    (SagaEngine::new(sagas, travel.database.clone(), travel.bus(), clock.clone()), clock)
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Waits until the driver pauses: for the pause, and for the next sign of life.
async fn pauses(clock: &Clock) {
    until("it pauses", async || clock.sleepers() == 2).await;
}

#[actix_rt::test]
async fn while_the_log_is_away_nothing_is_made_from_what_it_was_last_known_to_say() {
    on_both(async |databases| {
        let travel = Travel::new(&databases, bare_booking).await;
        let sagas = Sagas::new("trip", &databases).with(bare_booking());
        let (engine, clock) = standing(&sagas, &travel);
        let (caller, id, trip) = travel.begin();
        let driver = engine.begin(&caller, id, trip.clone()).await.unwrap();
        // What the first transaction of this driver wrote; its reply was lost.
        travel.inn.seats.lock().insert(id, 7);
        let reached = Progress {
            position: 2,
            state: serde_json::to_value(Trip { seat: Some(7), ..trip.clone() }).unwrap(),
            ..driver.progress.clone()
        };
        let mut transaction = travel.database.begin().await.unwrap();
        print(&mut transaction, &driver.context, Trip { seat: Some(7), ..trip }).await.unwrap();
        assert!(log::write(&mut transaction, &driver.held, &driver.progress, &reached, clock.now()).await.unwrap());
        transaction.commit().await.unwrap();
        travel.database.query("ALTER TABLE sagas RENAME TO elsewhere").execute().await.unwrap();

        let driven = actix_rt::spawn(driver.drive());
        // It has asked for the seat once more before the log failed; from then on it asks for nothing.
        pauses(&clock).await;
        travel.inn.seats.lock().remove(&id);
        for tried in 0..3 {
            clock.advance(Duration::from_millis(120 << tried));
            pauses(&clock).await;
            assert!(travel.inn.seats.lock().is_empty(), "a step is not made from what may be stale");
        }
        travel.inn.seats.lock().insert(id, 7);
        travel.database.query("ALTER TABLE elsewhere RENAME TO sagas").execute().await.unwrap();
        clock.advance(Duration::from_millis(960));
        let ended = in_time("it ends", driven).await.unwrap();
        assert!(matches!(ended, Ended::Done(_)), "{ended:?}");
        travel.assert_whole(id).await;
        travel.runtime.stop(Duration::from_secs(5)).await;
    })
    .await;
}

#[actix_rt::test]
async fn what_a_sweeper_drives_does_not_keep_it_from_looking_for_more() {
    on_scarce_connections(&[("trip", &migrations())], async |databases| {
        let travel = Travel::new(&databases, booking).await;
        let sagas = Sagas::new("trip", &databases).with(booking());
        let (engine, clock) = standing(&sagas, &travel);
        let mut ids = Vec::new();
        for _ in 0..12 {
            let (caller, id, trip) = travel.begin();
            drop(engine.begin(&caller, id, trip).await.unwrap());
            ids.push(id);
        }
        let mut sweeper = Sweeper::new(engine.clone());
        sweeper.take_over().await.unwrap();
        clock.advance(engine.sagas.settings.ttl);
        sweeper.take_over().await.unwrap();
        while sweeper.driving() > 0 {
            in_time("one ends", sweeper.drive()).await;
            sweeper.take_over().await.expect("those that are driven leave it a connection");
        }
        for id in ids {
            assert_eq!(log::get(&travel.database, id).await.unwrap().unwrap().status(), SagaStatus::Done);
        }
        travel.runtime.stop(Duration::from_secs(5)).await;
    })
    .await;
}

#[actix_rt::test]
async fn a_step_that_holds_the_connection_and_the_sign_of_life_that_needs_it_do_not_wait_for_each_other() {
    on_scarce_connections(&[("trip", &migrations())], async |databases| {
        let travel = Travel::new(&databases, booking).await;
        let database = travel.database.clone();
        let holds = async move |context: &StepContext, trip: Trip| -> StepOutcome<Trip> {
            let mut held = vec![database.begin().await?];
            if database.engine() == crate::db::Engine::Postgres {
                // All of them, however many there are.
                while let Ok(next) = tokio::time::timeout(Duration::from_millis(200), database.begin()).await {
                    held.push(next?);
                }
            }
            context.clock.sleep(Duration::from_secs(3)).await;
            Ok(trip)
        };
        let saga = Saga::new("trip.book").step("hold", holds, async |_: &StepContext, _| Ok(()));
        let sagas = Sagas::new("trip", &databases).with(saga);
        let (engine, clock) = standing(&sagas, &travel);
        let (caller, id, trip) = travel.begin();
        let driven = actix_rt::spawn(engine.begin(&caller, id, trip).await.unwrap().drive());
        // The step, and the next sign of life.
        until("it has the connection", async || clock.sleepers() == 2).await;
        clock.advance(Duration::from_millis(1_250));
        until("a sign of life is due", async || clock.sleepers() == 2).await;
        clock.advance(Duration::from_millis(1_750));
        let ended = in_time("the step goes on", driven).await.unwrap();
        assert!(matches!(ended, Ended::Done(_)), "{ended:?}");
        travel.runtime.stop(Duration::from_secs(5)).await;
    })
    .await;
}

#[actix_rt::test]
async fn what_stands_elsewhere_by_now_is_not_written_over() {
    on_both(async |databases| {
        let travel = Travel::new(&databases, booking).await;
        let sagas = Sagas::new("trip", &databases).with(booking());
        let (engine, clock) = standing(&sagas, &travel);
        let (caller, id, trip) = travel.begin();
        let driver = engine.begin(&caller, id, trip).await.unwrap();
        let (read, next) = (driver.progress.clone(), Progress { position: 2, ..driver.progress.clone() });
        for (writes, expected) in [(1, true), (2, false)] {
            let mut transaction = travel.database.begin().await.unwrap();
            let written = log::write(&mut transaction, &driver.held, &read, &next, clock.now()).await.unwrap();
            assert_eq!(written, expected, "{writes}");
            transaction.commit().await.unwrap();
        }
        travel.runtime.stop(Duration::from_secs(5)).await;
    })
    .await;
}

/// Its second step panics for whoever has taken seat 13.
fn booking_that_panics() -> Saga<Trip> {
    async fn take(context: &StepContext, trip: Trip) -> StepOutcome<Trip> {
        assert_ne!(trip.seat, Some(13), "unlucky");
        take_seat(context, trip).await
    }
    Saga::new("trip.book").local("record", record, erase).step("seat", take, free_seat).local("ticket", print, tear)
}

#[actix_rt::test]
async fn a_saga_whose_step_panics_is_stuck_and_takes_no_other_along() {
    on_both(async |databases| {
        let travel = Travel::new(&databases, booking).await;
        let pause = Backoff { first: Duration::ZERO, at_most: Duration::ZERO, factor: 1.0, jitter: 0.0 };
        let settings = SagaSettings { backoff: pause, patience: 5, ..SagaSettings::default() };
        let sagas = Sagas::new("trip", &databases).settings(settings).with(booking_that_panics());
        let (engine, clock) = standing(&sagas, &travel);
        let mut ids = Vec::new();
        for seat in [Some(13), None] {
            let (caller, id, trip) = travel.begin();
            drop(engine.begin(&caller, id, Trip { seat, ..trip }).await.unwrap());
            ids.push(id);
        }
        let mut sweeper = Sweeper::new(engine.clone());
        sweeper.take_over().await.unwrap();
        clock.advance(engine.sagas.settings.ttl);
        sweeper.take_over().await.unwrap();
        assert_eq!(sweeper.driving(), 2);
        for _ in 0..2 {
            in_time("they end", sweeper.drive()).await;
        }
        let row = async |id| log::get(&travel.database, id).await.unwrap().unwrap();
        let stuck = row(ids[0]).await;
        assert_eq!(stuck.status(), SagaStatus::Stuck);
        let trouble = stuck.progress().trouble.unwrap();
        assert!(trouble.contains("panicked") && trouble.contains("unlucky"), "{trouble}");
        assert_eq!(row(ids[1]).await.status(), SagaStatus::Done);
        travel.runtime.stop(Duration::from_secs(5)).await;
    })
    .await;
}

#[actix_rt::test]
async fn a_saga_that_does_not_end_in_time_is_handed_over_when_the_domain_stops() {
    on_both(async |databases| {
        let gate = Arc::new(Notify::new());
        let slow = Inn { gate: Some(gate.clone()), ..Inn::default() };
        let waiting = slow.waiting.clone();
        let runtime = node(&slow, None).await;
        let travel = Travel { saga: booking, database: databases.open("trip").await.unwrap(), inn: slow, runtime };
        let sagas = Sagas::new("trip", &databases).with(booking());
        let (engine, clock) = standing(&sagas, &travel);
        let begin = |engine: &SagaEngine| {
            let (engine, (caller, id, trip)) = (engine.clone(), travel.begin());
            (id, actix_rt::spawn(async move { engine.run(&caller, id, trip).await }))
        };
        let held = async |id| {
            let row = log::get(&travel.database, id).await.unwrap();
            row.is_some_and(|row| row.holder.is_some())
        };
        let mut sweeper = Sweeper::new(engine.clone());

        let (_, asked) = begin(&engine);
        // That its row is there says only that it begins.
        until("its step is under way", async || waiting.load(Ordering::SeqCst) == 1).await;
        let opens = async {
            loop {
                gate.notify_one();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = in_time("it ends", sweeper.hand_over()) => {}
            () = opens => unreachable!(),
        }
        assert!(asked.await.unwrap().is_ok(), "whoever waits for one that ends in time is told");

        // A permit of the gate may be left.
        let _ = tokio::time::timeout(Duration::ZERO, gate.notified()).await;
        let (id, asked) = begin(&engine);
        until("its step is under way", async || waiting.load(Ordering::SeqCst) == 1).await;
        let moves = async {
            // Of the step that is asked for, and of who waits for the saga's end.
            until("both wait", async || clock.sleepers() == 2).await;
            clock.advance(Duration::from_secs(2));
        };
        in_time("it is handed over", async { tokio::join!(sweeper.hand_over(), moves) }).await;
        assert!(!held(id).await, "another may take it at once");
        assert!(matches!(asked.await.unwrap(), Err(CallError::Failed(Failure::Unknown))));
        travel.runtime.stop(Duration::from_secs(5)).await;
    })
    .await;
}

#[actix_rt::test]
async fn a_version_with_other_steps_leaves_a_saga_alone_and_a_newer_one_goes_on() {
    fn newer() -> Saga<Trip> {
        Saga::new("trip.book")
            .local("record", record, erase)
            .step("seat", take_seat, free_seat)
            .step("breakfast", async |_: &StepContext, trip| Ok(trip), async |_: &StepContext, _| Ok(()))
            .step("bed", take_bed, free_bed)
            .local("ticket", print, tear)
    }
    on_both(async |databases| {
        let travel = Travel::new(&databases, booking).await;
        let [old, new] = [booking, newer].map(|saga| Sagas::new("trip", &databases).with(saga()));
        let ((old, _), (new, _)) = (standing(&old, &travel), standing(&new, &travel));
        let row = async |id| log::get(&travel.database, id).await.unwrap().unwrap();

        let (caller, id, trip) = travel.begin();
        drop(new.begin(&caller, id, trip).await.unwrap());
        assert!(old.take_over(&row(id).await).await.unwrap().is_none(), "it would leave a step out");

        let (caller, id, trip) = travel.begin();
        drop(old.begin(&caller, id, trip).await.unwrap());
        let driver = new.take_over(&row(id).await).await.unwrap().unwrap();
        assert!(old.take_over(&row(id).await).await.unwrap().is_none(), "it is the newer version's from now on");
        assert!(matches!(driver.drive().await, Ended::Done(_)));

        // Where it stands is another step for the newer version.
        let (caller, id, trip) = travel.begin();
        let driver = old.begin(&caller, id, trip).await.unwrap();
        let next = Progress { position: 2, ..driver.progress.clone() };
        let mut transaction = travel.database.begin().await.unwrap();
        assert!(log::write(&mut transaction, &driver.held, &driver.progress, &next, old.clock.now()).await.unwrap());
        transaction.commit().await.unwrap();
        assert!(new.take_over(&row(id).await).await.unwrap().is_none());
        travel.runtime.stop(Duration::from_secs(5)).await;
    })
    .await;
}
