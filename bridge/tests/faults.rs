//! Faults between nodes, none of which needs manual repair.

use std::time::{Duration, Instant};

use callboard_bridge::{Bridge, BridgeError, ClusterKey};
use callboard_messages::{Failure, Secret};
use callboard_platform::cluster::{Member, Members, NodeId, NodeState};
use callboard_supervisors::{Bulkhead, breaker};
use futures_util::future::join_all;
use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
};
use tokio::{io::AsyncReadExt, net::TcpListener};
use uuid::Uuid;

use crate::{fixture::*, proxy::Proxy};

/// A breaker that never opens: these tests make many calls fail.
fn patient() -> Bulkhead {
    let mut bulkhead = Bulkhead::default();
    bulkhead.breaker =
        breaker::Settings { minimum_calls: 10_000, window: breaker::Window::Count(10_000), ..bulkhead.breaker };
    bulkhead
}

#[actix_rt::test]
async fn a_connection_that_was_cut_is_made_again_on_either_side() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let (to_host, to_caller) = (Proxy::to(&url()).await, Proxy::to(&url()).await);
    let host = cluster.host_with(patient(), &to_host.url(&url()), &watch).await;
    let asking = cluster.caller_with(patient(), &to_caller.url(&url())).await;
    asking.reach().await;
    for proxy in [&to_host, &to_caller, &to_host] {
        proxy.cut();
        asking.reach().await;
    }
    assert!(host.metric("callboard_bridge_connections_total", "") >= 3.0);
    until("nothing of the old connections is left", || to_host.connections() == 2 && to_caller.connections() == 2)
        .await;
}

#[actix_rt::test]
async fn a_broker_that_says_nothing_is_given_up_with_its_sockets() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("amqp://guest:guest@{}/%2f", silent.local_addr().unwrap());
    let mut settings = Cluster::new().settings(&url);
    settings.connect_within = Duration::from_millis(200);
    assert!(!Bridge::start(settings).await.unwrap().is_connected());
    for _ in 0..2 {
        let (mut socket, _) = silent.accept().await.unwrap();
        let mut greeting = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut greeting)).await;
        assert!(read.is_ok(), "it is held open");
    }
}

