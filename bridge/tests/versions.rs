//! Nodes of two versions on one broker, and events that no version can apply.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use callboard_messages::{
    CallError, Caller, CloudEvent, Event,
    cluster::{Bury, DeadLetter},
};
use callboard_supervisors::{
    Contract, Domain, Handle, Outcome, StartError,
    db::{Database, Transaction},
    events::{Inapplicable, Occurred, PublishError, React, Stored},
};
use futures_util::StreamExt;
use lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{fixture::*, store::Store};

/// Both versions react to this.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Moved(Uuid);

/// Only the newer one reacts to this.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Painted(Uuid);

/// No version reacts to this.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Weighed(Uuid);

macro_rules! events {
    ($($event:ident($name:literal)),*) => {
        $(impl Event for $event {
            const NAME: &'static str = $name;
            fn aggregate(&self) -> Uuid {
                self.0
            }
        })*
    };
}

events!(Moved("thing.moved"), Painted("thing.painted"), Weighed("thing.weighed"));

type Applied = Arc<Mutex<Vec<&'static str>>>;

struct Target {
    database: Database,
    applied: Applied,
}

impl Stored for Target {
    fn database(&self) -> &Database {
        &self.database
    }
}

impl React<Moved> for Target {
    async fn react(&self, _: &mut Transaction, _: &Occurred<Moved>) -> Result<(), CallError<Inapplicable>> {
        self.applied.lock().push(Moved::NAME);
        Ok(())
    }
}

