//! A broker of the tests' own that is short of memory, closes connections, and is stopped and killed. Nothing of ours is
//! started again for it.

#[path = "../../bridge/tests/fixture.rs"]
#[expect(dead_code, reason = "the tests of the bridge use more of it")]
mod fixture;

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use callboard_messages::{CallError, Failure};
use callboard_supervisors::{Bulkhead, breaker};
use futures_util::future::{join, join_all, join3};
use lapin::{Channel, options::QueueDeclareOptions, types::FieldTable};
use serde_json::Value;
use uuid::Uuid;

use self::fixture::{Act, Cluster, TestError, Watch, failed, perform, until};
use crate::harness::{Api, Node, get, servers::RabbitMq, within};

/// Within this, everything works again.
const HEALED: Duration = Duration::from_secs(10);
/// What a busy machine needs beside a deadline.
const LATE: Duration = Duration::from_secs(2);

/// A breaker that does not judge: these tests make many calls fail.
fn patient() -> Bulkhead {
    let mut bulkhead = Bulkhead::default();
    bulkhead.breaker =
        breaker::Settings { minimum_calls: 10_000, window: breaker::Window::Count(10_000), ..bulkhead.breaker };
    bulkhead
}

fn is_blocked(node: &fixture::Node) -> bool {
    node.metric("callboard_bridge_blocked", "") == 1.0
}

/// Messages that wait in a queue for who takes them.
async fn waiting(channel: &Channel, queue: &str) -> u32 {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let told = channel.queue_declare(queue.into(), passive, FieldTable::default());
    told.await.unwrap().message_count()
}