#[actix_rt::test]
async fn a_broker_that_cannot_be_used_is_not_tried_all_the_time() {
    let cluster = Cluster::new();
    let proxy = Proxy::to(&url()).await;
    let asking = cluster.caller_with(patient(), &proxy.url(&url())).await;
    let (_connection, channel) = channel().await;
    let operations = format!("{}.operations", cluster.prefix);
    channel.exchange_delete(operations.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    // 406: it can't be declared with other arguments.
    let other = channel.exchange_declare(
        operations.as_str().into(),
        ExchangeKind::Fanout,
        ExchangeDeclareOptions::default(),
        Default::default(),
    );
    other.await.unwrap();
    let (before, began) = (proxy.accepted(), Instant::now());
    proxy.cut();
    // Two sockets each.
    until("it was tried six times", || proxy.accepted() >= before + 12).await;
    assert!(began.elapsed() >= Duration::from_millis(1200), "within {:?}", began.elapsed());
    channel.exchange_delete(operations.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    let watch = Watch::default();
    let _host = cluster.host(&watch).await;
    asking.reach().await;
}

#[actix_rt::test]
async fn a_breaker_that_opened_while_the_broker_was_away_keeps_nobody_waiting_when_it_is_back() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let proxy = Proxy::to(&url()).await;
    let mut hasty = Bulkhead::default();
    let open_for = Duration::from_secs(60);
    hasty.breaker = breaker::Settings { minimum_calls: 4, open_for, ..hasty.breaker };
    let (_host, asking) = (cluster.host(&watch).await, cluster.caller_with(hasty, &proxy.url(&url())).await);
    asking.reach().await;
    proxy.refuse(true);
    proxy.cut();
    let is_open = || asking.runtime.tree().children.iter().any(|domain| domain.breaker == Some("open"));
    let patience = Instant::now() + Duration::from_secs(20);
    while !is_open() {
        let lost = asking.ask_within(Duration::from_millis(200), perform(Act::Reply(1))).await;
        assert!(failed(lost).is_some() && Instant::now() < patience);
    }
    proxy.refuse(false);
    let back = Instant::now();
    asking.reach().await;
    assert!(back.elapsed() < Duration::from_secs(10), "after {:?}", back.elapsed());
}

/// A node that hosts the sample domain, as the cluster knows it.
fn member(node: &Node, state: NodeState, incarnation: i64) -> Member {
    Member {
        id: NodeId(node.id()),
        name: "host".to_owned(),
        address: "http://127.0.0.1:1".to_owned(),
        domains: vec!["sample".to_owned()],
        version: "0.1.0".to_owned(),
        state,
        incarnation,
        joined_at: Default::default(),
    }
}

#[actix_rt::test]
async fn what_a_frozen_host_has_is_given_up_when_it_is_declared_gone_and_asked_of_another() {
    let (cluster, watch, lost) = (Cluster::new(), Watch::default(), Watch::default());
    let proxy = Proxy::to(&url()).await;
    let settings = || {
        let mut settings = cluster.settings(&url());
        // The broker does not miss the node during the test.
        settings.silence = Duration::from_secs(30);
        settings
    };
    let mut behind = settings();
    behind.url = Secret::new(proxy.url(&url()));
    let frozen = cluster.host_by(behind, Bulkhead::default(), &lost).await;
    let living = cluster.host_by(settings(), Bulkhead::default(), &watch).await;
    let me = Member { id: NodeId::new(), domains: Vec::new(), ..member(&living, NodeState::Up, 1) };
    let members = Members::alone(me.clone());
    members.publish(1, vec![me.clone(), member(&frozen, NodeState::Up, 1), member(&living, NodeState::Up, 1)]);
    let asking = cluster.caller_among(&members).await;
    asking.reach_at(frozen.id()).await;
    asking.reach_at(living.id()).await;
    proxy.swallow(true);
    let before = watch.calls();

    // The broker gives half of them to the frozen one.
    let (began, to_it) = (Instant::now(), Uuid::now_v7());
    let repeatable = join_all((0..8).map(async |turn| {
        // Each in a message of its own.
        tokio::time::sleep(Duration::from_millis(20 * turn)).await;
        asking.ask(Repeat(Act::Reply(7))).await
    }));
    let caller = caller();
    let of_it_alone = asking.runtime.bus().ask_at(frozen.id(), &caller, perform(Act::Count(to_it)));
    let declaring = async {
        until("the living one has answered its half", || watch.calls() >= before + 4).await;
        members.publish(1, vec![me, member(&frozen, NodeState::Gone, 2), member(&living, NodeState::Up, 1)]);
    };
    let (repeatable, of_it_alone, ()) = futures_util::join!(repeatable, of_it_alone, declaring);
    assert!(repeatable.iter().all(|outcome| *outcome == Ok(7)), "{repeatable:?}");
    assert_eq!(failed(of_it_alone), Some(Failure::Unknown), "it may have been carried out");
    // From now on the frozen one gets no requests.
    for number in 0..8 {
        assert_eq!(asking.ask(perform(Act::Reply(number))).await, Ok(number));
    }
    assert!(began.elapsed() < Duration::from_secs(8), "before the deadline of any: after {:?}", began.elapsed());
    assert_eq!(lost.count(to_it), 0);
}

#[actix_rt::test]
async fn what_may_not_be_done_twice_is_given_up_when_the_only_host_is_declared_gone() {
    let (cluster, lost) = (Cluster::new(), Watch::default());
    let proxy = Proxy::to(&url()).await;
    let mut behind = cluster.settings(&proxy.url(&url()));
    // The broker does not miss the node during the test.
    behind.silence = Duration::from_secs(30);
    let frozen = cluster.host_by(behind, Bulkhead { in_flight: 1, ..Bulkhead::default() }, &lost).await;
    let me = Member { id: NodeId::new(), domains: Vec::new(), ..member(&frozen, NodeState::Up, 1) };
    let members = Members::alone(me.clone());
    members.publish(1, vec![me.clone(), member(&frozen, NodeState::Up, 1)]);
    let asking = cluster.caller_among(&members).await;
    asking.reach().await;
    proxy.swallow(true);

    // The first was sent to it, and the others wait in the queue until it has answered.
    let (began, counted) = (Instant::now(), Uuid::now_v7());
    let asked = join_all((0..3).map(async |turn| {
        tokio::time::sleep(Duration::from_millis(50 * turn)).await;
        asking.ask(perform(Act::Count(counted))).await
    }));
    let declaring = async {
        let (_connection, channel) = channel_at(&cluster.url).await;
        let queue = format!("{}.operations.sample", cluster.prefix);
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let patience = Instant::now() + Duration::from_secs(5);
        while channel.queue_declare(queue.as_str().into(), passive, Default::default()).await.unwrap().message_count()
            < 2
        {
            assert!(Instant::now() < patience, "they do not wait in the queue");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        members.publish(1, vec![me, member(&frozen, NodeState::Gone, 2)]);
    };
    let (asked, ()) = futures_util::join!(asked, declaring);
    for outcome in asked {
        assert_eq!(failed(outcome), Some(Failure::Unknown), "it may have been carried out");
    }
    assert!(began.elapsed() < Duration::from_secs(8), "before the deadline of any: after {:?}", began.elapsed());
    assert_eq!(lost.count(counted), 0);
}

#[actix_rt::test]
async fn a_short_cut_is_waited_out() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let proxy = Proxy::to(&url()).await;
    let (_host, asking) = (cluster.host(&watch).await, cluster.caller_with(patient(), &proxy.url(&url())).await);
    asking.reach().await;
    proxy.cut();
    until("the cut was noticed", || !asking.bridge.is_connected()).await;
    assert_eq!(asking.ask(perform(Act::Reply(8))).await, Ok(8));
}

#[actix_rt::test]
async fn while_the_broker_is_away_calls_fail_soon_and_then_go_on() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let proxy = Proxy::to(&url()).await;
    let (_host, asking) = (cluster.host(&watch).await, cluster.caller_with(patient(), &proxy.url(&url())).await);
    asking.reach().await;
    proxy.refuse(true);
    proxy.cut();
    until("the node knows", || !asking.bridge.is_connected()).await;
    let sample = |node: &Node| node.runtime.ready().into_iter().find(|domain| domain.domain == "sample").unwrap();
    assert_eq!(sample(&asking).reason.as_deref(), Some("RabbitMQ can't be reached"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    let failure = failed(asking.ask(perform(Act::Reply(1))).await);
    assert!(matches!(failure, Some(Failure::Unavailable { .. })), "{failure:?}");
    assert!(began.elapsed() < Duration::from_secs(2));
    proxy.refuse(false);
    asking.reach().await;
    assert!(sample(&asking).ready);
}

#[actix_rt::test]
async fn a_black_hole_is_noticed_and_left() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let proxy = Proxy::to(&url()).await;
    let (_host, asking) = (cluster.host(&watch).await, cluster.caller_with(patient(), &proxy.url(&url())).await);
    asking.reach().await;
    proxy.swallow(true);
    let failure = failed(asking.ask_within(Duration::from_secs(1), perform(Act::Reply(1))).await);
    assert!(matches!(failure, Some(Failure::Unknown | Failure::Timeout)), "{failure:?}");
    until("the silence was noticed", || !asking.bridge.is_connected()).await;
    proxy.swallow(false);
    asking.reach().await;
}

#[actix_rt::test]
async fn a_host_that_is_lost_before_its_reply_leaves_an_unknown_outcome() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let proxy = Proxy::to(&url()).await;
    let first = cluster.host_with(patient(), &proxy.url(&url()), &watch).await;
    let asking = cluster.caller_with(patient(), &url()).await;
    asking.reach().await;
    let name = Uuid::now_v7();
    let began = Instant::now();
    let asked = asking.ask(perform(Act::Hang(name)));
    let lost = async {
        until("it runs", || watch.count(name) == 1).await;
        let second = cluster.host(&watch).await;
        proxy.refuse(true);
        proxy.cut();
        second
    };
    let (outcome, _second) = futures_util::join!(asked, lost);
    assert_eq!(failed(outcome), Some(Failure::Unknown));
    assert!(began.elapsed() < Duration::from_secs(9), "told by who is left, not by the deadline");
    assert_eq!(watch.count(name), 1, "not carried out again");
    drop(first);
}

