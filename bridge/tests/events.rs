//! Events of one node, as the domains of others apply them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use callboard_messages::{
    CallError, Caller, CloudEvent, Event,
    cluster::{Bury, DeadLetter},
};
use callboard_supervisors::{
    Bulkhead, Contract, Domain, Handle, Outcome, StartError,
    db::{Database, Transaction},
    events::{Inapplicable, Occurred, PublishError, React, Stored},
};
use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, QueueDeclareOptions},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{proxy::Proxy, stage::*, store::Store};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Happened {
    to: Uuid,
    number: i64,
}

impl Event for Happened {
    const NAME: &'static str = "thing.happened";
    fn aggregate(&self) -> Uuid {
        self.to
    }
}

/// What was applied, and the number that is not while it is held.
#[derive(Clone, Default)]
struct Applied(Arc<Mutex<Vec<(Uuid, i64)>>>, Arc<Mutex<Option<i64>>>);

struct Target {
    database: Database,
    applied: Applied,
}

impl Stored for Target {
    fn database(&self) -> &Database {
        &self.database
    }
}

impl React<Happened> for Target {
    async fn react(&self, _: &mut Transaction, event: &Occurred<Happened>) -> Result<(), CallError<Inapplicable>> {
        if event.event.number < 0 {
            return Err(Inapplicable("negative".to_owned()).into());
        }
        while *self.applied.1.lock() == Some(event.event.number) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.applied.0.lock().push((event.event.to, event.event.number));
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Graves(Arc<Mutex<Vec<DeadLetter>>>);

impl Handle<Bury> for Graves {
    async fn handle(&self, _: &Caller, message: Bury) -> Outcome<Bury> {
        let mut letters = self.0.lock();
        if letters.iter().all(|letter| letter.id != message.letter.id) {
            letters.push(message.letter);
        }
        Ok(())
    }
}

fn target() -> Contract<Target> {
    Domain::new("target", Bulkhead::default()).answering().reacts_to::<Happened>()
}

/// A node that hosts the target.
async fn reacting(cluster: &Cluster, url: &str, store: &Store, applied: &Applied, graves: &Graves) -> Node {
    let (databases, applied, graves) = (store.databases.clone(), applied.clone(), graves.clone());
    Node::start(cluster.settings(url), move |_| {
        let opened = databases.clone();
        let target = target().shared(move |_| {
            let (opened, applied) = (opened.clone(), applied.clone());
            async move { Ok(Target { database: opened.open("target").await?, applied }) }
        });
        let cluster = Domain::new("cluster", Bulkhead::default()).answering().on::<Bury>().shared(move |_| {
            let graves = graves.clone();
            async move { Ok::<_, StartError>(graves) }
        });
        vec![cluster.build(), target.stored(&databases).build()]
    })
    .await
}

/// A node that knows the target, and does not host it.
async fn emitting(cluster: &Cluster, url: &str) -> Node {
    Node::start(cluster.settings(url), |transport| vec![target().remote(transport)]).await
}

fn happened(to: Uuid, number: i64) -> CloudEvent {
    CloudEvent::new("source", chrono::DateTime::UNIX_EPOCH, &Happened { to, number }).unwrap()
}

/// As the relay does: until it is confirmed.
async fn publish(node: &Node, event: CloudEvent) {
    let patience = Instant::now() + Duration::from_secs(60);
    while let Err(error) = node.bridge.events().publish(event.clone()).await {
        assert!(Instant::now() < patience, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[actix_rt::test]
async fn events_are_applied_once_and_in_order_whatever_breaks() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let (to_source, to_target) = (Proxy::to(&url()).await, Proxy::to(&url()).await);
    let source = emitting(&cluster, &to_source.url(&url())).await;
    let _first = reacting(&cluster, &to_target.url(&url()), &store, &applied, &graves).await;
    let aggregates: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
    for number in 0..30 {
        for aggregate in &aggregates {
            let event = happened(*aggregate, number);
            publish(&source, event.clone()).await;
            if number % 10 == 9 {
                // Confirmed, and published once more, as after a crash of the relay.
                publish(&source, event).await;
            }
        }
        match number {
            8 => to_target.cut(),
            16 => to_source.cut(),
            24 => (to_source.cut(), to_target.cut()).0,
            _ => {}
        }
    }
    until("all are applied", || applied.0.lock().len() >= 90).await;
    for aggregate in aggregates {
        let numbers: Vec<i64> =
            applied.0.lock().iter().filter(|(to, _)| *to == aggregate).map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..30).collect::<Vec<_>>());
    }
    assert!(graves.0.lock().is_empty());
}

#[actix_rt::test]
async fn another_node_takes_over_the_events_of_a_domain() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let source = emitting(&cluster, &url()).await;
    let first = reacting(&cluster, &url(), &store, &applied, &graves).await;
    let second = reacting(&cluster, &url(), &store, &applied, &graves).await;
    let aggregate = Uuid::now_v7();
    publish(&source, happened(aggregate, 0)).await;
    until("the first is applied", || applied.0.lock().len() == 1).await;
    assert!(first.bridge.drain(Duration::from_secs(10)).await);
    first.stop().await;
    publish(&source, happened(aggregate, 1)).await;
    until("the second is applied", || applied.0.lock().len() == 2).await;
    second.stop().await;
}

#[actix_rt::test]
async fn a_node_that_drains_leaves_the_events_of_an_aggregate_in_order() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let source = emitting(&cluster, &url()).await;
    let first = reacting(&cluster, &url(), &store, &applied, &graves).await;
    let aggregate = Uuid::now_v7();
    publish(&source, happened(aggregate, 0)).await;
    until("the first is applied", || applied.0.lock().len() == 1).await;
    let second = reacting(&cluster, &url(), &store, &applied, &graves).await;
    *applied.1.lock() = Some(1);
    for number in 1..=3 {
        publish(&source, happened(aggregate, number)).await;
    }
    until("they are taken", || first.metric("callboard_bridge_received_total", "event") >= 4.0).await;
    assert!(first.bridge.drain(Duration::from_secs(10)).await);
    for number in 4..=6 {
        publish(&source, happened(aggregate, number)).await;
    }
    *applied.1.lock() = None;
    until("all are applied", || applied.0.lock().len() == 7).await;
    let numbers: Vec<i64> = applied.0.lock().iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, (0..=6).collect::<Vec<_>>());
    assert_eq!(second.metric("callboard_bridge_received_total", "event"), 5.0, "what was not begun was handed over");
}

