//! Dead letters, from the broker to the domain that keeps them and back: a client of the broker without the cluster's
//! key makes no event of anything.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use callboard_cluster::{ClusterMetrics, ClusterSettings};
use callboard_messages::{
    CallError, Caller, Limit, NodeId,
    cluster::{ClusterError, DeadLetter, GetDeadLetter, ListDeadLetters, NodeState, ReplayDeadLetter},
};
use callboard_platform::cluster::{Member, Members};
use chrono::DateTime;
use lapin::{
    BasicProperties,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldArray, FieldTable},
};
use uuid::Uuid;

use crate::{bad_input::*, fixture::*, store::Store, target::*};

/// A node that hosts the target, and keeps dead letters as every node does.
async fn keeping(cluster: &Cluster, store: &Store, applied: &Applied) -> Node {
    store.databases.migrate(callboard_cluster::DOMAIN, &callboard_cluster::MIGRATIONS).await.unwrap();
    let me = Member {
        id: NodeId::new(),
        name: "node".to_owned(),
        address: "http://127.0.0.1:1".to_owned(),
        domains: Vec::new(),
        version: "0.1.0".to_owned(),
        state: NodeState::Up,
        incarnation: 0,
        joined_at: DateTime::UNIX_EPOCH,
    };
    let (alone, metrics) = (ClusterSettings { watches: false, ..Default::default() }, ClusterMetrics::new().unwrap());
    let domain = {
        let (databases, members) = (store.databases.clone(), Members::alone(me));
        callboard_cluster::domain(alone, databases, members, callboard_cluster::Seat::new(), metrics, Vec::new())
    };
    reacting_with(cluster.settings(&url()), domain, store, applied).await
}

async fn letters(node: &Node) -> Vec<DeadLetter> {
    let message = ListDeadLetters { domain: None, limit: Limit::of(100), cursor: None };
    let listed = node.runtime.bus().ask(&Caller::system(), message).await.unwrap().items;
    let mut letters = Vec::new();
    for DeadLetter { id: dead_letter_id, .. } in listed {
        letters.push(node.runtime.bus().ask(&Caller::system(), GetDeadLetter { dead_letter_id }).await.unwrap());
    }
    letters
}

/// Waits until `count` letters are kept.
async fn kept(node: &Node, count: usize) -> Vec<DeadLetter> {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let letters = letters(node).await;
        if letters.len() >= count {
            assert_eq!(letters.len(), count, "{letters:?}");
            return letters;
        }
        assert!(Instant::now() < patience, "{count} dead letters, not {letters:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn replay(node: &Node, letter: &DeadLetter) -> Result<(), CallError<ClusterError>> {
    node.runtime.bus().ask(&Caller::system(), ReplayDeadLetter { dead_letter_id: letter.id }).await
}

/// Headers of a message that died in a queue, which anybody can write.
fn died_in(queue: &str, mut properties: BasicProperties) -> BasicProperties {
    let mut death = FieldTable::default();
    death.insert("queue".into(), AMQPValue::LongString(queue.into()));
    death.insert("reason".into(), AMQPValue::LongString("rejected".into()));
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert("x-death".into(), AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::FieldTable(death)])));
    properties = properties.with_headers(headers);
    properties
}

#[actix_rt::test]
async fn what_a_domain_refuses_is_kept_and_applied_by_a_replay_once_it_can_be() {
    let (cluster, store, applied) = (Cluster::new(), Store::new().await, Applied::default());
    let source = emitting(&cluster, &url()).await;
    let node = keeping(&cluster, &store, &applied).await;
    let aggregate = Uuid::now_v7();
    publish(&source, happened(aggregate, -1)).await;
    let refused = kept(&node, 1).await;
    assert_eq!((refused[0].domain.as_str(), refused[0].attempts), ("target", 5));
    // It still can't be applied, and is buried again.
    replay(&node, &refused[0]).await.unwrap();
    let again = kept(&node, 1).await;
    applied.takes_all.store(true, Ordering::SeqCst);
    replay(&node, &again[0]).await.unwrap();
    until("it is applied", || applied.done.lock().as_slice() == [(aggregate, -1)]).await;
    kept(&node, 0).await;
}

#[actix_rt::test]
async fn what_the_cluster_has_not_signed_is_made_no_event_by_a_replay() {
    let (cluster, store, applied) = (known(), Store::new().await, Applied::default());
    let source = emitting(&cluster, &url()).await;
    let node = keeping(&cluster, &store, &applied).await;
    publish(&source, happened(Uuid::now_v7(), 1)).await;
    until("its queue is there", || applied.done.lock().len() == 1).await;
    let (_connection, channel) = channel().await;
    let queue = format!("{}.events.target", cluster.prefix);
    let body = |number| serde_json::to_vec(&happened(Uuid::now_v7(), number)).unwrap();
    let forged = |body: &[u8]| Some(sign(b"another key of thirty-two bytes!", 4, "", body));
    let bodies = [2, 3, 4, 5].map(body);
    let of = [
        BasicProperties::default(),
        properties(version(1), forged(&bodies[1])),
        properties(version(9), Some(sign(KEY, 4, "", &bodies[2]))),
        properties(version(1), Some(sign(KEY, 1, "", &bodies[3]))),
    ];
    for (body, properties) in bodies.iter().zip(of) {
        put(&channel, &queue, body, properties).await;
    }
    let cut = &bodies[0][..40];
    put(&channel, &queue, cut, properties(version(1), Some(sign(KEY, 4, "", cut)))).await;
    put(&channel, &queue, &vec![b'['; 34 * 1024 * 1024], BasicProperties::default()).await;

    let letters = kept(&node, 6).await;
    for letter in &letters {
        assert!(letter.event.as_str().is_some_and(|text| text.len() <= 4096), "{letter:?}");
        assert_eq!((letter.domain.as_str(), letter.error.as_str()), ("target", "this was no event of the cluster"));
        let refused = replay(&node, letter).await.unwrap_err();
        let CallError::Refused(ClusterError::ReplayFailed(reason)) = refused else { panic!("{refused:?}") };
        assert!(reason.contains("it is no event"), "{reason}");
    }
    let reasons = ["signature", "version", "malformed", "oversized"].map(|reason| node.refused(reason));
    assert_eq!(reasons, [3.0, 1.0, 1.0, 1.0]);
    assert_eq!(applied.done.lock().len(), 1);
    publish(&source, happened(Uuid::now_v7(), 6)).await;
    until("the queue moves on", || applied.done.lock().len() == 2).await;
}