#[actix_rt::test]
async fn what_may_be_done_twice_is_done_by_who_is_left() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let proxy = Proxy::to(&url()).await;
    let first = cluster.host_with(patient(), &proxy.url(&url()), &watch).await;
    let asking = cluster.caller_with(patient(), &url()).await;
    asking.reach().await;
    let asked = asking.ask(Repeat(Act::Sleep(1500)));
    let lost = async {
        until("it runs", || watch.calls() >= 2).await;
        let second = cluster.host(&watch).await;
        proxy.refuse(true);
        proxy.cut();
        second
    };
    let (outcome, _second) = futures_util::join!(asked, lost);
    assert_eq!(outcome, Ok(1500));
    drop(first);
}

#[actix_rt::test]
async fn what_may_be_done_twice_is_asked_again_when_its_connection_is_lost() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let proxy = Proxy::to(&url()).await;
    let (_host, asking) = (cluster.host(&watch).await, cluster.caller_with(patient(), &proxy.url(&url())).await);
    asking.reach().await;
    let sent = || asking.metric("callboard_bridge_sent_total", "requests");
    let (before, began) = (sent(), Instant::now());
    proxy.swallow(true);
    let lost = async {
        until("it is sent", || sent() > before).await;
        proxy.cut();
        proxy.swallow(false);
    };
    let (outcome, ()) = futures_util::join!(asking.ask(Repeat(Act::Reply(3))), lost);
    assert_eq!(outcome, Ok(3));
    assert!(began.elapsed() < Duration::from_secs(9), "not by the deadline");
}

