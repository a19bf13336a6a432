//! The breaker of a shard, and calls that never end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use callboard_messages::{CallError, Caller, Failure};
use futures_util::future::join_all;

use super::fixture::*;
use crate::{Bulkhead, Bus, Clock, Dependency, Part, Runtime, breaker};

async fn sample_node(in_flight: usize, dedicated: bool) -> (Watch, Runtime, Bus, Clock) {
    let watch = Watch::default();
    let breaker = breaker::Settings { jitter: 0.0, ..Default::default() };
    let bulkhead = Bulkhead { in_flight, breaker, ..Bulkhead::default() };
    let domain = if dedicated { dedicated_sample(bulkhead, 1, &watch) } else { sample(bulkhead, &watch) };
    let (runtime, bus, clock) = node(vec![domain.build()]).await;
    (watch, runtime, bus, clock)
}

fn is_open<R>(outcome: &Result<R, CallError<Refusal>>) -> bool {
    matches!(outcome, Err(CallError::Failed(Failure::Unavailable { retry_after })) if *retry_after > Duration::from_secs(3))
}

fn state(runtime: &Runtime) -> &'static str {
    runtime.tree().children[0].breaker.unwrap()
}

#[actix_rt::test]
async fn a_handler_that_never_returns_times_out_opens_the_breaker_and_gives_its_permit_back() {
    for dedicated in [false, true] {
        let (watch, runtime, bus, clock) = sample_node(20, dedicated).await;
        let caller = Caller::anonymous();
        let hanging = actix_rt::spawn({
            let (bus, caller) = (bus.clone(), caller.clone());
            async move { join_all((0..20).map(|_| bus.ask(&caller, perform(Act::Never)))).await }
        });
        until(|| watch.running() == 20 && clock.sleepers() >= 1).await;
        assert_eq!(runtime.tree().in_flight, 20);
        clock.advance(Duration::from_secs(10));
        let outcomes = hanging.await.unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == Err(CallError::Failed(Failure::Timeout))), "{outcomes:?}");
        until(|| watch.running() == 0 && runtime.tree().in_flight == 0).await;
        until(|| state(&runtime) == "open").await;
        assert!(is_open(&bus.ask(&caller, perform(Act::Reply(1))).await));
        assert_eq!(runtime.ready()[0].part, Some(Part::Breaker), "a call would be refused");
        clock.advance(Duration::from_secs(5));
        assert!(runtime.ready()[0].ready, "a call would be let through");
        for _ in 0..5 {
            assert_eq!(bus.ask(&caller, perform(Act::Reply(1))).await, Ok(1));
        }
        until(|| state(&runtime) == "closed").await;
        runtime.stop(Duration::from_secs(1)).await;
    }
}

#[actix_rt::test]
async fn a_caller_s_own_deadline_is_its_timeout_when_it_is_sooner() {
    let (watch, _runtime, bus, clock) = sample_node(1, false).await;
    let soon = Caller::anonymous().with_deadline(clock.instant() + Duration::from_secs(1));
    let hanging = actix_rt::spawn(async move { bus.ask(&soon, perform(Act::Never)).await });
    until(|| watch.running() == 1 && clock.sleepers() == 1).await;
    clock.advance(Duration::from_secs(1));
    assert_eq!(hanging.await.unwrap(), Err(CallError::Failed(Failure::Timeout)));
    assert_eq!(watch.running(), 0);
}

#[actix_rt::test]
async fn refusals_do_not_open_the_breaker_and_failures_do() {
    let (_, runtime, bus, _) = sample_node(64, false).await;
    let caller = Caller::anonymous();
    for _ in 0..200 {
        assert_eq!(bus.ask(&caller, perform(Act::Refuse)).await, Err(CallError::Refused(Refusal)));
    }
    assert_eq!(state(&runtime), "closed");
    for _ in 0..50 {
        assert!(bus.ask(&caller, perform(Act::Fail)).await.is_err());
    }
    assert_eq!(state(&runtime), "open");
    assert!(is_open(&bus.ask(&caller, perform(Act::Reply(1))).await));
}

#[actix_rt::test]
async fn half_open_lets_exactly_five_calls_reach_the_handler() {
    for dedicated in [false, true] {
        let (watch, runtime, bus, clock) = sample_node(64, dedicated).await;
        let caller = Caller::anonymous();
        for _ in 0..20 {
            assert!(bus.ask(&caller, perform(Act::Fail)).await.is_err());
        }
        clock.advance(Duration::from_secs(5));
        let calls = actix_rt::spawn({
            let (bus, caller) = (bus.clone(), caller.clone());
            async move { join_all((0..100).map(|_| bus.ask(&caller, perform(Act::Wait(1))))).await }
        });
        until(|| watch.running() == 5).await;
        until(|| runtime.tree().queue_depth == 0).await;
        until(|| {
            watch.open();
            calls.is_finished()
        })
        .await;
        let outcomes = calls.await.unwrap();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 5);
        assert_eq!((watch.most(), state(&runtime)), (5, "closed"));
        runtime.stop(Duration::from_secs(1)).await;
    }
}

