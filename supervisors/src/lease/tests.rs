//! Leases on both engines, under clocks that the tests move.

use std::time::Instant as Real;

use chrono::DateTime;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::migrate::Migrator;

use super::*;
use crate::{db::Databases, testing::on_both_engines};

const TTL: Duration = Duration::from_secs(4);

async fn on_both(body: impl AsyncFn(Databases)) {
    on_both_engines(&[("leases", &Migrator::with_migrations(Vec::new()))], body).await;
}

fn clock() -> Clock {
    Clock::manual(DateTime::UNIX_EPOCH)
}

async fn contender(databases: &Databases, clock: &Clock) -> Leases {
    Leases::new(databases.open("leases").await.unwrap(), clock.clone(), Uuid::now_v7())
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Real::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Real::now() < deadline, "not within half a minute: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn beat(databases: &Databases) -> i64 {
    let database = databases.open("leases").await.unwrap();
    database.query("SELECT beat FROM leases WHERE name = 'x'").fetch_scalar().await.unwrap()
}

#[actix_rt::test]
async fn a_lease_that_is_renewed_is_not_taken_over() {
    on_both(async |databases| {
        let clock = clock();
        let (ours, theirs) = (contender(&databases, &clock).await, contender(&databases, &clock).await);
        let lease = ours.acquire("x", TTL).await.unwrap().unwrap();
        for _ in 0..12 {
            assert!(theirs.acquire("x", TTL).await.unwrap().is_none());
            let (beats, until) = (beat(&databases).await, lease.until());
            eventually("the keeper sleeps", || clock.sleepers() > 0).await;
            clock.advance(TTL / 4);
            eventually("it is renewed", || lease.until() > until).await;
            assert_eq!(beat(&databases).await, beats + 1);
            assert!(lease.is_held());
        }
        assert!(theirs.acquire("y", TTL).await.unwrap().is_some(), "another name is another lease");
    })
    .await;
}

#[actix_rt::test]
async fn a_lease_that_is_given_back_is_free_at_once() {
    on_both(async |databases| {
        let clock = clock();
        let (ours, theirs) = (contender(&databases, &clock).await, contender(&databases, &clock).await);
        let first = ours.acquire("x", TTL).await.unwrap().unwrap();
        let token = first.token();
        first.release().await;
        let second = theirs.acquire("x", TTL).await.unwrap().unwrap();
        assert!(second.token() > token);
        assert!(ours.acquire("x", TTL).await.unwrap().is_none());
    })
    .await;
}

#[actix_rt::test]
async fn a_holder_that_was_paused_is_replaced_and_then_refused() {
    on_both(async |databases| {
        // The clock of a process that is stopped stands still.
        let (paused, moving) = (clock(), clock());
        let (ours, theirs) = (contender(&databases, &paused).await, contender(&databases, &moving).await);
        let old = ours.acquire("x", TTL).await.unwrap().unwrap();
        assert!(theirs.acquire("x", TTL).await.unwrap().is_none(), "seen for the first time");
        moving.advance(TTL - Duration::from_millis(1));
        assert!(theirs.acquire("x", TTL).await.unwrap().is_none(), "not seen for long enough");
        moving.advance(Duration::from_millis(1));
        let new = theirs.acquire("x", TTL).await.unwrap().unwrap();
        assert!(new.token() > old.token());

        assert!(old.is_held(), "it cannot know yet");
        assert!(futures_util::poll!(std::pin::pin!(old.lost())).is_pending());
        let part = old.fencing();
        let database = databases.open("leases").await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        assert!(matches!(old.fence(&mut transaction).await, Err(FenceError::Lost(name)) if name == "x"));
        drop(transaction);
        let mut transaction = database.begin().await.unwrap();
        assert!(part.check(&mut transaction).await.is_err(), "who does a part of its work neither");
        drop(transaction);
        assert!(!old.is_held(), "now it does");
        old.lost().await;
        let mut transaction = database.begin().await.unwrap();
        new.fence(&mut transaction).await.unwrap();
        transaction.commit().await.unwrap();
        old.release().await;
        assert!(new.is_held());
        let mut transaction = database.begin().await.unwrap();
        new.fence(&mut transaction).await.unwrap();
    })
    .await;
}