#[actix_rt::test]
async fn queues_and_exchanges_that_were_deleted_come_back() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let (host, asking) =
        (cluster.host_with(patient(), &url(), &watch).await, cluster.caller_with(patient(), &url()).await);
    asking.reach().await;
    let (_connection, channel) = channel().await;
    let queues = ["operations.sample".to_owned(), format!("replies.{}", asking.id()), format!("live.{}", host.id())];
    for queue in queues {
        let queue = format!("{}.{queue}", cluster.prefix);
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        asking.reach().await;
    }
    let operations = format!("{}.operations", cluster.prefix);
    channel.exchange_delete(operations.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    // 404: closes the channel.
    let _ = asking.ask_within(Duration::from_millis(200), perform(Act::Reply(1))).await;
    asking.reach().await;
    assert_eq!(asking.metric("callboard_bridge_connections_total", ""), 1.0, "only channels were lost");
}

#[actix_rt::test]
async fn a_queue_that_is_another_keeps_only_its_own_actor_waiting() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let (_connection, channel) = channel().await;
    // 406: it can't be declared with other arguments.
    let queue = format!("{}.operations.sample", cluster.prefix);
    let other = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.as_str().into(), other, Default::default()).await.unwrap();
    let (host, asking) =
        (cluster.host_with(patient(), &url(), &watch).await, cluster.caller_with(patient(), &url()).await);
    until("it has begun anew", || host.metric("callboard_bridge_channels_total", "requests") >= 2.0).await;
    assert_eq!(host.metric("callboard_bridge_connections_total", ""), 1.0);
    channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    asking.reach().await;
}

#[actix_rt::test]
async fn a_slow_network_is_only_slow() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let proxy = Proxy::to(&url()).await;
    let (_host, asking) = (cluster.host(&watch).await, cluster.caller_with(patient(), &proxy.url(&url())).await);
    asking.reach().await;
    proxy.delay(Duration::from_millis(150));
    let outcomes = join_all((0..50).map(|number| asking.ask(perform(Act::Reply(number))))).await;
    assert!(outcomes.into_iter().zip(0..).all(|(outcome, number)| outcome == Ok(number)));
    assert_eq!(asking.metric("callboard_bridge_connections_total", ""), 1.0);
}

#[actix_rt::test]
async fn connections_closed_again_and_again_lose_and_double_nothing() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let (to_host, to_caller) = (Proxy::to(&url()).await, Proxy::to(&url()).await);
    let _host = cluster.host_with(patient(), &to_host.url(&url()), &watch).await;
    let asking = cluster.caller_with(patient(), &to_caller.url(&url())).await;
    asking.reach().await;
    let mut done = Vec::new();
    for round in 0..12 {
        let names: Vec<Uuid> = (0..40).map(|_| Uuid::now_v7()).collect();
        let asked =
            join_all(names.iter().map(|name| asking.ask_within(Duration::from_secs(2), perform(Act::Count(*name)))));
        let cut = async {
            tokio::time::sleep(Duration::from_millis(round % 4)).await;
            if round % 2 == 0 { to_host.cut() } else { to_caller.cut() }
        };
        let (outcomes, ()) = futures_util::join!(asked, cut);
        done.extend(names.into_iter().zip(outcomes));
    }
    asking.reach().await;
    for (name, outcome) in done {
        let times = watch.count(name);
        assert!(times <= 1, "carried out {times} times: {outcome:?}");
        match outcome {
            Ok(count) => assert_eq!((count, times), (1, 1)),
            Err(error) => {
                let failure = failed::<(), _>(Err(error)).unwrap();
                assert!(times == 0 || !failure.is_certain(), "{failure:?} was carried out");
            }
        }
    }
    until("no call is waited for any more", || asking.runtime.tree().in_flight == 0).await;
}

#[actix_rt::test]
async fn settings_that_cannot_be_and_brokers_that_refuse_are_named_without_the_password() {
    let cluster = Cluster::new();
    let mut settings = cluster.settings("http://guest:hush@localhost");
    settings.prefix = "no spaces please".to_owned();
    settings.calls = 0;
    let Err(BridgeError::Invalid(wrong)) = Bridge::start(settings).await else { panic!("it started") };
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(!wrong.join(" ").contains("hush"), "{wrong:?}");

    let uri: lapin::uri::AMQPUri = url().parse().unwrap();
    let place = format!("{}:{}", uri.authority.host, uri.authority.port);
    let stranger = format!("amqp://callboard-stranger:hush@{place}/%2f");
    for url in [stranger, url().replace("%2f", "no-such-host")] {
        let mut settings = cluster.settings("amqp://localhost");
        settings.url = Secret::new(url.clone());
        let outcome = Bridge::start(settings).await;
        let Err(BridgeError::Refused(reason)) = outcome else { panic!("it started at {url}") };
        assert!(!reason.contains("hush"), "{reason}");
    }
    let nobody = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let away = Bridge::start(cluster.settings(&format!("amqp://guest:guest@{nobody}/%2f"))).await.unwrap();
    assert!(!away.is_connected());
    assert!(ClusterKey::new("short").is_err());
}
