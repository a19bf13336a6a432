//! A domain of the tests that reacts to an event, and the nodes that host it or emit for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use callboard_bridge::BridgeSettings;
use callboard_messages::{
    CallError, Caller, CloudEvent, Event, Failure,
    cluster::{Bury, DeadLetter},
};
use callboard_supervisors::{
    Contract, Domain, Handle, Outcome, StartError,
    db::{Database, Transaction},
    events::{Inapplicable, Occurred, React, Stored},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{fixture::*, store::Store};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Happened {
    pub to: Uuid,
    pub number: i64,
}

impl Event for Happened {
    const NAME: &'static str = "thing.happened";
    fn aggregate(&self) -> Uuid {
        self.to
    }
}

/// The applied events.
#[derive(Clone, Default)]
pub struct Applied {
    pub done: Arc<Mutex<Vec<(Uuid, i64)>>>,
    /// The number whose event is held up.
    pub held: Arc<Mutex<Option<i64>>>,
    /// Whether negative numbers can be applied.
    pub takes_all: Arc<AtomicBool>,
}

pub struct Target {
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
        if event.event.number < 0 && !self.applied.takes_all.load(Ordering::SeqCst) {
            return Err(Inapplicable("negative".to_owned()).into());
        }
        while *self.applied.held.lock() == Some(event.event.number) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.applied.done.lock().push((event.event.to, event.event.number));
        Ok(())
    }
}

/// The dead letters, and how many are refused before one is kept.
#[derive(Clone, Default)]
pub struct Graves(pub Arc<Mutex<Vec<DeadLetter>>>, pub Arc<AtomicUsize>);

impl Handle<Bury> for Graves {
    async fn handle(&self, _: &Caller, message: Bury) -> Outcome<Bury> {
        if self.1.load(Ordering::SeqCst) > 0 {
            self.1.fetch_sub(1, Ordering::SeqCst);
            return Err(Failure::Overloaded { retry_after: Duration::from_millis(1) }.into());
        }
        let mut letters = self.0.lock();
        if letters.iter().all(|letter| letter.id != message.letter.id) {
            letters.push(message.letter);
        }
        Ok(())
    }
}

pub fn target() -> Contract<Target> {
    Domain::new("target").answering().reacts_to::<Happened>()
}

/// Another domain that reacts to the same event.
pub fn second_target() -> Contract<Target> {
    Domain::new("second").answering().reacts_to::<Happened>()
}

/// A node that hosts the second target.
pub async fn reacting_second(cluster: &Cluster, store: &Store, applied: &Applied) -> Node {
    let (databases, applied) = (store.databases.clone(), applied.clone());
    Node::start(cluster.settings(&url()), move |_| {
        let opened = databases.clone();
        let second = second_target().shared(move |_| {
            let (opened, applied) = (opened.clone(), applied.clone());
            async move { Ok(Target { database: opened.open("second").await?, applied }) }
        });
        vec![second.stored(&databases).build()]
    })
    .await
}

/// A node that hosts the target.
pub async fn reacting(cluster: &Cluster, url: &str, store: &Store, applied: &Applied, graves: &Graves) -> Node {
    let graves = graves.clone();
    let keeping = Domain::new("cluster").answering().on::<Bury>().shared(move |_| {
        let graves = graves.clone();
        async move { Ok::<_, StartError>(graves) }
    });
    reacting_with(cluster.settings(url), keeping.build(), store, applied).await
}

/// The same with these settings; `keeping` keeps the dead letters.
pub async fn reacting_with(settings: BridgeSettings, keeping: Domain, store: &Store, applied: &Applied) -> Node {
    let (databases, applied) = (store.databases.clone(), applied.clone());
    Node::start(settings, move |_| {
        let opened = databases.clone();
        let target = target().shared(move |_| {
            let (opened, applied) = (opened.clone(), applied.clone());
            async move { Ok(Target { database: opened.open("target").await?, applied }) }
        });
        vec![keeping, target.stored(&databases).build()]
    })
    .await
}

/// A node that knows the target without hosting it.
pub async fn emitting(cluster: &Cluster, url: &str) -> Node {
    Node::start(cluster.settings(url), |transport| vec![target().remote(transport)]).await
}

pub fn happened(to: Uuid, number: i64) -> CloudEvent {
    CloudEvent::new("source", chrono::Utc::now(), &Happened { to, number }).unwrap()
}

/// Publishes until it is confirmed, as the relay does.
pub async fn publish(node: &Node, event: CloudEvent) {
    let patience = Instant::now() + Duration::from_secs(60);
    while let Err(error) = node.bridge.events().publish(event.clone()).await {
        assert!(Instant::now() < patience, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
