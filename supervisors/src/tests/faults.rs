//! Panics, failing factories and crash loops.

use std::{
    cell::Cell,
    panic,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use callboard_messages::{CallError, Caller, Failure};
use futures_util::future::join_all;

use super::{alone::alone, fixture::*};
use crate::{Backoff, Bulkhead, Domain, Intensity, StartError};

fn is_internal<R>(outcome: &Result<R, CallError<Refusal>>) -> bool {
    matches!(outcome, Err(CallError::Failed(Failure::Internal(_))))
}

fn is_unavailable<R>(outcome: &Result<R, CallError<Refusal>>) -> bool {
    matches!(outcome, Err(CallError::Failed(Failure::Unavailable { .. })))
}

#[actix_rt::test]
async fn a_panic_fails_one_call_and_the_next_is_served_within_200_ms() {
    let watch = Watch::default();
    let (_runtime, bus, clock) = node(vec![sample(Bulkhead::default(), &watch).build()]).await;
    let caller = Caller::anonymous();
    for (panics, act) in [Act::PanicAtOnce, Act::PanicLater].into_iter().enumerate() {
        assert!(is_internal(&bus.ask(&caller, perform(act)).await));
        let next = actix_rt::spawn({
            let (bus, caller) = (bus.clone(), caller.clone());
            async move { bus.ask(&caller, perform(Act::Reply(1))).await }
        });
        until(|| clock.sleepers() == 2).await;
        assert_eq!(watch.builds(), panics + 1, "the new state waits for its back-off");
        clock.advance(Duration::from_millis(200));
        assert_eq!(next.await.unwrap(), Ok(1));
        assert_eq!(watch.builds(), panics + 2);
        // Far enough to reset the back-off.
        clock.advance(Duration::from_secs(60));
    }
}

#[actix_rt::test]
async fn calls_that_run_when_another_panics_end_on_the_old_state() {
    let watch = Watch::default();
    let (_runtime, bus, clock) = node(vec![sample(Bulkhead::default(), &watch).build()]).await;
    let caller = Caller::anonymous();
    let old = actix_rt::spawn({
        let (bus, caller) = (bus.clone(), caller.clone());
        async move { bus.ask(&caller, perform(Act::Wait(5))).await }
    });
    until(|| watch.running() == 1).await;
    assert!(is_internal(&bus.ask(&caller, perform(Act::PanicAtOnce)).await));
    until(|| clock.sleepers() == 2).await;
    clock.advance(Duration::from_millis(200));
    assert_eq!(bus.ask(&caller, perform(Act::Reply(1))).await, Ok(1));
    watch.open();
    assert_eq!(old.await.unwrap(), Ok(5));
}

#[actix_rt::test]
async fn two_panics_of_one_state_are_one_fault() {
    let watch = Watch::default();
    let (_runtime, bus, clock) = node(vec![sample(Bulkhead::default(), &watch).build()]).await;
    let caller = Caller::anonymous();
    let both = join_all((0..10).map(|_| bus.ask(&caller, perform(Act::PanicLater)))).await;
    assert!(both.iter().all(is_internal));
    until(|| clock.sleepers() >= 1).await;
    clock.advance(Duration::from_millis(200));
    assert_eq!(bus.ask(&caller, perform(Act::Reply(1))).await, Ok(1));
    assert_eq!(watch.builds(), 2);
}

/// Number of threads of the process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Silences, for the whole process, the panics that [`Act`] asks for.
fn silence_expected_panics() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !matches!(panic.payload_as_str(), Some("at once" | "later")) {
            tell(panic);
        }
    }));
}

