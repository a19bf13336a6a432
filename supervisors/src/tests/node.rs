//! A node as a whole: configuration, stop, heartbeat, tree and metrics.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use callboard_messages::{CallError, Caller, Failure, Operation};
use parking_lot::Mutex;
use prometheus::{Encoder, TextEncoder};
use uuid::Uuid;

use super::fixture::*;
use crate::{Backoff, BlockingPool, Bulkhead, ChildSpec, Domain, Exit, Intensity, Runtime, blocking::fs, breaker};

fn refusals(domains: Vec<Domain>) -> Vec<String> {
    Runtime::builder().clock(manual()).workers(1).build(domains).err().unwrap_or_default()
}

#[actix_rt::test]
async fn configurations_that_cannot_be_are_refused_each_with_its_sentence() {
    let watch = Watch::default();
    let base = Bulkhead::default;
    let bulkheads = [
        (Bulkhead { queue: 0, ..base() }, "queue must hold at least 1"),
        (Bulkhead { queue: 1_000_001, ..base() }, "queue must hold at most"),
        (Bulkhead { in_flight: 0, ..base() }, "in_flight must be at least 1"),
        (Bulkhead { in_flight: 100_001, ..base() }, "in_flight must be at most"),
        (Bulkhead { heartbeat: Duration::from_millis(9), ..base() }, "heartbeat must be"),
        (
            Bulkhead { intensity: Intensity { within: Duration::ZERO, ..Default::default() }, ..base() },
            "within must be",
        ),
        (
            Bulkhead { backoff: Backoff { at_most: Duration::from_millis(1), ..Default::default() }, ..base() },
            "at_most must not be shorter than first",
        ),
        (Bulkhead { backoff: Backoff { factor: 0.9, ..Default::default() }, ..base() }, "factor must be"),
        (Bulkhead { backoff: Backoff { jitter: 1.0, ..Default::default() }, ..base() }, "jitter must be"),
        (
            Bulkhead { breaker: breaker::Settings { probes: 0, ..Default::default() }, ..base() },
            "probes must be at least 1",
        ),
    ];
    for (bulkhead, says) in bulkheads {
        let wrong = refusals(vec![sample(bulkhead, &watch).build()]);
        assert_eq!(wrong.len(), 1, "{says}: {wrong:?}");
        assert!(wrong[0].contains(says) && wrong[0].contains("sample"), "{wrong:?}");
    }
    let child = || ChildSpec::new("twin", |_| async { Exit::Normal });
    let domains = [
        (vec![sample(base(), &watch).build(), sample(base(), &watch).build()], "two domains are named sample"),
        (vec![dedicated_sample(base(), 0, &watch).build()], "at least one thread"),
        (vec![contract(base()).on::<Perform>().shared(factory(&watch)).build()], "sample.perform is answered twice"),
        (
            vec![contract(base()).on::<Elsewhere>().shared(factory(&watch)).build()],
            "elsewhere.perform is not named sample.<verb>",
        ),
        (vec![sample(base(), &watch).child(child()).child(child()).build()], "two children are named twin"),
    ];
    for (domains, says) in domains {
        let wrong = refusals(domains);
        assert!(wrong.len() == 1 && wrong[0].contains(says), "{says}: {wrong:?}");
    }
    let none = Runtime::builder().workers(0).build(Vec::new()).err().unwrap();
    assert!(none[0].contains("workers"));
    // All of them at once.
    let both = Bulkhead { queue: 0, in_flight: 0, ..base() };
    assert_eq!(refusals(vec![sample(both, &watch).build()]).len(), 2);
}

#[test]
fn dedicated_domains_need_an_actix_system() {
    let wrong = refusals(vec![dedicated_sample(Bulkhead::default(), 1, &Watch::default()).build()]);
    assert!(wrong[0].contains("actix system"), "{wrong:?}");
}

#[actix_rt::test]
async fn a_thread_may_not_wait_for_a_disk_while_it_runs_shards() {
    let file = std::env::current_exe().unwrap();
    let is_refused = || std::panic::catch_unwind(|| fs::is_file(&file)).is_err();
    assert!(!is_refused());
    let (node, ..) = node(vec![sample(Bulkhead::default(), &Watch::default()).build()]).await;
    assert!(is_refused());
    let looked = file.clone();
    assert_eq!(BlockingPool::new("test", 1, 1).run(None, move || fs::is_file(looked)).await, Ok(true));
    node.stop(Duration::from_secs(1)).await;
    assert!(!is_refused());
}

#[actix_rt::test]
async fn attaching_twice_on_a_thread_starts_one_shard() {
    let watch = Watch::default();
    let (runtime, _, _) = node(vec![sample(Bulkhead::default(), &watch).build()]).await;
    runtime.attach().await;
    assert_eq!(watch.builds(), 1);
    assert_eq!(runtime.tree().children[0].children.len(), 1);
}

