//! Operations of a domain that another node hosts.

use std::time::{Duration, Instant};

use callboard_messages::{Access, CallError, Caller, Code, Failure, Operation};
use callboard_supervisors::{Bulkhead, Domain, Handle, Outcome, breaker};
use futures_util::future::join_all;
use lapin::options::QueueDeclareOptions;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::fixture::*;

#[actix_rt::test]
async fn replies_and_refusals_cross_typed() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let (_host, asking) = (cluster.host(&watch).await, cluster.caller().await);
    asking.reach().await;
    assert_eq!(asking.ask(perform(Act::Reply(7))).await, Ok(7));
    let refused = asking.ask(perform(Act::Refuse("it rains".to_owned()))).await;
    assert_eq!(refused, Err(CallError::Refused(TestError::No { why: "it rains".to_owned() })));
    assert_eq!(refused.unwrap_err().code(), Code::Conflict);
}

#[actix_rt::test]
async fn the_host_authorizes_again_and_the_caller_is_who_it_was() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let (_host, asking) = (cluster.host(&watch).await, cluster.caller().await);
    asking.reach().await;
    let bus = asking.runtime.bus();
    assert_eq!(failed(bus.ask(&caller(), Guarded).await), Some(Failure::Forbidden("internal".into())));
    assert_eq!(bus.ask(&Caller::system(), Guarded).await, Ok(()));
    let transport = asking.bridge.transport();
    let request = callboard_supervisors::remote::Request {
        operation: "sample.guarded",
        domain: "sample",
        target: callboard_supervisors::remote::Target::Domain,
        idempotent: false,
        caller: caller(),
        deadline: Instant::now() + Duration::from_secs(10),
        body: "null".into(),
        traceparent: None,
        idempotency_key: None,
    };
    let answer = transport.call(request).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("forbidden"), "{answer:?}");
}

#[actix_rt::test]
async fn a_panic_fails_one_call_and_the_next_is_answered() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let (_host, asking) = (cluster.host(&watch).await, cluster.caller().await);
    asking.reach().await;
    let panicked = failed(asking.ask(perform(Act::Panic)).await);
    assert!(matches!(panicked, Some(Failure::Internal(cause)) if cause.contains("on purpose")));
    assert_eq!(asking.ask(perform(Act::Reply(2))).await, Ok(2));
}

#[actix_rt::test]
async fn the_deadline_holds_on_both_sides() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let (host, asking) = (cluster.host(&watch).await, cluster.caller().await);
    asking.reach().await;
    let name = Uuid::now_v7();
    let began = Instant::now();
    let late = failed(asking.ask_within(Duration::from_millis(300), perform(Act::Hang(name))).await);
    assert!(matches!(late, Some(Failure::Unknown | Failure::Timeout)), "{late:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    until("the host has given it up as well", || host.runtime.tree().in_flight == 0).await;
    assert_eq!(watch.count(name), 1);
}

#[actix_rt::test]
async fn what_waited_too_long_never_runs() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let one = Bulkhead { in_flight: 1, ..Bulkhead::default() };
    let (_host, asking) = (cluster.host_with(one, &url(), &watch).await, cluster.caller().await);
    asking.reach().await;
    let name = Uuid::now_v7();
    let busy = asking.ask(perform(Act::Sleep(1500)));
    let late = async {
        until("the first runs", || watch.calls() >= 2).await;
        let counts = (0..8).map(|_| asking.ask_within(Duration::from_millis(200), perform(Act::Count(name))));
        join_all(counts).await
    };
    let (slept, late) = futures_util::join!(busy, late);
    assert_eq!(slept, Ok(1500));
    assert!(late.into_iter().all(|outcome| outcome.is_err()));
    assert_eq!(asking.ask(perform(Act::Reply(1))).await, Ok(1));
    assert_eq!(watch.count(name), 0);
}

#[actix_rt::test]
async fn a_full_host_refuses_at_once_and_each_request_for_itself() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let narrow = Bulkhead { in_flight: 2, queue: 3, ..Bulkhead::default() };
    let (_host, asking) = (cluster.host_with(narrow, &url(), &watch).await, cluster.caller().await);
    asking.reach().await;
    // Ready together, so they travel in one message, and each has its own bounds.
    let outcomes = join_all((0..20).map(|_| asking.ask(perform(Act::Sleep(400))))).await;
    let done = outcomes.iter().filter(|outcome| **outcome == Ok(400)).count();
    let overloaded = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(CallError::Failed(Failure::Overloaded { retry_after })) if !retry_after.is_zero()))
        .count();
    assert_eq!((done, overloaded), (5, 15), "{outcomes:?}");
    let messages = asking.metric("callboard_bridge_sent_total", "requests");
    assert!(messages < 12.0, "{messages} messages for 20 requests");
}