impl React<Painted> for Target {
    async fn react(&self, _: &mut Transaction, _: &Occurred<Painted>) -> Result<(), CallError<Inapplicable>> {
        self.applied.lock().push(Painted::NAME);
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Graves(Arc<Mutex<Vec<DeadLetter>>>);

impl Handle<Bury> for Graves {
    async fn handle(&self, _: &Caller, message: Bury) -> Outcome<Bury> {
        self.0.lock().push(message.letter);
        Ok(())
    }
}

fn older() -> Contract<Target> {
    Domain::new("target").answering().reacts_to::<Moved>()
}

fn newer() -> Contract<Target> {
    older().reacts_to::<Painted>()
}

/// A node that hosts this version of the target.
async fn reacting(
    cluster: &Cluster,
    target: Contract<Target>,
    store: &Store,
    applied: &Applied,
    graves: &Graves,
) -> Node {
    let (databases, applied, graves) = (store.databases.clone(), applied.clone(), graves.clone());
    Node::start(cluster.settings(&url()), move |_| {
        let opened = databases.clone();
        let target = target.shared(move |_| {
            let (opened, applied) = (opened.clone(), applied.clone());
            async move { Ok(Target { database: opened.open("target").await?, applied }) }
        });
        let cluster = Domain::new("cluster").answering().on::<Bury>().shared(move |_| {
            let graves = graves.clone();
            async move { Ok::<_, StartError>(graves) }
        });
        vec![cluster.build(), target.stored(&databases).build()]
    })
    .await
}

/// A node that knows this version of the target without hosting it.
async fn knowing(cluster: &Cluster, target: Contract<Target>) -> Node {
    Node::start(cluster.settings(&url()), |transport| vec![target.remote(transport)]).await
}

fn event<E: Event>(event: &E) -> CloudEvent {
    CloudEvent::new("source", chrono::Utc::now(), event).unwrap()
}

/// Publishes until it is confirmed, as the relay does.
async fn publish<E: Event>(node: &Node, fact: &E) {
    let patience = Instant::now() + Duration::from_secs(60);
    while let Err(error) = node.bridge.events().publish(event(fact)).await {
        assert!(Instant::now() < patience, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[actix_rt::test]
async fn an_older_node_publishes_what_only_a_newer_one_reacts_to() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let _newer = reacting(&cluster, newer(), &store, &applied, &graves).await;
    let source = knowing(&cluster, older()).await;
    publish(&source, &Painted(Uuid::now_v7())).await;
    until("it is applied", || applied.lock().as_slice() == [Painted::NAME]).await;

    // An event without any subscriber is no failure, and no reason to declare anything again.
    for _ in 0..3 {
        let taken = source.bridge.events().publish(event(&Weighed(Uuid::now_v7()))).await;
        assert!(matches!(taken, Err(PublishError::Unroutable(_))), "{taken:?}");
    }
    assert_eq!(source.metric("callboard_bridge_unroutable_total", ""), 0.0);
    assert!(graves.0.lock().is_empty());
}

#[actix_rt::test]
async fn an_older_node_leaves_what_it_does_not_know_to_a_newer_one() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (by_old, by_new, graves) = (Applied::default(), Applied::default(), Graves::default());
    let source = knowing(&cluster, newer()).await;
    let _old = reacting(&cluster, older(), &store, &by_old, &graves).await;
    publish(&source, &Moved(Uuid::now_v7())).await;
    until("the older one takes the events", || by_old.lock().len() == 1).await;
    let _new = reacting(&cluster, newer(), &store, &by_new, &graves).await;
    // More than the prefetch.
    for _ in 0..80 {
        publish(&source, &Painted(Uuid::now_v7())).await;
    }
    publish(&source, &Moved(Uuid::now_v7())).await;
    until("all are applied", || by_old.lock().len() + by_new.lock().len() == 82).await;
    assert_eq!(by_new.lock().iter().filter(|kind| **kind == Painted::NAME).count(), 80);
    assert!(graves.0.lock().is_empty(), "{:?}", graves.0.lock());
}

#[actix_rt::test]
async fn what_a_newer_version_has_left_does_not_hold_an_older_one_up() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let source = knowing(&cluster, newer()).await;
    // More than the prefetch, some of one aggregate.
    let one = Uuid::now_v7();
    for number in 0..80 {
        publish(&source, &Painted(if number < 10 { one } else { Uuid::now_v7() })).await;
    }
    publish(&source, &Moved(one)).await;
    let old = reacting(&cluster, older(), &store, &applied, &graves).await;
    until("what it knows is applied", || applied.lock().as_slice() == [Moved::NAME]).await;
    until("the others are buried", || graves.0.lock().len() == 80).await;
    let letters = graves.0.lock().clone();
    assert!(letters.iter().all(|letter| letter.event["type"] == Painted::NAME), "{letters:?}");

    // Back on the newer version, an operator replays them.
    let applied = Applied::default();
    old.stop().await;
    let newer = reacting(&cluster, newer(), &store, &applied, &graves).await;
    let letter: CloudEvent = serde_json::from_value(letters[0].event.clone()).unwrap();
    newer.bridge.events().redeliver("target", letter).await.unwrap();
    until("it is applied", || applied.lock().as_slice() == [Painted::NAME]).await;
}

/// A consumer whose connection ends while it holds a message. Returns the number of dead letters.
async fn taken_and_gone(queue: &str, dead: &str, deliveries: &mut u32) -> Option<u32> {
    let connection = Connection::connect(&url(), ConnectionProperties::default()).await.ok()?;
    let channel = connection.create_channel().await.ok()?;
    let consume = channel.basic_consume(queue.into(), "".into(), Default::default(), Default::default());
    let mut consumer = consume.await.ok()?;
    let taken = tokio::time::timeout(Duration::from_millis(200), consumer.next()).await;
    *deliveries += u32::from(taken.is_ok_and(|taken| taken.is_some_and(|taken| taken.is_ok())));
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let waiting = channel.queue_declare(dead.into(), passive, Default::default()).await.ok()?;
    connection.close(200, "gone".into()).await.ok()?;
    Some(waiting.message_count())
}

#[actix_rt::test]
async fn what_ends_its_consumer_each_time_becomes_a_dead_letter() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let source = knowing(&cluster, older()).await;
    let poison = Moved(Uuid::now_v7());
    publish(&source, &poison).await;
    let (queue, dead) = (format!("{}.events.target", cluster.prefix), format!("{}.dead", cluster.prefix));
    let mut deliveries = 0;
    let patience = Instant::now() + Duration::from_secs(60);
    // A round that fails with its connection is one more.
    while taken_and_gone(&queue, &dead, &mut deliveries).await.is_none_or(|dead| dead == 0) {
        assert!(Instant::now() < patience, "delivered {deliveries} times, and not given up");
    }
    assert!(deliveries > 5, "{deliveries}: a few deaths of a node are not the event's fault");

    let _target = reacting(&cluster, older(), &store, &applied, &graves).await;
    until("it is buried", || graves.0.lock().len() == 1).await;
    let letter = graves.0.lock()[0].clone();
    assert_eq!(letter.domain, "target");
    assert_eq!(letter.error, "it was delivered too often without an end");
    assert_eq!(letter.event["type"], Moved::NAME);
    // Later events are applied.
    publish(&source, &Moved(Uuid::now_v7())).await;
    until("the next is applied", || applied.lock().len() == 1).await;
}
