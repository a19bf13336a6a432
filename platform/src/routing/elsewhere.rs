//! Routes to apps on other nodes: a request goes to their router instead of an instance.
//!
//! A node asks for the list of all apps often. A list is applied as a whole, and a request that finds it wrong asks for
//! a newer one ([`RoutingTable::renew`]).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use callboard_messages::deploy::RouteState;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::{Address, Endpoint, InFlight, RoutingTable};

/// Another node that runs apps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The node.
    pub id: Uuid,
    /// Its listener: `host:port`.
    pub address: Arc<str>,
    /// Its incarnation: a node that was declared gone and joined again has another.
    pub incarnation: i64,
}

/// The route of an app in the list.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    /// The node that runs it, or the last one that did.
    pub node: Option<Uuid>,
    /// The state for the page when nobody answers.
    pub state: RouteState,
    endpoint: Option<Arc<Endpoint>>,
}

impl Elsewhere {
    /// Counts a request in at the node, if it is reachable.
    #[must_use]
    pub fn acquire(&self) -> Option<InFlight> {
        self.endpoint.clone().filter(|endpoint| !endpoint.is_lost()).map(Endpoint::enter)
    }
}

/// The last list.
#[derive(Default)]
pub(super) struct Others {
    list: ArcSwap<List>,
    wanted: Notify,
    /// Number of requests for a list.
    asks: AtomicU64,
    /// The last of them that was answered, also when the list was the same.
    answered: watch::Sender<u64>,
}

/// One request for the list: its answer may lack what has changed since.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    number: u64,
    /// The version of the table then.
    as_of: u64,
}

#[derive(Default)]
struct List {
    apps: HashMap<Box<str>, Elsewhere>,
    nodes: HashMap<Uuid, Arc<Endpoint>>,
}

impl RoutingTable {
    /// The route of the app in the last list, which includes the apps of this node.
    #[must_use]
    pub fn elsewhere(&self, app: &str) -> Option<Elsewhere> {
        self.shared.others.list.load().apps.get(app).cloned()
    }

    /// Notes that the list is about to be requested.
    #[must_use]
    pub fn ask(&self) -> Ask {
        Ask { number: self.shared.others.asks.fetch_add(1, Ordering::SeqCst) + 1, as_of: self.version() }
    }

    /// Replaces the list: the node and state of each app, and the reachable nodes. An app that is not listed is removed
    /// here too, unless it has instances or was added after the list was requested.
    pub fn set_elsewhere(&self, ask: Ask, apps: Vec<(String, Option<Uuid>, RouteState)>, nodes: &[Neighbour]) {
        let before = self.shared.others.list.load();
        let nodes: HashMap<Uuid, Arc<Endpoint>> = nodes
            .iter()
            .map(|node| {
                let address = Address::Node(node.address.clone());
                let kept = before.nodes.get(&node.id).cloned();
                let kept = kept.filter(|endpoint| *endpoint.address() == address && !endpoint.is_lost());
                (node.id, kept.unwrap_or_else(|| Arc::new(Endpoint::new(node.id, address))))
            })
            .collect();
        let apps = apps
            .into_iter()
            .map(|(app, node, state)| {
                let endpoint = node.and_then(|node| nodes.get(&node).cloned());
                (app.into(), Elsewhere { node, state, endpoint })
            })
            .collect();
        let list = List { apps, nodes };
        self.forget_unlisted(ask.as_of, |app| list.apps.contains_key(app));
        let list = Arc::new(list);
        self.shared.others.list.store(list.clone());
        for (id, endpoint) in &before.nodes {
            let is_kept = list.nodes.get(id).is_some_and(|kept| Arc::ptr_eq(kept, endpoint));
            if !endpoint.is_lost() {
                endpoint.set_retired(!is_kept);
            }
        }
        self.confirm_elsewhere(ask);
        // Pools of connections drop those to nodes that are gone.
        self.shared.changes.send_modify(|version| *version += 1);
    }

    /// Fails the requests at a node that the cluster has declared gone, at once and not with the next list, which may
    /// take a while to name another node.
    pub fn lose(&self, node: Uuid) {
        if let Some(endpoint) = self.shared.others.list.load().nodes.get(&node) {
            endpoint.lose();
            self.shared.changes.send_modify(|version| *version += 1);
        }
    }

    /// Notes that the last list is still valid.
    pub fn confirm_elsewhere(&self, ask: Ask) {
        self.shared.others.answered.send_modify(|answered| *answered = ask.number.max(*answered));
    }

    /// Requests a newer list and waits a bounded time for it. False when none came. The answer to an earlier request
    /// may still have what this caller found wrong.
    pub async fn renew(&self, within: Duration) -> bool {
        let Others { asks, answered, wanted, .. } = &self.shared.others;
        let before = asks.load(Ordering::SeqCst);
        let mut answered = answered.subscribe();
        wanted.notify_one();
        matches!(tokio::time::timeout(within, answered.wait_for(|answered| *answered > before)).await, Ok(Ok(_)))
    }

    /// Counts a request of another node whose signature is too old, or not yet valid.
    pub fn count_late_hop(&self) {
        self.shared.metrics.late_hop();
    }

    /// Waits until a newer list is requested.
    pub async fn wanted(&self) {
        self.shared.others.wanted.notified().await;
    }
}