#[actix_rt::test]
async fn stop_lets_running_and_waiting_calls_end_and_refuses_new_ones() {
    let watch = Watch::default();
    let bulkhead = Bulkhead { in_flight: 1, ..Bulkhead::default() };
    let (runtime, bus, _) = node(vec![sample(bulkhead, &watch).build()]).await;
    let ask = |act| {
        let bus = bus.clone();
        actix_rt::spawn(async move { bus.ask(&Caller::anonymous(), perform(act)).await })
    };
    let running = ask(Act::Wait(1));
    until(|| watch.running() == 1).await;
    let waiting = ask(Act::Reply(2));
    until(|| runtime.tree().queue_depth == 1).await;
    let stop = actix_rt::spawn({
        let runtime = runtime.clone();
        async move { runtime.stop(Duration::from_secs(5)).await }
    });
    until(|| runtime.tree().children[0].state == "stopping").await;
    let refused = bus.ask(&Caller::anonymous(), perform(Act::Reply(3))).await;
    assert!(matches!(refused, Err(CallError::Failed(Failure::Unavailable { .. }))));
    until(|| {
        watch.open();
        running.is_finished()
    })
    .await;
    assert_eq!((running.await.unwrap(), waiting.await.unwrap()), (Ok(1), Ok(2)));
    stop.await.unwrap();
    assert_eq!(watch.holders(), 2, "the test and the factory: the state is gone");
}

#[actix_rt::test]
async fn stop_drops_what_does_not_end_by_the_deadline() {
    let watch = Watch::default();
    let (runtime, bus, clock) = node(vec![sample(Bulkhead::default(), &watch).build()]).await;
    let hanging = actix_rt::spawn(async move { bus.ask(&Caller::anonymous(), perform(Act::Never)).await });
    until(|| watch.running() == 1).await;
    let stop = actix_rt::spawn({
        let runtime = runtime.clone();
        async move { runtime.stop(Duration::from_secs(5)).await }
    });
    until(|| clock.sleepers() >= 3).await;
    clock.advance(Duration::from_millis(4900));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!stop.is_finished());
    clock.advance(Duration::from_millis(100));
    stop.await.unwrap();
    assert_eq!(hanging.await.unwrap(), Err(CallError::Failed(Failure::Timeout)));
    assert_eq!((watch.running(), watch.holders()), (0, 2));
}

#[actix_rt::test]
async fn callers_on_other_threads_are_answered_when_a_shard_stops() {
    let watch = Watch::default();
    let bulkhead = Bulkhead { in_flight: 1, ..Bulkhead::default() };
    let (runtime, bus, _) = node(vec![dedicated_sample(bulkhead, 1, &watch).build()]).await;
    let ask = |act| {
        let bus = bus.clone();
        actix_rt::spawn(async move { bus.ask(&Caller::anonymous(), perform(act)).await })
    };
    let running = ask(Act::Never);
    until(|| watch.running() == 1).await;
    let waiting = ask(Act::Reply(1));
    until(|| runtime.tree().queue_depth == 1).await;
    runtime.stop(Duration::ZERO).await;
    assert_eq!(running.await.unwrap(), Err(CallError::Failed(Failure::Timeout)));
    let waiting = waiting.await.unwrap();
    assert!(matches!(waiting, Err(CallError::Failed(Failure::Unavailable { .. }))), "{waiting:?}");
    assert_eq!((runtime.tree().queue_depth, runtime.tree().in_flight, watch.running()), (0, 0, 0));
}

#[actix_rt::test]
async fn domains_stop_in_reverse_order_children_before_state() {
    let order: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let child = |name: &'static str| {
        let order = order.clone();
        ChildSpec::new(name, move |context| {
            let order = order.clone();
            async move {
                context.stopping().await;
                order.lock().push(name);
                Exit::Shutdown
            }
        })
    };
    struct Noted(Arc<Mutex<Vec<&'static str>>>, &'static str);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.lock().push(self.1);
        }
    }
    let domain = |name: &'static str, state: &'static str, children: [ChildSpec; 2]| {
        let order = order.clone();
        let [first, second] = children;
        Domain::new(name)
            .answering()
            .shared(move |_| {
                let noted = Noted(order.clone(), state);
                async move { Ok(noted) }
            })
            .child(first)
            .child(second)
            .build()
    };
    let (runtime, _, _) = node(vec![
        domain("one", "state of one", [child("one a"), child("one b")]),
        domain("two", "state of two", [child("two a"), child("two b")]),
    ])
    .await;
    runtime.stop(Duration::from_secs(1)).await;
    assert_eq!(*order.lock(), ["two b", "two a", "state of two", "one b", "one a", "state of one"]);
}