#[actix_rt::test]
async fn ten_thousand_panics_leak_no_permit_task_or_thread() {
    if !alone("tests::faults::ten_thousand_panics_leak_no_permit_task_or_thread") {
        return;
    }
    silence_expected_panics();
    let watch = Watch::default();
    let bulkhead = Bulkhead {
        in_flight: 4,
        intensity: Intensity { restarts: 100_000, within: Duration::from_secs(30) },
        backoff: Backoff { first: Duration::ZERO, at_most: Duration::ZERO, ..Backoff::default() },
        breaker: crate::breaker::Settings {
            minimum_calls: 100_000,
            window: crate::breaker::Window::Count(100_000),
            ..Default::default()
        },
        ..Bulkhead::default()
    };
    let (runtime, bus, clock) = node(vec![sample(bulkhead, &watch).build()]).await;
    let caller = Caller::anonymous();
    assert_eq!(bus.ask(&caller, perform(Act::Reply(1))).await, Ok(1));
    let (threads_before, holders_before) = (threads(), watch.holders());
    for _ in 0..1250 {
        let acts = [Act::PanicAtOnce, Act::PanicLater].into_iter().cycle().take(8);
        let outcomes = join_all(acts.map(|act| bus.ask(&caller, perform(act)))).await;
        assert!(outcomes.iter().all(is_internal), "{outcomes:?}");
    }
    assert_eq!(bus.ask(&caller, perform(Act::Reply(1))).await, Ok(1));
    clock.advance(Duration::from_millis(25));
    until(|| watch.holders() == holders_before && clock.sleepers() == 0).await;
    let shard = &runtime.tree().children[0].children[0];
    assert_eq!((shard.in_flight, shard.queue_depth, shard.state), (0, 0, "ready"));
    assert_eq!((threads(), watch.running()), (threads_before, 0));
    let all = join_all((0..4).map(|_| bus.ask(&caller, perform(Act::Reply(2))))).await;
    assert!(all.iter().all(|outcome| *outcome == Ok(2)), "every permit is there");
}

#[actix_rt::test]
async fn a_crash_loop_exhausts_its_domain_and_leaves_the_others_serving() {
    let watch = Watch::default();
    let (runtime, bus, clock) = node(vec![sample(Bulkhead::default(), &watch).build(), elsewhere(&watch)]).await;
    let caller = Caller::anonymous();
    for crash in 1..=6 {
        assert!(runtime.ready().iter().all(|domain| domain.ready));
        assert!(is_internal(&bus.ask(&caller, perform(Act::PanicAtOnce)).await), "{crash}");
        if crash < 6 {
            let builds = watch.builds();
            until(|| clock.sleepers() >= 1).await;
            clock.advance(Duration::from_secs(4));
            until(|| watch.builds() > builds).await;
            assert_eq!(bus.ask(&caller, perform(Act::Reply(1))).await, Ok(1));
        }
    }
    assert!(is_unavailable(&bus.ask(&caller, perform(Act::Reply(1))).await));
    assert_eq!(bus.ask(&caller, Elsewhere(Act::Reply(1), uuid::Uuid::nil())).await, Ok(1));
    let ready: Vec<_> = runtime.ready().iter().map(|domain| (domain.domain, domain.ready)).collect();
    assert_eq!(ready, [("sample", false), ("elsewhere", true)]);
    let tree = runtime.tree();
    assert_eq!((tree.children[0].state, tree.children[1].state), ("unavailable", "ready"));
    assert!(tree.children[0].reason.as_ref().unwrap().contains("at once"));

    // An operator restarts it, with the whole intensity before it.
    assert!(!runtime.revive("elsewhere") && !runtime.revive("nobody"));
    until(|| runtime.revive("sample")).await;
    until(|| runtime.ready().iter().all(|domain| domain.ready)).await;
    assert_eq!(bus.ask(&caller, perform(Act::Reply(1))).await, Ok(1));
    assert!(is_internal(&bus.ask(&caller, perform(Act::PanicAtOnce)).await));
    until(|| clock.sleepers() >= 1).await;
    clock.advance(Duration::from_millis(200));
    assert_eq!(bus.ask(&caller, perform(Act::Reply(1))).await, Ok(1));
}