#[actix_rt::test]
async fn a_batch_runs_no_more_calls_at_once_than_one_may() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let narrow = Bulkhead { in_flight: 3, ..Bulkhead::default() };
    let (host, asking) = (cluster.host_with(narrow, &url(), &watch).await, cluster.caller().await);
    asking.reach().await;
    let asked = async { join_all((0..30).map(|_| asking.ask(perform(Act::Sleep(20))))).await };
    let watched = async {
        let (mut most, patience) = (0, Instant::now() + Duration::from_secs(30));
        while watch.calls() < 31 {
            assert!(Instant::now() < patience, "{} calls", watch.calls());
            most = most.max(host.runtime.tree().in_flight);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        most
    };
    let (outcomes, most) = futures_util::join!(asked, watched);
    assert!(outcomes.iter().all(|outcome| *outcome == Ok(20)), "{outcomes:?}");
    assert!(most <= 3, "{most}");
}

#[actix_rt::test]
async fn a_breaker_opens_on_failures_of_the_host() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let mut quick = Bulkhead::default();
    quick.breaker = breaker::Settings { minimum_calls: 4, ..quick.breaker };
    // Whichever notices first that a deadline has passed: to the caller's breaker a host that answers so works, to its own it
    // does not.
    let _host = cluster.host_with(quick.clone(), &url(), &watch).await;
    let asking = cluster.caller_with(quick, &url()).await;
    asking.reach().await;
    for _ in 0..12 {
        let _ = asking.ask_within(Duration::from_millis(50), perform(Act::Hang(Uuid::nil()))).await;
    }
    let refused = failed(asking.ask(perform(Act::Reply(1))).await);
    assert!(matches!(refused, Some(Failure::Unavailable { .. })), "{refused:?}");
}

#[actix_rt::test]
async fn competing_hosts_carry_each_request_out_once() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let (first, second) = (cluster.host(&watch).await, cluster.host(&watch).await);
    let asking = cluster.caller().await;
    asking.reach().await;
    let (_connection, channel) = channel().await;
    let queue = format!("{}.operations.sample", cluster.prefix);
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let patience = Instant::now() + Duration::from_secs(30);
    while channel.queue_declare(queue.as_str().into(), passive, Default::default()).await.unwrap().consumer_count() < 2
    {
        assert!(Instant::now() < patience, "not both hosts take requests");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..10 {
        let names: Vec<Uuid> = (0..40).map(|_| Uuid::now_v7()).collect();
        let outcomes = join_all(names.iter().map(|name| asking.ask(perform(Act::Count(*name))))).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Ok(1)), "{outcomes:?}");
    }
    assert!(watch.counts().iter().all(|count| *count == 1));
    let shares = [&first, &second].map(|host| host.metric("callboard_bridge_received_total", "requests"));
    assert!(shares.iter().all(|share| *share > 0.0), "{shares:?}");
}

#[actix_rt::test]
async fn many_callers_are_all_answered() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let wide = Bulkhead { in_flight: 256, ..Bulkhead::default() };
    let host = cluster.host_with(wide.clone(), &url(), &watch).await;
    let asking = cluster.caller_with(wide, &url()).await;
    asking.reach().await;
    let callers = (0..128_u64).map(|caller| {
        let asking = &asking;
        async move {
            for number in 0..60 {
                let value = caller * 1000 + number;
                assert_eq!(asking.ask(perform(Act::Reply(value))).await, Ok(value));
            }
        }
    });
    join_all(callers).await;
    for node in [&host, &asking] {
        for reason in ["signature", "version", "oversized", "malformed", "duplicate", "unexpected"] {
            assert_eq!(node.refused(reason), 0.0, "{reason}");
        }
    }
}

#[actix_rt::test]
async fn one_node_is_asked_for_what_only_it_knows() {
    let cluster = Cluster::new();
    let (one, other) = (Watch::default(), Watch::default());
    let (first, second) = (cluster.host(&one).await, cluster.host(&other).await);
    first.reach_at(second.id()).await;
    let (here, there) = (Uuid::now_v7(), Uuid::now_v7());
    for count in 1..=4 {
        for (node, name) in [(first.id(), here), (second.id(), there)] {
            assert_eq!(first.runtime.bus().ask_at(node, &caller(), perform(Act::Count(name))).await, Ok(count));
        }
    }
    assert_eq!([&one, &other].map(|watch| [watch.count(here), watch.count(there)]), [[4, 0], [0, 4]]);
    let gone = failed(first.runtime.bus().ask_at(Uuid::now_v7(), &caller(), perform(Act::Reply(1))).await);
    assert!(matches!(gone, Some(Failure::Unavailable { .. })), "a node that is not there: {gone:?}");
}