#[actix_rt::test]
async fn a_holder_stops_before_another_may_begin() {
    on_both(async |databases| {
        let clock = clock();
        let (ours, theirs) = (contender(&databases, &clock).await, contender(&databases, &clock).await);
        let lease = ours.acquire("x", TTL).await.unwrap().unwrap();
        assert!(theirs.acquire("x", TTL).await.unwrap().is_none());
        eventually("the keeper sleeps", || clock.sleepers() > 0).await;
        // All at once: nothing could be renewed in between.
        clock.advance(TTL / 4 * 3);
        assert!(!lease.is_held());
        lease.lost().await;
        assert!(theirs.acquire("x", TTL).await.unwrap().is_none(), "a quarter is left, for clocks that differ");
        clock.advance(TTL / 4);
        assert!(theirs.acquire("x", TTL).await.unwrap().is_some());
    })
    .await;
}

const MILLISECOND: Duration = Duration::from_millis(1);

#[actix_rt::test]
async fn a_lease_is_written_down_with_its_whole_time() {
    on_both(async |databases| {
        let clock = clock();
        let (ours, theirs) = (contender(&databases, &clock).await, contender(&databases, &clock).await);
        let database = databases.open("leases").await.unwrap();
        let written =
            async || -> i64 { database.query("SELECT ttl FROM leases WHERE name = 'x'").fetch_scalar().await.unwrap() };
        let first = ours.acquire("x", TTL).await.unwrap().unwrap();
        assert_eq!(written().await, 4000);
        first.release().await;
        let _second = theirs.acquire("x", TTL + MILLISECOND).await.unwrap().unwrap();
        assert_eq!(written().await, 4001, "also by whoever takes it over");
    })
    .await;
}

#[actix_rt::test]
async fn a_contender_waits_for_the_longer_of_the_holder_s_time_and_its_own() {
    on_both(async |databases| {
        for (held_for, wanted_for) in [(TTL, MILLISECOND), (TTL, Duration::ZERO), (MILLISECOND, TTL), (TTL / 2, TTL)] {
            // The holder stands still, so that it renews nothing.
            let (standing, moving) = (clock(), clock());
            let (ours, theirs) = (contender(&databases, &standing).await, contender(&databases, &moving).await);
            let name = format!("{held_for:?} {wanted_for:?}");
            let _held = ours.acquire(&name, held_for).await.unwrap().unwrap();
            assert!(theirs.acquire(&name, wanted_for).await.unwrap().is_none(), "seen for the first time");
            moving.advance(TTL - MILLISECOND);
            assert!(theirs.acquire(&name, wanted_for).await.unwrap().is_none(), "{name}: a moment too soon");
            moving.advance(MILLISECOND);
            assert!(theirs.acquire(&name, wanted_for).await.unwrap().is_some(), "{name}");
        }
    })
    .await;
}

#[actix_rt::test]
async fn a_holder_acts_for_three_quarters_of_the_time_and_not_a_moment_longer() {
    on_both(async |databases| {
        let clock = clock();
        let lease = contender(&databases, &clock).await.acquire("x", TTL).await.unwrap().unwrap();
        assert_eq!(lease.until() - clock.instant(), Duration::from_secs(3));
        // Nothing is awaited from here on, so that nothing renews it.
        clock.advance(TTL / 4 * 3 - MILLISECOND);
        assert!(lease.is_held());
        clock.advance(MILLISECOND);
        assert!(!lease.is_held());
    })
    .await;
}

#[actix_rt::test]
async fn a_renewal_that_failed_is_retried_after_a_twentieth_of_the_time_until_the_lease_is_lost() {
    on_both(async |databases| {
        let clock = clock();
        let database = databases.open("leases").await.unwrap();
        let lease = contender(&databases, &clock).await.acquire("x", TTL).await.unwrap().unwrap();
        let (began, until) = (clock.instant(), lease.until());
        let wakes_at = async |after: Duration| {
            eventually("the keeper sleeps", || clock.next_wake() == Some(began + after)).await;
        };
        wakes_at(TTL / 4).await;
        database.query("ALTER TABLE leases RENAME TO elsewhere").execute().await.unwrap();
        clock.advance(TTL / 4);
        for failures in 1..=3 {
            wakes_at(TTL / 4 + TTL / 20 * failures).await;
            assert!(lease.until() == until && lease.is_held(), "it is neither renewed nor lost yet");
            clock.advance(TTL / 20);
        }
        wakes_at(TTL / 4 + TTL / 20 * 4).await;
        database.query("ALTER TABLE elsewhere RENAME TO leases").execute().await.unwrap();
        clock.advance(TTL / 20);
        eventually("it is renewed", || lease.until() == until + TTL / 4 + TTL / 20 * 4).await;
        wakes_at(TTL / 2 + TTL / 20 * 4).await;

        // The last retry is at the end of the holder's time, and not after it.
        database.query("ALTER TABLE leases RENAME TO elsewhere").execute().await.unwrap();
        let until = lease.until();
        clock.advance(until - clock.instant() - MILLISECOND);
        eventually("the keeper sleeps", || clock.next_wake() == Some(until)).await;
        clock.advance(MILLISECOND);
        lease.lost().await;
        database.query("ALTER TABLE elsewhere RENAME TO leases").execute().await.unwrap();
    })
    .await;
}

