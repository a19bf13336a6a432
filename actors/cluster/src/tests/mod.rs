//! The nodes and the dead letters, on both engines.

mod dead_letters;
mod nodes;

use std::{sync::Arc, time::Duration};

use callboard_messages::{NodeId, cluster::NodeState};
use callboard_supervisors::{
    Clock, Runtime,
    cluster::{Member, Members},
    db::Databases,
};
use chrono::DateTime;
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{ClusterMetrics, ClusterSettings, Redeliver};

/// A node of the tests: the domain `cluster` in a runtime of its own.
struct Node {
    runtime: Runtime,
    members: Members,
    redelivered: mpsc::UnboundedReceiver<(String, Value)>,
}

/// Remembers what it was given; refuses what says so.
struct Post(mpsc::UnboundedSender<(String, Value)>);

impl Redeliver for Post {
    fn redeliver(&self, domain: String, event: Value) -> BoxFuture<'static, Result<(), String>> {
        let refused = event["refuse"] == true;
        if !refused {
            self.0.send((domain, event)).unwrap();
        }
        async move { if refused { Err("nobody takes it".to_owned()) } else { Ok(()) } }.boxed()
    }
}

impl Node {
    /// Watches nobody, unless the settings say so.
    fn start(databases: &Databases, clock: Clock, settings: ClusterSettings) -> Self {
        let me = Member {
            id: NodeId::new(),
            name: "node".to_owned(),
            address: "http://127.0.0.1:1".to_owned(),
            domains: vec!["auth".to_owned()],
            version: "0.1.0".to_owned(),
            state: NodeState::Up,
            incarnation: 0,
            joined_at: DateTime::UNIX_EPOCH,
        };
        let members = Members::alone(me);
        let (post, redelivered) = mpsc::unbounded_channel();
        let domain = crate::domain(
            settings,
            databases.clone(),
            members.clone(),
            Arc::new(Post(post)),
            ClusterMetrics::new().unwrap(),
        );
        let runtime = Runtime::builder().clock(clock).workers(1).node(members.me().0).build(vec![domain]).unwrap();
        Self { runtime, members, redelivered }
    }

    async fn stop(self) {
        self.runtime.stop(Duration::from_secs(5)).await;
    }
}

/// Waits until it holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