#[actix_rt::test]
async fn slow_calls_open_the_breaker() {
    let (_, runtime, bus, clock) = sample_node(64, false).await;
    let caller = Caller::anonymous();
    let slow = actix_rt::spawn({
        let (bus, caller) = (bus.clone(), caller.clone());
        async move { join_all((0..20).map(|_| bus.ask(&caller, perform(Act::Take(3000))))).await }
    });
    until(|| clock.sleepers() == 21).await;
    clock.advance(Duration::from_secs(3));
    assert!(slow.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(state(&runtime), "open");
}

#[actix_rt::test]
async fn an_operator_holds_the_breaker_open_or_closed() {
    for dedicated in [false, true] {
        let (_, runtime, bus, _) = sample_node(64, dedicated).await;
        let caller = Caller::anonymous();
        assert!(runtime.force_breaker("sample", Some(breaker::Force::Open)));
        until(|| state(&runtime) == "forced_open").await;
        assert!(is_open(&bus.ask(&caller, perform(Act::Reply(1))).await));
        assert!(runtime.force_breaker("sample", Some(breaker::Force::Closed)));
        until(|| state(&runtime) == "forced_closed").await;
        for _ in 0..100 {
            assert!(bus.ask(&caller, perform(Act::Fail)).await.is_err());
        }
        assert_eq!(bus.ask(&caller, perform(Act::Reply(1))).await, Ok(1));
        assert!(runtime.force_breaker("sample", None));
        until(|| state(&runtime) == "closed").await;
        assert!(!runtime.force_breaker("nobody", None));
        runtime.stop(Duration::from_secs(1)).await;
    }
}

#[actix_rt::test]
async fn what_the_input_caused_and_a_full_disk_open_no_breaker_and_hide_no_failure() {
    let (_, runtime, bus, _) = sample_node(64, false).await;
    let caller = Caller::anonymous();
    for _ in 0..100 {
        assert_eq!(bus.ask(&caller, perform(Act::Spoil)).await, Err(Failure::Invalid.into()));
        let full = bus.ask(&caller, perform(Act::Fill)).await;
        assert!(matches!(full, Err(CallError::Failed(Failure::DiskFull { .. }))), "{full:?}");
    }
    assert_eq!(state(&runtime), "closed");
    for _ in 0..20 {
        assert!(bus.ask(&caller, perform(Act::Fail)).await.is_err());
    }
    assert_eq!(state(&runtime), "open");
}

/// A domain that asks another, and the node's clock.
async fn pair() -> (Watch, Runtime, Bus, Clock) {
    let watch = Watch::default();
    let (runtime, bus, clock) =
        node(vec![sample(Bulkhead::default(), &watch).build(), elsewhere(&Watch::default())]).await;
    (watch, runtime, bus, clock)
}

fn states(runtime: &Runtime) -> [&'static str; 2] {
    let tree = runtime.tree();
    [0, 1].map(|domain: usize| tree.children[domain].breaker.unwrap())
}

#[actix_rt::test]
async fn a_failure_of_another_domain_counts_there_and_not_with_who_asked() {
    let (_, runtime, bus, clock) = pair().await;
    let caller = Caller::anonymous();
    let pass = |act| perform(Act::Pass(Box::new(act)));
    for _ in 0..100 {
        assert!(bus.ask(&caller, pass(Act::Fail)).await.is_err());
    }
    assert_eq!(states(&runtime), ["closed", "open"]);
    assert_eq!(bus.ask(&caller, perform(Act::Reply(1))).await, Ok(1), "what needs nobody else goes on");
    clock.advance(Duration::from_secs(10));
    for _ in 0..5 {
        assert_eq!(bus.ask(&caller, pass(Act::Reply(2))).await, Ok(2), "as soon as the other one works");
    }
    // Its own failures count, also when it has met one of the other before.
    for _ in 0..20 {
        assert!(bus.ask(&caller, perform(Act::Fail)).await.is_err());
    }
    assert_eq!(states(&runtime)[0], "open");
}

#[actix_rt::test]
async fn a_call_that_waited_for_another_domain_too_long_counts_there() {
    let (watch, runtime, bus, clock) = pair().await;
    let hanging = actix_rt::spawn(async move {
        let caller = Caller::anonymous();
        join_all((0..20).map(|_| bus.ask(&caller, perform(Act::Pass(Box::new(Act::Never)))))).await
    });
    until(|| watch.running() == 20 && clock.sleepers() >= 1).await;
    clock.advance(Duration::from_secs(10));
    assert!(hanging.await.unwrap().iter().all(Result::is_err));
    until(|| states(&runtime)[1] == "open").await;
    assert_eq!(states(&runtime), ["closed", "open"]);
}

#[actix_rt::test]
async fn a_breaker_begins_anew_when_what_the_domain_stands_on_answers_again() {
    for dedicated in [false, true] {
        let is_there = Arc::new(AtomicBool::new(false));
        let answers = is_there.clone();
        let dependency = Dependency::new("a database", move || {
            let answer = if answers.load(Ordering::SeqCst) { Ok(()) } else { Err("away".to_owned()) };
            std::future::ready(answer)
        });
        let watch = Watch::default();
        let domain = match dedicated {
            true => dedicated_sample(Bulkhead::default(), 1, &watch),
            false => sample(Bulkhead::default(), &watch),
        };
        let (runtime, bus, _) = node(vec![domain.standing_on([dependency.clone()]).build()]).await;
        let caller = Caller::anonymous();
        for _ in 0..20 {
            assert!(bus.ask(&caller, perform(Act::Fail)).await.is_err());
        }
        until(|| state(&runtime) == "open").await;
        dependency.broke();
        until(|| dependency.is_away()).await;
        assert!(is_open(&bus.ask(&caller, perform(Act::Reply(1))).await));
        is_there.store(true, Ordering::SeqCst);
        // The breaker's clock stands still, and there are no calls.
        until(|| state(&runtime) == "closed").await;
        assert_eq!(bus.ask(&caller, perform(Act::Reply(1))).await, Ok(1));
        for _ in 0..18 {
            assert!(bus.ask(&caller, perform(Act::Fail)).await.is_err());
        }
        assert_eq!(state(&runtime), "closed", "it judges anew");
        runtime.stop(Duration::from_secs(1)).await;
    }
}