#[actix_rt::test]
async fn a_lease_that_lives_no_time_is_held_by_nobody() {
    on_both(async |databases| {
        let clock = clock();
        let lease = contender(&databases, &clock).await.acquire("x", Duration::ZERO).await.unwrap().unwrap();
        assert!(!lease.is_held());
        lease.lost().await;
    })
    .await;
}

#[test]
fn a_sighting_lapses_with_its_time_and_begins_anew_with_every_sign_of_life() {
    let clock = clock();
    let sightings = Sightings::new(clock.clone());
    let lapsed = |token, beat| sightings.has_lapsed("x", token, beat, TTL);
    assert!(!lapsed(1, 1));
    assert!(sightings.has_lapsed("y", 1, 1, Duration::ZERO), "no time has passed at once");
    clock.advance(TTL - MILLISECOND);
    assert!(!lapsed(1, 1));
    clock.advance(MILLISECOND);
    assert!(lapsed(1, 1));
    assert!(!lapsed(1, 2), "another beat");
    clock.advance(TTL);
    assert!(!lapsed(2, 2), "another token");
    clock.advance(TTL);
    assert!(lapsed(2, 2));
    sightings.forget("x");
    assert!(!lapsed(2, 2), "as if never seen");
    clock.advance(TTL);
    sightings.retain(|key| *key == "x");
    assert!(lapsed(2, 2), "it is kept");
    sightings.retain(|key| *key == "y");
    assert!(!lapsed(2, 2), "it is not");
}

#[test]
fn times_are_counted_in_whole_milliseconds() {
    let counted = [0, 1, 2, 999, 1000, 60_000].map(|count| millis(Duration::from_millis(count)));
    assert_eq!(counted, [0, 1, 2, 999, 1000, 60_000]);
    assert_eq!((millis(Duration::from_micros(1999)), millis(Duration::MAX)), (1, i64::MAX));
}

#[actix_rt::test]
async fn of_many_contenders_never_two_hold_it() {
    let seed = rand::random();
    println!("seed {seed}");
    on_both(async |databases| {
        let mut random = StdRng::seed_from_u64(seed);
        let clock = clock();
        let mut contenders = Vec::new();
        for _ in 0..3 {
            contenders.push((contender(&databases, &clock).await, None::<Lease>));
        }
        let mut highest = 0;
        for _ in 0..150 {
            let chosen = random.random_range(0..contenders.len());
            match random.random_range(0..6) {
                0 => {
                    if let Some(lease) = contenders[chosen].1.take() {
                        lease.release().await;
                    }
                }
                // A crash: nobody gives it back.
                1 => contenders[chosen].1 = None,
                2 => clock.advance(TTL.mul_f64(random.random_range(0.0..1.5))),
                _ => {
                    if contenders[chosen].1.as_ref().is_none_or(|lease| !lease.is_held()) {
                        let (leases, held) = &mut contenders[chosen];
                        *held = leases.acquire("x", TTL).await.unwrap();
                        if let Some(lease) = held {
                            assert!(lease.token() > highest, "tokens grow");
                            highest = lease.token();
                        }
                    }
                    clock.advance(TTL / 5);
                }
            }
            tokio::task::yield_now().await;
            let holders = contenders.iter().filter(|(_, lease)| lease.as_ref().is_some_and(Lease::is_held)).count();
            assert!(holders <= 1, "{holders} hold it");
        }
        assert!(highest > 3, "it changed hands");
    })
    .await;
}

#[test]
fn a_lost_lease_is_told_and_an_outage_is_not_told_by_each_of_its_leases() {
    let (lost, wrong, away) = (
        FenceError::Lost("x".to_owned()),
        FenceError::Database(sqlx::Error::RowNotFound.into()),
        FenceError::Database(sqlx::Error::PoolClosed.into()),
    );
    assert!(lost.outside_outage().is_some() && wrong.outside_outage().is_some() && away.outside_outage().is_none());
}
