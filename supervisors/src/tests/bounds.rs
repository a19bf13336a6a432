//! Queue, permits, deadlines and callers that go away.

use std::{ops::RangeInclusive, time::Duration};

use callboard_messages::{CallError, Caller, Failure};
use futures_util::{FutureExt, future::join_all};

use super::fixture::*;
use crate::{ActorRef, Bulkhead};

fn is_overloaded<R>(outcome: &Result<R, CallError<Refusal>>) -> bool {
    matches!(outcome, Err(CallError::Failed(Failure::Overloaded { retry_after })) if !retry_after.is_zero())
}

fn small(queue: usize, in_flight: usize) -> Bulkhead {
    Bulkhead { queue, in_flight, ..Bulkhead::default() }
}

async fn flood(watch: &Watch, actor: ActorRef, bulkhead: &Bulkhead, admitted: RangeInclusive<usize>) {
    let clones: Vec<ActorRef> = (0..1000).map(|_| actor.clone()).collect();
    let calls: Vec<_> = clones
        .into_iter()
        .map(|actor| actix_rt::spawn(async move { actor.ask(&Caller::anonymous(), perform(Act::Wait(1))).await }))
        .collect();
    until(|| watch.running() == bulkhead.in_flight).await;
    let ended = || calls.iter().filter(|call| call.is_finished()).count();
    until(|| admitted.contains(&(1000 - ended()))).await;
    let outcomes = join_all(calls.into_iter().map(|call| async {
        until(|| {
            watch.open();
            call.is_finished()
        })
        .await;
        call.await.unwrap()
    }))
    .await;
    let answered = outcomes.iter().filter(|outcome| **outcome == Ok(1)).count();
    assert!(admitted.contains(&answered), "{answered}");
    assert_eq!(outcomes.iter().filter(|outcome| is_overloaded(outcome)).count(), 1000 - answered);
    assert_eq!(watch.most(), bulkhead.in_flight);
}

#[actix_rt::test]
async fn a_full_queue_refuses_at_once_and_no_more_than_the_limit_runs_through_a_thousand_clones() {
    let (watch, bulkhead) = (Watch::default(), small(16, 4));
    let (_runtime, bus, _) = node(vec![sample(bulkhead.clone(), &watch).build()]).await;
    flood(&watch, bus.actor("sample").unwrap(), &bulkhead, 20..=20).await;
}

#[actix_rt::test]
async fn the_bounds_hold_for_calls_from_other_threads() {
    let (watch, bulkhead) = (Watch::default(), small(16, 4));
    let (runtime, bus, _) = node(vec![dedicated_sample(bulkhead.clone(), 1, &watch).build()]).await;
    // A call that is on its way to another thread counts as queued until that thread has taken it.
    flood(&watch, bus.actor("sample").unwrap(), &bulkhead, 16..=20).await;
    runtime.stop(Duration::from_secs(1)).await;
}

#[actix_rt::test]
async fn expired_calls_never_run() {
    let watch = Watch::default();
    let (_runtime, bus, clock) = node(vec![sample(small(16, 1), &watch).build()]).await;
    let caller = Caller::anonymous();
    let late = caller.clone().with_deadline(clock.instant());
    let expired = Err(CallError::Failed(Failure::Expired));
    assert_eq!(bus.ask(&late, perform(Act::Reply(9))).await, expired);

    let first = actix_rt::spawn({
        let (bus, caller) = (bus.clone(), caller.clone());
        async move { bus.ask(&caller, perform(Act::Wait(1))).await }
    });
    until(|| watch.running() == 1).await;
    let soon = caller.clone().with_deadline(clock.instant() + Duration::from_secs(1));
    let queued = actix_rt::spawn({
        let bus = bus.clone();
        async move { bus.ask(&soon, perform(Act::Reply(9))).await }
    });
    tokio::task::yield_now().await;
    until(|| clock.sleepers() == 1).await;
    clock.advance(Duration::from_secs(1));
    assert_eq!(queued.await.unwrap(), expired);
    watch.open();
    assert_eq!(first.await.unwrap(), Ok(1));
    assert_eq!(bus.ask(&caller, perform(Act::Reply(2))).await, Ok(2));
    assert_eq!(watch.order(), [1, 2]);
}

#[actix_rt::test]
async fn a_caller_that_goes_away_frees_its_place_and_its_message_never_runs() {
    for threads in [0, 1] {
        let watch = Watch::default();
        let bulkhead = small(1, 1);
        let domain = if threads == 0 { sample(bulkhead, &watch) } else { dedicated_sample(bulkhead, threads, &watch) };
        let (runtime, bus, _) = node(vec![domain.build()]).await;
        let caller = Caller::anonymous();
        let first = actix_rt::spawn({
            let (bus, caller) = (bus.clone(), caller.clone());
            async move { bus.ask(&caller, perform(Act::Wait(1))).await }
        });
        until(|| watch.running() == 1).await;
        for _ in 0..100 {
            let mut queued = Box::pin(bus.ask(&caller, perform(Act::Reply(9))));
            assert!(queued.as_mut().now_or_never().is_none());
            let refused = bus.ask(&caller, perform(Act::Reply(9))).await;
            assert!(is_overloaded(&refused), "{refused:?}");
            drop(queued);
        }
        let last = bus.ask(&caller, perform(Act::Reply(2)));
        let opened = async {
            tokio::task::yield_now().await;
            watch.open();
        };
        assert_eq!(futures_util::future::join(last, opened).await.0, Ok(2));
        assert_eq!(first.await.unwrap(), Ok(1));
        assert_eq!(watch.order(), [1, 2]);
        runtime.stop(Duration::from_secs(1)).await;
    }
}

#[actix_rt::test]
async fn a_call_that_runs_when_its_caller_goes_away_runs_to_its_end() {
    let watch = Watch::default();
    let (_runtime, bus, _) = node(vec![sample(small(1, 1), &watch).build()]).await;
    let caller = Caller::anonymous();
    assert!(bus.ask(&caller, perform(Act::Wait(1))).now_or_never().is_none());
    assert_eq!(watch.running(), 1);
    let next = bus.ask(&caller, perform(Act::Reply(2)));
    let opened = async {
        until(|| {
            watch.open();
            watch.running() == 0
        })
        .await;
    };
    assert_eq!(futures_util::future::join(next, opened).await.0, Ok(2));
    assert_eq!(watch.order(), [1, 2]);
}

#[actix_rt::test]
async fn a_caller_that_is_not_polled_does_not_hold_its_call_up() {
    let watch = Watch::default();
    let (_runtime, bus, _) = node(vec![sample(small(1, 1), &watch).build()]).await;
    let caller = Caller::anonymous();
    let mut first = Box::pin(bus.ask(&caller, perform(Act::Wait(1))));
    let mut second = Box::pin(bus.ask(&caller, perform(Act::Reply(2))));
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    until(|| {
        watch.open();
        watch.order() == [1, 2]
    })
    .await;
    assert_eq!((first.await, second.await), (Ok(1), Ok(2)));
}

#[actix_rt::test]
async fn answers_that_are_there_at_once_leave_other_tasks_their_turn() {
    let watch = Watch::default();
    let (_runtime, bus, _) = node(vec![sample(Bulkhead::default(), &watch).build()]).await;
    let greedy = actix_rt::spawn(async move {
        loop {
            assert_eq!(bus.ask(&Caller::anonymous(), perform(Act::Refuse)).await.ok(), None);
        }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    greedy.abort();
}