#[actix_rt::test]
async fn a_child_that_crashes_for_ever_exhausts_its_domain() {
    let watch = Watch::default();
    let crashing = ChildSpec::new("crashing", |_| async { Exit::Abnormal("broken".to_owned()) });
    let domain = sample(Bulkhead::default(), &watch).child(crashing).build();
    let (runtime, bus, clock) = node(vec![domain, elsewhere(&watch)]).await;
    until(|| {
        clock.advance(Duration::from_millis(100));
        !runtime.ready()[0].ready
    })
    .await;
    assert!(runtime.ready()[0].reason.as_ref().unwrap().contains("crashing"));
    assert!(bus.ask(&Caller::anonymous(), perform(Act::Reply(1))).await.is_err());
    assert_eq!(bus.ask(&Caller::anonymous(), Elsewhere(Act::Reply(1), Uuid::nil())).await, Ok(1));
}

#[actix_rt::test]
async fn a_shard_whose_thread_is_blocked_is_found_and_passed_over() {
    static RELEASE: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);
    let watch = Watch::default();
    let bulkhead = Bulkhead { heartbeat: Duration::from_millis(40), ..Bulkhead::default() };
    let (release, held) = mpsc::channel();
    *RELEASE.lock() = Some(held);
    watch.on_block(|| {
        let held = RELEASE.lock().take();
        held.map(|held| held.recv());
    });
    let (runtime, bus, clock) = node(vec![dedicated_sample(bulkhead, 2, &watch).build()]).await;
    let blocked = actix_rt::spawn({
        let bus = bus.clone();
        async move { bus.ask(&Caller::anonymous(), perform(Act::Block)).await }
    });
    until(|| runtime.tree().children[0].state == "blocked").await;
    assert_eq!(runtime.ready()[0].reason.as_deref(), Some("a thread of sample is blocked"));
    for n in 0..20 {
        assert_eq!(bus.ask(&Caller::anonymous(), perform(Act::Reply(n))).await, Ok(n));
    }
    // The blocked thread can't notice the deadline; the caller's own thread does.
    until(|| clock.sleepers() >= 1).await;
    clock.advance(Duration::from_secs(11));
    assert_eq!(blocked.await.unwrap(), Err(CallError::Failed(Failure::Timeout)));
    release.send(()).unwrap();
    until(|| runtime.ready()[0].ready).await;
    runtime.stop(Duration::from_secs(1)).await;
}

#[actix_rt::test]
async fn metrics_and_tree_show_every_bound() {
    let watch = Watch::default();
    let bulkhead = Bulkhead { queue: 7, in_flight: 3, ..Bulkhead::default() };
    let pool = BlockingPool::new("paper", 1, 2);
    let (runtime, bus, clock) = node(vec![sample(bulkhead, &watch).pool(&pool).build()]).await;
    let caller = Caller::anonymous();
    for act in [Act::Reply(1), Act::Reply(2), Act::Refuse, Act::Fail] {
        let _ = bus.ask(&caller, perform(act)).await;
    }
    let late = caller.clone().with_deadline(clock.instant());
    let _ = bus.ask(&late, perform(Act::Reply(1))).await;
    let mut text = Vec::new();
    TextEncoder::new().encode(&runtime.metrics().gather(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let name = Perform::NAME;
    for line in [
        &format!(r#"callboard_operation_calls_total{{domain="sample",operation="{name}",outcome="ok"}} 2"#) as &str,
        &format!(r#"callboard_operation_calls_total{{domain="sample",operation="{name}",outcome="refused"}} 1"#),
        &format!(r#"callboard_operation_calls_total{{domain="sample",operation="{name}",outcome="unavailable"}} 1"#),
        &format!(r#"callboard_operation_duration_seconds_count{{domain="sample",operation="{name}"}} 4"#),
        &format!(r#"callboard_operation_duration_seconds_bucket{{domain="sample",operation="{name}",le="+Inf"}} 4"#),
        r#"callboard_shard_queue_depth{domain="sample",shard="0"} 0"#,
        r#"callboard_shard_queue_limit{domain="sample",shard="0"} 7"#,
        r#"callboard_shard_in_flight{domain="sample",shard="0"} 0"#,
        r#"callboard_shard_in_flight_limit{domain="sample",shard="0"} 3"#,
        r#"callboard_shard_restarts_total{domain="sample",shard="0"} 0"#,
        r#"callboard_shard_breaker_state{domain="sample",shard="0"} 0"#,
        r#"callboard_shard_blocked{domain="sample",shard="0"} 0"#,
        r#"callboard_shard_rejections_total{domain="sample",shard="0",reason="expired"} 1"#,
        r#"callboard_shard_rejections_total{domain="sample",shard="0",reason="queue_full"} 0"#,
        r#"callboard_domain_up{domain="sample"} 1"#,
        r#"callboard_blocking_queue_limit{pool="paper"} 2"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let tree = serde_json::to_value(runtime.tree()).unwrap();
    assert_eq!(tree["children"][0]["name"], "sample");
    assert_eq!(tree["children"][0]["children"][0]["kind"], "shard");
    assert_eq!(tree["children"][0]["limit"], 3);
}
