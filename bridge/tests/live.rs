//! Live updates of one node, read on another.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use callboard_supervisors::{Bulkhead, LiveError, LiveEvent, LiveStream};
use futures_util::StreamExt;
use serde_json::json;
use uuid::Uuid;

use crate::{bad_input::*, fixture::*, proxy::Proxy};

#[actix_rt::test]
async fn a_reader_on_another_node_sees_what_is_published_and_resumes_there() {
    let (cluster, watch) = (Cluster::new(), Watch::default());
    let (one, two, three) = (cluster.host(&watch).await, cluster.caller().await, cluster.caller().await);
    let _other = heard_by(&one, &three, TOPIC).await;
    let mut reader = heard_by(&one, &two, TOPIC).await;
    let last = line(&one, 0);
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
    // The reader's node is gone: another has the same history.
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

/// A reader of a topic on one node, once it receives what another publishes there.
async fn heard_by(teller: &Node, hearer: &Node, topic: &str) -> LiveStream {
    let patience = Instant::now() + Duration::from_secs(30);
    let mut reader = hearer.runtime.live().subscribe(topic, None);
    loop {
        assert!(Instant::now() < patience, "nothing is heard");
        let id = teller.runtime.live().publish(topic, LiveEvent::new("log", json!(0)));
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(200), reader.next()).await {
            match event {
                Ok(event) if event.id == id => return reader,
                Ok(_) => {}
                // The node begins to listen.
                Err(_) => reader = hearer.runtime.live().subscribe(topic, None),
            }
        }
    }
}

/// What the reader gets until it is cut, which it must be.
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
    let mut reader = heard_by(&teller, &hearer, TOPIC).await;
    proxy.refuse(true);
    proxy.cut();
    until("the connection is lost", || !hearer.bridge.is_connected()).await;
    let ids: Vec<u64> = (1..=10).map(|number| line(&teller, number)).collect();
    proxy.refuse(false);
    until_cut(&mut reader).await;
    // A reader that resumes learns that there is a gap.
    let mut resumed = hearer.runtime.live().subscribe(TOPIC, Some(ids[0] - 1));
    assert_eq!(resumed.next().await, Some(Err(LiveError::Gap)));
    heard_by(&teller, &hearer, TOPIC).await;
}

#[actix_rt::test]
async fn a_node_that_could_not_tell_says_so_before_it_tells_anything_else() {
    let (cluster, proxy) = (Cluster::new(), Proxy::to(&url()).await);
    let hearer = cluster.caller().await;
    let teller = cluster.caller_with(Bulkhead::default(), &proxy.url(&url())).await;
    let mut reader = heard_by(&teller, &hearer, TOPIC).await;
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
    let mut reader = heard_by(&teller, &hearer, TOPIC).await;
    let mut other = hearer.runtime.live().subscribe("logs:2", None);
    teller.runtime.live().publish(TOPIC, LiveEvent::new("log", json!("x".repeat(300 * 1024))));
    assert_eq!(until_cut(&mut reader).await, [0_u64; 0]);
    teller.runtime.live().publish("logs:2", LiveEvent::new("log", json!(1)));
    assert!(other.next().await.unwrap().is_ok());
}

#[actix_rt::test]
async fn who_reads_before_its_node_hears_the_others_is_cut_once_it_does() {
    let (cluster, proxy) = (Cluster::new(), Proxy::to(&url()).await);
    let teller = cluster.caller().await;
    proxy.refuse(true);
    let settings = cluster.settings(&proxy.url(&url()));
    let hearer = Node::begin(settings, |transport| vec![contract(Bulkhead::default()).remote(transport)]).await;
    let mut reader = hearer.runtime.live().subscribe(TOPIC, None);
    let missed = line(&teller, 1);
    proxy.refuse(false);
    let seen = until_cut(&mut reader).await;
    assert!(!seen.contains(&missed), "it was told of what its node can't have heard");
}

/// An update of an unknown node, with or without a number.
fn update(node: Uuid, message: u64, number: Option<u64>) -> Vec<u8> {
    let mut body = node.as_bytes().to_vec();
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    for word in [message, 1, 1, at] {
        body.extend_from_slice(&u64::to_be_bytes(word));
    }
    let event = serde_json::to_vec(&LiveEvent { id: message, ..LiveEvent::new("log", json!(message)) }).unwrap();
    let number = number.map(|number| (format!("\0number:{number:016x}"), Vec::new()));
    for (topic, event) in number.into_iter().chain([("logs:of strangers".to_owned(), event)]) {
        body.extend_from_slice(&((2 + topic.len() + event.len()) as u32).to_be_bytes());
        body.extend_from_slice(&(topic.len() as u16).to_be_bytes());
        body.extend_from_slice(topic.as_bytes());
        body.extend_from_slice(&event);
    }
    body
}

#[actix_rt::test]
async fn an_update_that_is_missing_on_the_way_cuts_every_reader() {
    let cluster = known();
    let (teller, hearer) = (cluster.caller().await, cluster.caller().await);
    let mut reader = heard_by(&teller, &hearer, TOPIC).await;
    let mut strangers = hearer.runtime.live().subscribe("logs:of strangers", None);
    let (_connection, channel) = channel().await;
    let (queue, node) = (format!("{}.live.{}", cluster.prefix, hearer.id()), Uuid::now_v7());
    // The second is of an older version; the fifth is missing.
    for (message, number) in [(1, Some(3)), (2, None), (3, Some(4)), (4, Some(6)), (5, Some(7))] {
        let body = update(node, message, number);
        put(&channel, &queue, &body, properties(version(1), Some(sign(KEY, 3, "", &body)))).await;
    }
    assert_eq!(until_cut(&mut strangers).await, [1, 2, 3]);
    assert_eq!(until_cut(&mut reader).await, [0_u64; 0]);
    let mut resumed = heard_by(&teller, &hearer, TOPIC).await;
    let id = line(&teller, 1);
    assert_eq!(resumed.next().await.unwrap().unwrap().id, id, "the others' numbers are their own");
}

#[actix_rt::test]
async fn nobody_is_cut_whatever_publishes_at_the_same_time() {
    let cluster = Cluster::new();
    let (teller, hearer) = (cluster.caller().await, cluster.caller().await);
    let mut reader = heard_by(&teller, &hearer, TOPIC).await;
    let publishing: Vec<_> = (0..4)
        .map(|thread| {
            let live = teller.runtime.live().clone();
            std::thread::spawn(move || {
                for number in 0..100 {
                    live.publish(TOPIC, LiveEvent::new("log", json!([thread, number])));
                    live.publish(&format!("logs:{thread}"), LiveEvent::new("log", json!(number)));
                }
            })
        })
        .collect();
    for number in 0..100 {
        line(&teller, number);
        tokio::task::yield_now().await;
    }
    for count in 0..500 {
        let event = tokio::time::timeout(Duration::from_secs(30), reader.next()).await.unwrap().unwrap();
        assert!(event.is_ok(), "cut after {count}: {event:?}");
    }
    publishing.into_iter().for_each(|thread| thread.join().unwrap());
}
