//! Apps that other nodes run: their router is asked instead of an instance.
//!
//! Nobody tells a node what others run; it asks for the whole list, often. A list is applied as a whole, and whoever finds
//! it wrong asks for a newer one ([`RoutingTable::renew`]).

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
    /// Under which it takes part: one that was declared gone and came back has another.
    pub incarnation: i64,
}

/// Where an app is answered, as the list says.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    /// The node that runs it, or did.
    pub node: Option<Uuid>,
    /// What to tell a visitor when nobody answers.
    pub state: RouteState,
    endpoint: Option<Arc<Endpoint>>,
}

impl Elsewhere {
    /// Takes a place at the node, if it can be reached.
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
    /// How often it was asked for.
    asks: AtomicU64,
    /// The last ask that was answered, also when the list was the same.
    answered: watch::Sender<u64>,
}

/// One time that the list was asked for: what has happened since, its answer need not know.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    number: u64,
    /// The version of the table.
    as_of: u64,
}

#[derive(Default)]
struct List {
    apps: HashMap<Box<str>, Elsewhere>,
    nodes: HashMap<Uuid, Arc<Endpoint>>,
}

impl RoutingTable {
    /// Where the app is answered, according to the last list. The list has the apps of this node too.
    #[must_use]
    pub fn elsewhere(&self, app: &str) -> Option<Elsewhere> {
        self.shared.others.list.load().apps.get(app).cloned()
    }

    /// Whoever is about to ask for the list says so first.
    #[must_use]
    pub fn ask(&self) -> Ask {
        Ask { number: self.shared.others.asks.fetch_add(1, Ordering::SeqCst) + 1, as_of: self.version() }
    }

    /// Replaces the list: for each app its node and state, and the nodes that can be reached. An app that is not on it is
    /// forgotten here as well, unless it has instances or became known after the list was asked for.
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
        // Whoever keeps connections lets those to nodes go that are no longer there.
        self.shared.changes.send_modify(|version| *version += 1);
    }

    /// The cluster has declared a node gone: what was asked of it is given up, at once and not when a new list has come,
    /// which another node may take a while to tell.
    pub fn lose(&self, node: Uuid) {
        if let Some(endpoint) = self.shared.others.list.load().nodes.get(&node) {
            endpoint.lose();
            self.shared.changes.send_modify(|version| *version += 1);
        }
    }

    /// The last list still holds.
    pub fn confirm_elsewhere(&self, ask: Ask) {
        self.shared.others.answered.send_modify(|answered| *answered = ask.number.max(*answered));
    }

    /// Asks for a newer list and waits for it, but not long. False when none came. What was asked for before may be
    /// answered with what this caller found wrong.
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

    /// Waits until somebody asks for a newer list.
    pub async fn wanted(&self) {
        self.shared.others.wanted.notified().await;
    }
}
