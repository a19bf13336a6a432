//! Operations with a key: one at a time, in order of arrival, whichever thread asks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use callboard_messages::Caller;
use futures_util::{FutureExt, future::join_all};
use uuid::Uuid;

use super::fixture::*;
use crate::{Bulkhead, Runtime};

#[actix_rt::test]
async fn calls_of_a_key_run_one_at_a_time_in_order() {
    for dedicated in [false, true] {
        let watch = Watch::default();
        let domain = if dedicated {
            dedicated_sample(Bulkhead::default(), 3, &watch)
        } else {
            sample(Bulkhead::default(), &watch)
        };
        let (runtime, bus, _) = node(vec![domain.build()]).await;
        let caller = Caller::anonymous();
        let key = Uuid::now_v7();
        let calls = join_all((0..50).map(|n| bus.ask(&caller, Keyed(Act::Wait(n), key))));
        let opened = async {
            for done in 0..50 {
                until(|| {
                    watch.open();
                    watch.order().len() > done
                })
                .await;
            }
        };
        let (outcomes, ()) = futures_util::future::join(calls, opened).await;
        assert_eq!(outcomes, (0..50).map(Ok).collect::<Vec<_>>());
        assert_eq!(watch.order(), (0..50).collect::<Vec<_>>());
        assert_eq!(watch.most(), 1);
        until(|| runtime.keys("sample") == 0).await;
        runtime.stop(Duration::from_secs(1)).await;
    }
}

#[actix_rt::test]
async fn different_keys_run_at_the_same_time() {
    let watch = Watch::default();
    let (_runtime, bus, _) = node(vec![sample(Bulkhead::default(), &watch).build()]).await;
    let caller = Caller::anonymous();
    let mut calls = join_all((0..10).map(|n| bus.ask(&caller, Keyed(Act::Wait(n), Uuid::now_v7()))));
    assert!((&mut calls).now_or_never().is_none());
    until(|| watch.running() == 10).await;
    watch.open();
    assert!(calls.await.iter().all(Result::is_ok));
}

#[actix_rt::test]
async fn a_keyed_call_that_fails_panics_or_whose_caller_leaves_lets_the_next_one_run() {
    let watch = Watch::default();
    let (runtime, bus, clock) = node(vec![sample(Bulkhead::default(), &watch).build()]).await;
    let caller = Caller::anonymous();
    let key = Uuid::now_v7();
    let mut first = Box::pin(bus.ask(&caller, Keyed(Act::Wait(1), key)));
    assert!(first.as_mut().now_or_never().is_none());
    let soon = caller.clone().with_deadline(clock.instant() + Duration::from_secs(1));
    let mut leaves = Box::pin(bus.ask(&caller, Keyed(Act::Reply(2), key)));
    let mut expires = Box::pin(bus.ask(&soon, Keyed(Act::Reply(3), key)));
    let mut fails = Box::pin(bus.ask(&caller, Keyed(Act::Fail, key)));
    let mut panics = Box::pin(bus.ask(&caller, Keyed(Act::PanicLater, key)));
    let mut last = Box::pin(bus.ask(&caller, Keyed(Act::Reply(6), key)));
    for call in [&mut leaves, &mut expires, &mut fails, &mut panics, &mut last] {
        assert!(call.as_mut().now_or_never().is_none());
    }
    drop(leaves);
    until(|| clock.sleepers() >= 1).await;
    clock.advance(Duration::from_secs(1));
    assert!(expires.await.is_err());
    until(|| {
        watch.open();
        watch.running() == 0
    })
    .await;
    assert_eq!(first.await, Ok(1));
    assert!(fails.await.is_err());
    assert!(panics.await.is_err());
    until(|| clock.sleepers() >= 1).await;
    clock.advance(Duration::from_millis(200));
    assert_eq!(last.await, Ok(6));
    assert_eq!(watch.order(), [1, 6]);
    until(|| runtime.keys("sample") == 0).await;
}

#[test]
fn a_key_stays_with_its_shard_while_workers_come_and_callers_are_on_every_thread() {
    let watch = Watch::default();
    let clock = manual();
    let domain = sample(Bulkhead { queue: 10_000, ..Bulkhead::default() }, &watch).build();
    let runtime = Runtime::builder().clock(clock).workers(4).build(vec![domain]).unwrap();
    let keys: Arc<Vec<Uuid>> = Arc::new((0..3).map(|_| Uuid::now_v7()).collect());
    let (finished, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let (runtime, keys) = (runtime.clone(), keys.clone());
            let (finished, answered) = (finished.clone(), answered.clone());
            std::thread::spawn(move || {
                actix_rt::System::new().block_on(async move {
                    runtime.attach().await;
                    let caller = Caller::anonymous();
                    for round in 0..200 {
                        let key = keys[(round + worker) % 3];
                        // The handler asserts that no other call with its key runs.
                        let asked = (0..4).map(|n| runtime.bus().ask(&caller, Keyed(Act::Yield(n), key)));
                        let outcomes = join_all(asked).await;
                        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
                        answered.fetch_add(4, Ordering::SeqCst);
                    }
                    finished.fetch_add(1, Ordering::SeqCst);
                    until(|| finished.load(Ordering::SeqCst) == 4).await;
                });
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!((answered.load(Ordering::SeqCst), runtime.keys("sample")), (3200, 0));
}