#[actix_rt::test]
async fn a_broker_that_is_short_of_memory_holds_nobody_and_loses_nothing() {
    let broker = RabbitMq::start().await;
    let (mut cluster, watch) = (Cluster::at(&broker.url()), Watch::default());
    // The replies are large, but memory is short for longer than this.
    cluster.silence = Duration::from_secs(4);
    let queue = format!("{}.operations.sample", cluster.prefix);
    let (_connection, channel) = fixture::channel_at(&cluster.url).await;
    // It takes one request after the other.
    let host = cluster.host_with(Bulkhead { in_flight: 1, ..patient() }, &cluster.url, &watch).await;
    let asking = cluster.caller_with(patient(), &cluster.url).await;
    let [one, two, three] = [cluster.caller().await, cluster.caller().await, cluster.caller().await];
    asking.reach().await;

    // Requests that are there before memory is short, and whose replies are larger than what may wait to leave.
    let (patience, held, counted) = (Duration::from_secs(40), Uuid::now_v7(), Uuid::now_v7());
    let first = asking.ask_within(patience, perform(Act::Hold(held)));
    let in_line = async {
        within(HEALED, "the first is held", || async { (watch.count(held) == 1).then_some(()) }).await;
        let large = || perform(Act::Large(9_000_000));
        let behind = async |number: u32| {
            let queued = || async { (waiting(&channel, &queue).await == number).then_some(()) };
            within(HEALED, "it waits in its queue", queued).await;
        };
        let two_then_three = async {
            behind(1).await;
            let three = async {
                behind(2).await;
                three.ask_within(patience, perform(Act::Count(counted))).await
            };
            join(two.ask_within(patience, large()), three).await
        };
        join(one.ask_within(patience, large()), two_then_three).await
    };
    let shortage = async {
        within(HEALED, "all of them wait", || async { (waiting(&channel, &queue).await == 3).then_some(()) }).await;
        broker.run_short_of_memory().await;
        let began = Instant::now();
        while !is_blocked(&asking) {
            assert!(began.elapsed() < HEALED, "nobody tells that the broker takes nothing");
            let lost = failed(asking.ask_within(Duration::from_millis(200), perform(Act::Reply(1))).await);
            assert!(matches!(lost, Some(Failure::Unknown | Failure::Unavailable { .. })), "{lost:?}");
        }
        watch.let_go();
        within(HEALED, "the last of them reaches the host", || async {
            (is_blocked(&host) && waiting(&channel, &queue).await == 0).then_some(())
        })
        .await;
        let condition = asking.runtime.ready().into_iter().find(|domain| domain.domain == "sample").unwrap();
        assert!(condition.reason.as_ref().unwrap().contains("it takes no messages for now"), "{condition:?}");

        // Longer than the broker may be silent.
        let (refused, mut took) = (Uuid::now_v7(), Duration::MAX);
        while began.elapsed() < Duration::from_secs(5) || took > Duration::from_millis(200) {
            let asked = Instant::now();
            let lost = failed(asking.ask_within(Duration::from_secs(3), perform(Act::Count(refused))).await);
            took = asked.elapsed();
            assert!(matches!(lost, Some(Failure::Unavailable { .. })), "{lost:?}");
            assert!(took < Duration::from_secs(3) + LATE && began.elapsed() < 2 * HEALED, "it took {took:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(watch.count(counted), 0, "it was taken although replies can't leave");
        broker.have_memory().await;
        let relieved = Instant::now();
        asking.reach().await;
        assert!(relieved.elapsed() < HEALED, "after {:?}", relieved.elapsed());
        assert_eq!(watch.count(refused), 0, "what was refused was carried out");
    };
    let (first, (one_said, (two_said, three_said)), ()) = join3(first, in_line, shortage).await;
    let is_large = |said| matches!(said, Err(CallError::Refused(TestError::No { why })) if why.len() == 9_000_000);
    assert_eq!((first, three_said, watch.count(counted)), (Ok(1), Ok(1), 1));
    assert!(is_large(one_said) && is_large(two_said));
    until("it is told that the broker takes messages", || !is_blocked(&host) && !is_blocked(&asking)).await;
    for node in [&host, &asking, &one, &two, &three] {
        assert_eq!(node.metric("callboard_bridge_connections_total", ""), 1.0, "a connection was given up");
    }
}

/// What became of the calls of some callers that never rest.
#[derive(Default)]
struct Calls {
    ended: RefCell<Vec<(Uuid, Result<u64, Failure>)>>,
    done: Cell<usize>,
    over: Cell<bool>,
}

impl Calls {
    const WITHIN: Duration = Duration::from_secs(3);

    async fn make(&self, asking: &fixture::Node) {
        let one_after_another = async || {
            while !self.over.get() {
                let (name, began) = (Uuid::now_v7(), Instant::now());
                let outcome = asking.ask_within(Self::WITHIN, perform(Act::Count(name))).await;
                assert!(began.elapsed() < Self::WITHIN + LATE, "it took {:?}: {outcome:?}", began.elapsed());
                self.done.update(|done| done + usize::from(outcome.is_ok()));
                let outcome = outcome.map_err(|error| failed::<(), _>(Err(error)).unwrap());
                self.ended.borrow_mut().push((name, outcome));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        join_all((0..8).map(|_| one_after_another())).await;
    }

    /// Traffic flows: each caller has had an answer or two.
    async fn flow(&self, what: &str) {
        let (before, began) = (self.done.get(), Instant::now());
        until(what, || self.done.get() >= before + 16).await;
        assert!(began.elapsed() < HEALED, "{what}: after {:?}", began.elapsed());
    }
}

#[actix_rt::test]
async fn calls_flow_again_whatever_the_broker_does_and_none_is_carried_out_twice() {
    let mut broker = RabbitMq::start().await;
    let (cluster, watch) = (Cluster::at(&broker.url()), Watch::default());
    // These breakers do judge.
    let (host, asking) = (cluster.host(&watch).await, cluster.caller().await);
    asking.reach().await;
    let calls = Calls::default();
    let faults = async {
        calls.flow("before anything breaks").await;
        // Its reply leaves over another connection than the one by which it came.
        let held = Uuid::now_v7();
        let slow = asking.ask_within(Duration::from_secs(30), perform(Act::Hold(held)));
        let closed = async {
            until("it runs", || watch.count(held) == 1).await;
            broker.close_connections().await;
            calls.flow("the broker has closed the connections").await;
            watch.let_go();
        };
        assert_eq!(join(slow, closed).await.0, Ok(1));
        broker.stop().await;
        broker.start_again().await;
        calls.flow("the broker was stopped").await;
        broker.kill();
        broker.start_again().await;
        calls.flow("the broker was killed").await;
        calls.over.set(true);
    };
    join(calls.make(&asking), faults).await;

    for (name, outcome) in calls.ended.take() {
        let times = watch.count(name);
        assert!(times <= 1, "carried out {times} times: {outcome:?}");
        match outcome {
            Ok(count) => assert_eq!((count, times), (1, 1)),
            Err(failure) => assert!(times == 0 || !failure.is_certain(), "{failure:?} was carried out"),
        }
    }
    for node in [&host, &asking] {
        assert!(node.metric("callboard_bridge_connections_total", "") >= 4.0);
    }
    channels_do_not_pile_up(&broker, &asking).await;
    let consumers = broker.ctl(&["list_consumers", "--no-table-headers", "queue_name", "prefetch_count"]).await;
    let bound = format!("{}.operations.sample\t{}", cluster.prefix, Bulkhead::default().in_flight);
    assert!(consumers.lines().any(|line| line == bound), "{consumers}");
    assert!(!broker.log().contains("unknown delivery tag"), "a stale acknowledgement\n{}", broker.log());
}

/// The most channels that a connection of a node has.
async fn most_channels(broker: &RabbitMq) -> u32 {
    let told = broker.ctl(&["list_connections", "--no-table-headers", "channels"]).await;
    told.lines().filter_map(|line| line.trim().parse().ok()).max().unwrap_or_default()
}

/// A burst of events has a channel for each that waits for its confirm, and none of them stays.
async fn channels_do_not_pile_up(broker: &RabbitMq, node: &fixture::Node) {
    // What each actor of a node has for itself, and what looks who takes requests.
    const OF_ACTORS: u32 = 12;
    assert!(most_channels(broker).await <= OF_ACTORS, "after all that was broken");
    let events = node.bridge.events();
    let unheard = || {
        let event = serde_json::json!({
            "specversion": "1.0", "id": Uuid::now_v7(), "source": "sample", "type": "thing.unheard",
            "subject": Uuid::now_v7(), "time": "2026-11-21T09:00:00Z", "data": {},
        });
        serde_json::from_value(event).unwrap()
    };
    let published = join_all((0..200).map(|_| events.publish(unheard()))).await;
    assert!(published.iter().all(Result::is_err), "no queue takes them");
    let began = Instant::now();
    let mut most = most_channels(broker).await;
    assert!(most > OF_ACTORS, "{most}: it was no burst");
    while most > OF_ACTORS {
        assert!(began.elapsed() < HEALED, "{most} channels are left");
        most = most_channels(broker).await;
    }
}

/// The value of a metric on one of the nodes.
async fn metric(node: &Node, number: usize, name: &str) -> Option<f64> {
    let text = get(format!("http://127.0.0.1:{}/metrics", node.member(number).port)).await.ok()?;
    let text = text.text().await.ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test]
async fn nodes_say_that_their_broker_is_short_of_memory_and_keep_their_events_until_it_is_not() {
    let mut broker = RabbitMq::start().await;
    let node = Node::start_cluster_with(&["--no-sample"], &[("CALLBOARD_AMQP_URL", &broker.url())]).await;
    let owner = node.user("owner").await;
    let there = owner.create_project("there").await;
    let mut projects = Vec::new();
    for number in 0..4 {
        projects.push(owner.create_project(&format!("project-{number}")).await);
    }
    let path = format!("/projects/{there}");
    // The third node hosts everything, and needs nobody.
    let apart = Api::new(node.member(2).port, owner.token.clone());

    // A broker that has just begun may close a connection by a fault of its own.
    let before = [0, 1, 2].map(|number| node.member(number).log().len());
    broker.run_short_of_memory().await;
    // Nobody asks for anything meanwhile.
    within(HEALED, "the first node knows", || async {
        (metric(&node, 0, "callboard_bridge_blocked").await == Some(1.0)).then_some(())
    })
    .await;
    let asked = Instant::now();
    assert_eq!(owner.get(&path).await.refused(503)["code"], "unavailable");
    assert!(asked.elapsed() < HEALED, "it took {:?}", asked.elapsed());
    let ready = get(format!("http://127.0.0.1:{}/ready", node.port)).await.unwrap();
    let ready: Value = ready.json().await.unwrap();
    let project = ready["domains"].as_array().unwrap().iter().find(|domain| domain["domain"] == "project").unwrap();
    let reason = "RabbitMQ can't be used: it takes no messages for now, because it is short of memory or disk";
    assert_eq!((&project["reason"], &project["part"]), (&reason.into(), &"broker".into()), "{ready}");
    assert_eq!(ready["status"], "impaired", "{ready}");

    for project in &projects {
        let deleted = apart.delete(&format!("/projects/{project}")).await;
        assert!(deleted.status.is_success(), "{}", deleted.text);
    }
    let pending = async || {
        let query = "SELECT COUNT(*) FROM project.outbox WHERE type = 'project.deleted' AND published_at IS NULL";
        node.ground().count(query).await
    };
    within(HEALED, "an event is not published", || async { (pending().await > 0).then_some(()) }).await;

    broker.have_memory().await;
    let relieved = Instant::now();
    let answers = || async { owner.get(&path).await.status.is_success().then_some(()) };
    within(HEALED, "the first node is answered again", answers).await;
    within(HEALED.saturating_sub(relieved.elapsed()), "every event is applied", || async {
        let applied = "SELECT COUNT(*) FROM deploy.inbox WHERE type = 'project.deleted'";
        (node.ground().count(applied).await == 4 && pending().await == 0).then_some(())
    })
    .await;
    assert_eq!(node.ground().count("SELECT COUNT(*) FROM cluster.dead_letters").await, 0);
    for (number, before) in before.into_iter().enumerate() {
        let log = node.member(number).log().split_off(before);
        let lines = |what: &str| log.lines().filter(|line| line.contains(what) && line.contains("RabbitMQ")).count();
        assert_eq!([lines("is away"), lines("is back")], [1, 1], "one outage, one line each\n{log}");
    }

    broker.kill();
    within(HEALED, "the nodes notice", || async {
        (metric(&node, 0, "callboard_bridge_connected").await == Some(0.0)).then_some(())
    })
    .await;
    broker.start_again().await;
    within(HEALED, "traffic flows", answers).await;
    owner.create_project("later").await;
    node.finish().await;
}
