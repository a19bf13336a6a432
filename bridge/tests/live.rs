//! Live updates of one node, as readers on another see them.

use std::time::{Duration, Instant};

use callboard_supervisors::{Bulkhead, LiveError, LiveEvent, LiveStream};
use futures_util::StreamExt;
use serde_json::json;

use crate::{proxy::Proxy, stage::*};

#[actix_rt::test]
async fn a_reader_on_another_node_sees_what_is_published_and_resumes_there() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let (one, two, three) = (cluster.host(&watch).await, cluster.caller().await, cluster.caller().await);
    let mut reader = two.runtime.live().subscribe("logs:1", None);
    let mut other = three.runtime.live().subscribe("logs:1", None);
    // Until the other node listens, what it is told is lost to it.
    let mut last = 0;
    let first = loop {
        last = one.runtime.live().publish("logs:1", LiveEvent::new("log", json!({ "n": last })));
        let both = futures_util::future::join(reader.next(), other.next());
        if let Ok((event, _)) = tokio::time::timeout(Duration::from_millis(200), both).await {
            break event.unwrap().unwrap();
        }
    };
    assert_eq!(first.kind, "log");
    let ids: Vec<u64> =
        (0..200).map(|n| one.runtime.live().publish("logs:1", LiveEvent::new("log", json!({ "n": n })))).collect();
    let mut seen = Vec::new();
    while seen.len() < 200 {
        let event = reader.next().await.unwrap().unwrap();
        if event.id > last {
            seen.push(event.id);
        }
    }
    assert_eq!(seen, ids, "in order, with the ids they had");
    // The node the reader was at is gone: another one remembers the same.
    until("the third has heard it all", || {
        let mut resumed = three.runtime.live().subscribe("logs:1", Some(ids[100]));
        let mut count = 0;
        while let Some(Some(Ok(_))) = futures_util::FutureExt::now_or_never(resumed.next()) {
            count += 1;
        }
        count == 99
    })
    .await;
    let sent = one.metric("callboard_bridge_sent_total", "live");
    assert!(sent < 150.0, "{sent} messages for more than 200 updates");
}

#[actix_rt::test]
async fn whoever_publishes_does_not_wait_for_the_broker() {
    let cluster = Cluster::new();
    let proxy = Proxy::to(&url()).await;
    let node = cluster.caller_with(Bulkhead::default(), &proxy.url(&url())).await;
    proxy.swallow(true);
    let began = Instant::now();
    let words = "x".repeat(200_000);
    for _ in 0..200 {
        node.runtime.live().publish("logs:1", LiveEvent::new("log", json!(words)));
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(node.metric("callboard_bridge_dropped_total", "live") > 0.0);
    proxy.swallow(false);
}

const TOPIC: &str = "logs:1";

fn line(node: &Node, number: usize) -> u64 {
    node.runtime.live().publish(TOPIC, LiveEvent::new("log", json!(number)))
}

/// Publishes until the reader hears of it.
async fn until_heard(node: &Node, reader: &mut LiveStream) {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let id = line(node, 0);
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(200), reader.next()).await {
            if event.unwrap().id == id {
                return;
            }
        }
        assert!(Instant::now() < patience, "nothing is heard");
    }
}

/// What the reader is told until it is cut, which it must be.
async fn until_cut(reader: &mut LiveStream) -> Vec<u64> {
    let mut seen = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_secs(30), reader.next()).await.unwrap().unwrap() {
            Ok(event) => seen.push(event.id),
            Err(error) => {
                assert_eq!(error, LiveError::Interrupted);
                return seen;
            }
        }
    }
}

#[actix_rt::test]
async fn readers_of_a_node_that_lost_the_broker_are_cut_once_it_hears_again() {
    let (cluster, proxy) = (Cluster::new(), Proxy::to(&url()).await);
    let teller = cluster.caller().await;
    let hearer = cluster.caller_with(Bulkhead::default(), &proxy.url(&url())).await;
    let mut reader = hearer.runtime.live().subscribe(TOPIC, None);
    until_heard(&teller, &mut reader).await;
    proxy.refuse(true);
    proxy.cut();
    until("the connection is lost", || !hearer.bridge.is_connected()).await;
    let ids: Vec<u64> = (1..=10).map(|number| line(&teller, number)).collect();
    proxy.refuse(false);
    until_cut(&mut reader).await;
    // Whoever resumes knows that it must look elsewhere for what it did not see.
    let mut resumed = hearer.runtime.live().subscribe(TOPIC, Some(ids[0] - 1));
    assert_eq!(resumed.next().await, Some(Err(LiveError::Gap)));
    until_heard(&teller, &mut hearer.runtime.live().subscribe(TOPIC, None)).await;
}

#[actix_rt::test]
async fn a_node_that_could_not_tell_says_so_before_it_tells_anything_else() {
    let (cluster, proxy) = (Cluster::new(), Proxy::to(&url()).await);
    let hearer = cluster.caller().await;
    let teller = cluster.caller_with(Bulkhead::default(), &proxy.url(&url())).await;
    let mut reader = hearer.runtime.live().subscribe(TOPIC, None);
    until_heard(&teller, &mut reader).await;
    proxy.refuse(true);
    proxy.cut();
    let mut ids: Vec<u64> = (1..=10).map(|number| line(&teller, number)).collect();
    until("the connection is lost", || !teller.bridge.is_connected()).await;
    ids.extend((11..=20).map(|number| line(&teller, number)));
    proxy.refuse(false);
    let going_on = async {
        loop {
            ids.push(line(&teller, ids.len() + 1));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let seen = tokio::select! {
        seen = until_cut(&mut reader) => seen,
        () = going_on => Vec::new(),
    };
    assert!(ids.starts_with(&seen), "the reader was told {seen:?} of {ids:?}: some are missing before it was cut");
}

#[actix_rt::test]
async fn an_update_that_is_too_large_cuts_the_readers_of_its_topic_and_no_others() {
    let cluster = Cluster::new();
    let (hearer, teller) = (cluster.caller().await, cluster.caller().await);
    let live = hearer.runtime.live();
    let (mut reader, mut other) = (live.subscribe(TOPIC, None), live.subscribe("logs:2", None));
    until_heard(&teller, &mut reader).await;
    teller.runtime.live().publish(TOPIC, LiveEvent::new("log", json!("x".repeat(300 * 1024))));
    assert_eq!(until_cut(&mut reader).await, [0_u64; 0]);
    teller.runtime.live().publish("logs:2", LiveEvent::new("log", json!(1)));
    assert!(other.next().await.unwrap().is_ok());
}