#[actix_rt::test]
async fn crashes_that_are_far_apart_never_exhaust_a_domain() {
    let watch = Watch::default();
    let (_runtime, bus, clock) = node(vec![sample(Bulkhead::default(), &watch).build()]).await;
    let caller = Caller::anonymous();
    for crash in 1..=50 {
        assert!(is_internal(&bus.ask(&caller, perform(Act::PanicAtOnce)).await));
        until(|| clock.sleepers() >= 1).await;
        clock.advance(Duration::from_secs(6));
        until(|| watch.builds() == crash + 1).await;
        // More replies than failures, so that the breaker stays closed.
        for _ in 0..2 {
            assert_eq!(bus.ask(&caller, perform(Act::Reply(1))).await, Ok(1));
        }
    }
}

#[actix_rt::test]
async fn a_factory_that_fails_or_panics_is_tried_again_and_then_given_up() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let domain = Domain::new("sample")
        .answering::<TestDomain>()
        .on::<Perform>()
        .shared(move |_| {
            let attempt = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(attempt.is_multiple_of(2), "the factory panics");
                Err::<TestDomain, _>(StartError::from("the database is away"))
            }
        })
        .build();
    let (runtime, bus, clock) = node(vec![domain]).await;
    assert_eq!(attempts.load(Ordering::SeqCst), 1, "attach returns after the first attempt");
    assert_eq!(runtime.ready()[0].reason.as_deref(), Some("sample is starting"));
    let waiting = actix_rt::spawn(async move { bus.ask(&Caller::anonymous(), perform(Act::Reply(1))).await });
    for (attempt, wait) in (2..=6).zip([130, 250, 500, 1000, 2000]) {
        until(|| clock.sleepers() >= 1 && attempts.load(Ordering::SeqCst) == attempt - 1).await;
        tokio::task::yield_now().await;
        clock.advance(Duration::from_millis(wait));
        until(|| attempts.load(Ordering::SeqCst) == attempt).await;
    }
    assert!(is_unavailable(&waiting.await.unwrap()));
    assert!(runtime.ready()[0].reason.is_some());
    assert_eq!(attempts.load(Ordering::SeqCst), 6);
}

#[actix_rt::test]
async fn tasks_of_a_state_end_with_it_and_their_panics_hurt_nobody() {
    struct Alive(Rc<Cell<usize>>);
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.update(|alive| alive - 1);
        }
    }
    thread_local!(static ALIVE: Rc<Cell<usize>> = Rc::default());
    let alive = ALIVE.with(Rc::clone);
    let watch = Watch::default();
    let inside = watch.clone();
    let domain = Domain::new("sample")
        .answering::<TestDomain>()
        .on::<Perform>()
        .shared(move |context| {
            let alive = ALIVE.with(Rc::clone);
            alive.update(|alive| alive + 1);
            let guard = Alive(alive);
            context.spawn("follow", async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            });
            context.spawn("broken", async { panic!("a task panics") });
            let watch = inside.clone();
            async move { Ok(TestDomain::new(watch, context)) }
        })
        .build();
    let (runtime, bus, clock) = node(vec![domain]).await;
    let caller = Caller::anonymous();
    until(|| alive.get() == 1).await;
    assert!(is_internal(&bus.ask(&caller, perform(Act::PanicAtOnce)).await));
    until(|| clock.sleepers() >= 1).await;
    clock.advance(Duration::from_millis(200));
    assert_eq!(bus.ask(&caller, perform(Act::Reply(1))).await, Ok(1));
    until(|| alive.get() == 1).await;
    runtime.stop(Duration::from_secs(1)).await;
    until(|| alive.get() == 0).await;
}

#[test]
fn panics_unwind_in_every_profile() {
    assert!(panic::catch_unwind(|| panic!("unwinds")).is_err());
    const { assert!(cfg!(panic = "unwind")) };
    let manifest: toml::Table = include_str!("../../../Cargo.toml").parse().unwrap();
    for profile in ["dev", "release"] {
        assert_eq!(manifest["profile"][profile]["panic"].as_str(), Some("unwind"), "{profile}");
    }
}