#[actix_rt::test]
async fn the_exchange_of_events_that_was_deleted_comes_back() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let source = emitting(&cluster, &url()).await;
    let _target = reacting(&cluster, &url(), &store, &applied, &graves).await;
    publish(&source, happened(Uuid::now_v7(), 1)).await;
    let (_connection, channel) = channel().await;
    let events = format!("{}.events", cluster.prefix);
    channel.exchange_delete(events.as_str().into(), Default::default()).await.unwrap();
    // 404: the channel that sends there is closed by it.
    let lost = source.bridge.events().publish(happened(Uuid::now_v7(), 2)).await;
    assert!(matches!(lost, Err(PublishError::Unconfirmed(_))), "{lost:?}");
    publish(&source, happened(Uuid::now_v7(), 3)).await;
    until("both are applied", || applied.0.lock().len() == 2).await;
    assert_eq!(source.metric("callboard_bridge_connections_total", ""), 1.0, "only channels were lost");
}

#[actix_rt::test]
async fn poison_is_buried_and_what_follows_is_applied() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let source = emitting(&cluster, &url()).await;
    let _target = reacting(&cluster, &url(), &store, &applied, &graves).await;
    let aggregate = Uuid::now_v7();
    for number in [1, -1, 2] {
        publish(&source, happened(aggregate, number)).await;
    }
    until("the last is applied", || applied.0.lock().len() == 2).await;
    let letters = graves.0.lock().clone();
    assert_eq!((letters.len(), letters[0].domain.as_str(), letters[0].attempts), (1, "target", 5));
    assert_eq!(letters[0].event["data"]["number"], -1);
}

