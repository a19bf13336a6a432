//! Tests of membership and dead letters, on both engines.

mod dead_letters;
mod fingerprints;
mod nodes;
mod sagas;
mod seats;

use std::{sync::Arc, time::Duration};

use callboard_messages::{NodeId, cluster::NodeState};
use callboard_platform::cluster::{Member, Members};
use callboard_supervisors::{
    Clock, Runtime,
    db::Databases,
    events::{Catalogue, CloudEvent, EventSink, EventTransport, PublishError},
};
use chrono::DateTime;
use futures_util::{FutureExt, future::LocalBoxFuture};
use tokio::sync::mpsc;

use crate::{ClusterMetrics, ClusterSettings, Seat};

/// A node with the domain `cluster` in a runtime of its own.
struct Node {
    runtime: Runtime,
    members: Members,
    redelivered: mpsc::UnboundedReceiver<(String, CloudEvent)>,
}

/// A transport that records redeliveries, and refuses those of events that say so.
struct Post(mpsc::UnboundedSender<(String, CloudEvent)>);

impl EventTransport for Post {
    fn declare(&self, _: Catalogue) {}

    fn subscribe(&self, _: EventSink) {}

    fn publish(&self, _: CloudEvent) -> LocalBoxFuture<'static, Result<(), PublishError>> {
        async { Ok(()) }.boxed_local()
    }

    fn redeliver(&self, domain: &str, event: CloudEvent) -> LocalBoxFuture<'static, Result<(), PublishError>> {
        let refused = event.data["refuse"] == true;
        if !refused {
            self.0.send((domain.to_owned(), event)).unwrap();
        }
        let outcome = if refused { Err(PublishError::Unroutable("nobody".to_owned())) } else { Ok(()) };
        async { outcome }.boxed_local()
    }
}

fn member() -> Member {
    Member {
        id: NodeId::new(),
        name: "node".to_owned(),
        address: "http://127.0.0.1:1".to_owned(),
        domains: vec!["auth".to_owned()],
        version: "0.1.0".to_owned(),
        state: NodeState::Up,
        incarnation: 0,
        joined_at: DateTime::UNIX_EPOCH,
    }
}

impl Node {
    /// Watches no other node, unless the settings say so.
    fn start(databases: &Databases, clock: Clock, settings: ClusterSettings) -> Self {
        Self::start_as(NodeId::new(), Seat::new(), databases, clock, settings)
    }

    /// A process of this node.
    fn start_as(id: NodeId, seat: Seat, databases: &Databases, clock: Clock, settings: ClusterSettings) -> Self {
        let members = Members::alone(Member { id, ..member() });
        let (post, redelivered) = mpsc::unbounded_channel();
        let metrics = ClusterMetrics::new().unwrap();
        let domain = crate::domain(settings, databases.clone(), members.clone(), seat, metrics, Vec::new());
        let runtime = Runtime::builder()
            .events(Arc::new(Post(post)))
            .clock(clock)
            .workers(1)
            .node(members.me().0)
            .build(vec![domain])
            .unwrap();
        Self { runtime, members, redelivered }
    }

    async fn stop(self) {
        self.runtime.stop(Duration::from_secs(5)).await;
    }
}

/// Waits until `holds`.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