#[actix_rt::test]
async fn whatever_is_put_among_the_dead_letters_holds_none_of_them_up() {
    let (cluster, store, applied) = (known(), Store::new().await, Applied::default());
    let node = keeping(&cluster, &store, &applied).await;
    let source = emitting(&cluster, &url()).await;
    publish(&source, happened(Uuid::now_v7(), 1)).await;
    until("its queue is there", || applied.done.lock().len() == 1).await;
    let (_connection, channel) = channel().await;
    let dead = format!("{}.dead", cluster.prefix);
    let events_of = |domain: &str| format!("{}.events.{domain}", cluster.prefix);
    let unsigned = serde_json::to_vec(&happened(Uuid::now_v7(), 2)).unwrap();
    // More than an index of PostgreSQL takes.
    let long: String = (0..200).map(|_| Uuid::now_v7().simple().to_string()).collect();
    let crafted = [
        (b"garbage".to_vec(), BasicProperties::default()),
        (b"\0\xff{\"a\":\"\\u0000\"}".to_vec(), died_in(&events_of("target\0"), BasicProperties::default())),
        (unsigned.clone(), died_in(&events_of("target"), BasicProperties::default())),
        (unsigned.clone(), died_in(&events_of(&long), BasicProperties::default())),
        (vec![b'['; 34 * 1024 * 1024], died_in(&dead, BasicProperties::default())),
    ];
    for (body, properties) in crafted {
        put(&channel, &dead, &body, properties).await;
    }
    // One that looks like the event before.
    let genuine = serde_json::to_vec(&happened(Uuid::now_v7(), 3)).unwrap();
    put(&channel, &dead, &genuine, died_in(&events_of("target"), BasicProperties::default())).await;
    let signed = properties(version(1), Some(sign(KEY, 4, "", &genuine)));
    put(&channel, &dead, &genuine, died_in(&events_of("target"), signed)).await;

    let letters = kept(&node, 7).await;
    let domains: Vec<_> = letters.iter().rev().map(|letter| letter.domain.as_str()).collect();
    assert_eq!(domains, ["unknown", "unknown", "target", "unknown", "unknown", "target", "target"]);
    let (good, crafted) = letters.split_first().unwrap();
    assert!(crafted.iter().all(|letter| letter.event.is_string()), "{crafted:?}");
    replay(&node, good).await.unwrap();
    until("it is applied", || applied.done.lock().len() == 2).await;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let waiting = channel.queue_declare(dead.as_str().into(), passive, Default::default()).await.unwrap();
    assert_eq!(waiting.message_count(), 0);
}

#[actix_rt::test]
async fn an_event_that_is_older_than_its_subscribers_memory_is_applied_by_a_replay_alone() {
    let (cluster, store, applied) = (known(), Store::new().await, Applied::default());
    let source = emitting(&cluster, &url()).await;
    let node = keeping(&cluster, &store, &applied).await;
    let now = chrono::Utc::now();
    let aged = |number, days| {
        let event = Happened { to: Uuid::now_v7(), number };
        callboard_messages::CloudEvent::new("source", now - chrono::TimeDelta::days(days), &event).unwrap()
    };
    publish(&source, aged(1, 28)).await;
    until("one that is remembered is applied", || applied.done.lock().len() == 1).await;
    publish(&source, aged(2, 31)).await;
    let letter = kept(&node, 1).await.remove(0);
    assert_eq!(letter.error, "it is so old that nobody remembers whether it was applied");
    replay(&node, &letter).await.unwrap();
    until("it is applied", || applied.done.lock().len() == 2).await;

    // A replay by an operator, recorded long ago, or with another time written over it.
    let (_connection, channel) = channel().await;
    let queue = format!("{}.events.target", cluster.prefix);
    let body = serde_json::to_vec(&aged(3, 90)).unwrap();
    let again = |days| (now - chrono::TimeDelta::days(days)).to_rfc3339();
    for (told, signed) in [(again(31), again(31)), (again(0), again(31)), (again(0), String::new())] {
        let mut properties = properties(version(1), Some(sign(KEY, 4, &signed, &body)));
        let mut headers = properties.headers().clone().unwrap();
        headers.insert("again".into(), AMQPValue::LongString(told.into()));
        properties = properties.with_headers(headers);
        put(&channel, &queue, &body, properties).await;
    }
    until("all are refused", || node.refused("outdated") == 2.0 && node.refused("signature") == 2.0).await;
    assert_eq!(applied.done.lock().len(), 2);
}