#[actix_rt::test]
async fn what_is_no_event_of_the_cluster_becomes_a_dead_letter() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let source = emitting(&cluster, &url()).await;
    let target = reacting(&cluster, &url(), &store, &applied, &graves).await;
    publish(&source, happened(Uuid::now_v7(), 1)).await;
    let (_connection, channel) = channel().await;
    let queue = format!("{}.events.target", cluster.prefix);
    let unsigned = serde_json::to_vec(&happened(Uuid::now_v7(), 2)).unwrap();
    for body in [b"garbage".to_vec(), unsigned] {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish("".into(), queue.as_str().into(), options, &body, properties).await.unwrap();
    }
    until("both are buried", || graves.0.lock().len() == 2).await;
    publish(&source, happened(Uuid::now_v7(), 3)).await;
    until("the queue moves on", || applied.0.lock().len() == 2).await;
    assert_eq!(target.refused("signature"), 2.0);
    let letters = graves.0.lock().clone();
    assert!(letters.iter().all(|letter| letter.domain == "target"), "{letters:?}");
    assert!(letters.iter().any(|letter| letter.event == "garbage"));
    let dead = format!("{}.dead", cluster.prefix);
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let dead = channel.queue_declare(dead.as_str().into(), passive, Default::default()).await.unwrap();
    assert_eq!(dead.message_count(), 0);
}

#[actix_rt::test]
async fn an_event_that_no_queue_takes_is_not_confirmed_until_one_does() {
    let cluster = Cluster::new();
    let source = emitting(&cluster, &url()).await;
    publish(&source, happened(Uuid::now_v7(), 1)).await;
    let (_connection, channel) = channel().await;
    let (queue, exchange) = (format!("{}.events.target", cluster.prefix), format!("{}.events", cluster.prefix));
    let unbind = channel.queue_unbind(
        queue.as_str().into(),
        exchange.as_str().into(),
        "thing.happened".into(),
        Default::default(),
    );
    unbind.await.unwrap();
    let lost = source.bridge.events().publish(happened(Uuid::now_v7(), 2)).await;
    assert!(matches!(lost, Err(PublishError::Unroutable(_))), "{lost:?}");
    assert!(source.metric("callboard_bridge_unroutable_total", "") >= 1.0);
    publish(&source, happened(Uuid::now_v7(), 3)).await;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let waiting = channel.queue_declare(queue.as_str().into(), passive, Default::default()).await.unwrap();
    assert_eq!(waiting.message_count(), 2, "they wait for whoever hosts the domain");
}

#[actix_rt::test]
async fn a_confirm_is_not_waited_for_for_ever() {
    let cluster = Cluster::new();
    let proxy = Proxy::to(&url()).await;
    let source = emitting(&cluster, &proxy.url(&url())).await;
    publish(&source, happened(Uuid::now_v7(), 1)).await;
    proxy.swallow(true);
    let began = Instant::now();
    let lost = source.bridge.events().publish(happened(Uuid::now_v7(), 2)).await;
    assert!(matches!(lost, Err(PublishError::Unconfirmed(_))), "{lost:?}");
    assert!(began.elapsed() < Duration::from_secs(20));
    proxy.swallow(false);
    publish(&source, happened(Uuid::now_v7(), 3)).await;
}

#[actix_rt::test]
async fn a_dead_letter_goes_back_to_its_domain_alone() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let source = emitting(&cluster, &url()).await;
    let _target = reacting(&cluster, &url(), &store, &applied, &graves).await;
    publish(&source, happened(Uuid::now_v7(), 1)).await;
    source.bridge.events().redeliver("target", happened(Uuid::now_v7(), 2)).await.unwrap();
    until("both are applied", || applied.0.lock().len() == 2).await;
    let nobody = source.bridge.events().redeliver("nobody", happened(Uuid::now_v7(), 3)).await;
    assert!(matches!(nobody, Err(PublishError::Unroutable(_))), "{nobody:?}");
}