#[actix_rt::test]
async fn nobody_there_is_found_out_before_the_deadline() {
    let cluster = Cluster::new();
    let asking = cluster.caller().await;
    let _ = asking.ask_within(Duration::from_millis(100), perform(Act::Reply(1))).await;
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let began = Instant::now();
        let outcome = failed(asking.ask_within(Duration::from_millis(500), perform(Act::Reply(1))).await);
        if matches!(outcome, Some(Failure::Unavailable { .. })) && began.elapsed() < Duration::from_millis(400) {
            break;
        }
        assert!(Instant::now() < patience, "{outcome:?}");
    }
    let watch = Watch::default();
    let _host = cluster.host(&watch).await;
    asking.reach().await;
}

#[actix_rt::test]
async fn large_messages_pass_and_too_large_ones_are_refused() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let (_host, asking) = (cluster.host(&watch).await, cluster.caller().await);
    asking.reach().await;
    let ballast = |length| Perform { act: Act::Reply(1), ballast: "x".repeat(length) };
    assert_eq!(asking.ask(ballast(3_000_000)).await, Ok(1));
    let too_large = failed(asking.ask(ballast(17_000_000)).await);
    assert!(matches!(too_large, Some(Failure::Internal(cause)) if cause.contains("too large")));
    let reply = asking.ask(perform(Act::Large(2_000_000))).await;
    assert!(matches!(reply, Err(CallError::Refused(TestError::No { why })) if why.len() == 2_000_000));
    let too_large = failed(asking.ask(perform(Act::Large(17_000_000))).await);
    assert!(matches!(too_large, Some(Failure::Internal(cause)) if cause.contains("too large")));
}

#[actix_rt::test]
async fn a_node_that_drains_finishes_what_it_has_and_takes_no_more() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let (first, asking) = (cluster.host(&watch).await, cluster.caller().await);
    asking.reach().await;
    let second = cluster.host(&watch).await;
    let held = Uuid::now_v7();
    let slow = join_all((0..8).map(|_| asking.ask(perform(Act::Hold(held)))));
    let drained = async {
        until("they run", || watch.count(held) == 8).await;
        let drained = first.bridge.drain(Duration::from_secs(10));
        futures_util::join!(drained, async { watch.let_go() }).0
    };
    let (outcomes, drained) = futures_util::join!(slow, drained);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert!(drained);
    first.stop().await;
    for _ in 0..10 {
        assert_eq!(asking.ask(perform(Act::Reply(3))).await, Ok(3));
    }
    second.stop().await;
}

#[actix_rt::test]
async fn the_tree_and_the_readiness_show_the_bridge() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let host = cluster.host(&watch).await;
    let tree = host.runtime.tree();
    let bridge = tree.children.iter().find(|domain| domain.name == "bridge").unwrap();
    let names: Vec<_> = bridge.children.iter().map(|child| child.name.as_ref()).collect();
    for name in ["shard 0", "connection", "replies", "live", "events", "dead letters"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let below: Vec<_> = bridge.children[0].children.iter().map(|child| child.name.as_ref()).collect();
    assert_eq!(below, ["sender", "requests"]);
    assert!(host.runtime.ready().iter().all(|domain| domain.ready));
}

mod newer {
    use super::*;

    /// `sample.perform` in a newer version: one more field, and one that may be missing.
    #[derive(Debug, Serialize, Deserialize)]
    pub struct Perform {
        pub act: Act,
        #[serde(default)]
        pub note: Option<String>,
    }

    impl Operation for Perform {
        const NAME: &'static str = "sample.perform";
        const ACCESS: Access = Access::Permission("sample:perform");
        type Reply = Performed;
        type Error = TestError;
    }

    /// The older version's reply is a number.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(transparent)]
    pub struct Performed(pub u64);

    pub struct TestDomain;

    impl Handle<Perform> for TestDomain {
        async fn handle(&self, _: &Caller, message: Perform) -> Outcome<Perform> {
            Ok(Performed(if message.note.is_some() { 2 } else { 1 }))
        }
    }

    pub fn contract() -> callboard_supervisors::Contract<TestDomain> {
        Domain::new("sample").answering().on::<Perform>()
    }
}

#[actix_rt::test]
async fn two_versions_understand_each_other() {
    let cluster = Cluster::new();
    {
        let settings = cluster.settings(&url());
        let _new_host =
            Node::start(settings, |_| vec![newer::contract().shared(|_| async { Ok(newer::TestDomain) }).build()])
                .await;
        let old = cluster.caller().await;
        old.reach().await;
        let ballast = "an unknown field to the newer one".to_owned();
        assert_eq!(old.ask(Perform { act: Act::Reply(9), ballast }).await, Ok(1));
        old.stop().await;
    }
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let _old_host = cluster.host(&watch).await;
    let new = Node::start(cluster.settings(&url()), |transport| vec![newer::contract().remote(transport)]).await;
    let asked = newer::Perform { act: Act::Reply(4), note: Some("an unknown field to the older one".to_owned()) };
    assert_eq!(new.ask(asked).await, Ok(newer::Performed(4)));
}
