//! Presence of consumers for requests.
//!
//! A request without a consumer would be awaited until its deadline. So the queues of the domains that this node
//! reaches, and of nodes that were asked lately, are checked, and while one has no consumer, calls to it are refused at
//! once.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use callboard_supervisors::{Outage, remote::Target};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{names::Names, outgoing::Destination, wire::Kind};

/// How long the queue of a node is checked after its last use.
const USED: Duration = Duration::from_secs(60);

/// How long the first request to a queue waits for its first check.
const LOOK: Duration = Duration::from_secs(1);

const UNSEEN: u8 = 0;
const PRESENT: u8 = 1;
const ABSENT: u8 = 2;

/// Whom a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Whom {
    Domain(&'static str),
    Node(Uuid),
}

/// The queue of requests to a domain or a node, and whether it has consumers.
pub(crate) struct RequestQueue {
    pub(crate) whom: Whom,
    pub(crate) to: Destination,
    state: AtomicU8,
    used: Mutex<Instant>,
    /// Whether it ever had a consumer: a domain that was never started is not away.
    attended: AtomicBool,
    /// The outage while it has no consumer.
    pub(crate) outage: Outage,
}

#[derive(Default)]
pub(crate) struct Presence {
    queues: RwLock<HashMap<Whom, Arc<RequestQueue>>>,
    /// Notified when there is a queue to check.
    pub(crate) unseen: Notify,
}

impl Presence {
    pub(crate) fn request_queue(&self, names: &Names, domain: &'static str, target: Target) -> Arc<RequestQueue> {
        let whom = match target {
            Target::Domain => Whom::Domain(domain),
            Target::Node(node) => Whom::Node(node),
        };
        if let Some(requests) = self.queues.read().get(&whom) {
            return requests.clone();
        }
        let (queue, what) = match whom {
            Whom::Domain(domain) => (names.domain(domain), format!("{domain}, which other nodes host")),
            Whom::Node(node) => (names.node(node), format!("node {node}")),
        };
        let to = Destination { kind: Kind::Requests, queue: queue.into() };
        let (state, used) = (AtomicU8::new(UNSEEN), Mutex::new(Instant::now()));
        let requests =
            RequestQueue { whom, to, state, used, attended: AtomicBool::new(false), outage: Outage::new(what) };
        self.queues.write().entry(whom).or_insert_with(|| Arc::new(requests)).clone()
    }

    /// Waits a bounded time until a queue was checked.
    pub(crate) async fn look(&self, requests: &RequestQueue, deadline: Instant) {
        let until = deadline.min(Instant::now() + LOOK);
        while requests.is_unseen() && Instant::now() < until {
            self.unseen.notify_one();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The queues to check, without those of nodes that were not asked lately.
    pub(crate) fn looked_at(&self) -> Vec<Arc<RequestQueue>> {
        let mut queues = self.queues.write();
        queues.retain(|whom, requests| matches!(whom, Whom::Domain(_)) || requests.used.lock().elapsed() < USED);
        queues.values().cloned().collect()
    }

    /// Forgets all checks after a reconnect: the broker may have lost its queues.
    pub(crate) fn forget(&self) {
        self.queues.read().values().for_each(|requests| requests.state.store(UNSEEN, Ordering::Relaxed));
    }

    /// Whether any queue has no consumer.
    pub(crate) fn any_absent(&self) -> bool {
        self.queues.read().values().any(|requests| requests.is_absent())
    }
}

impl RequestQueue {
    /// Whether it had no consumer at the last check.
    pub(crate) fn is_absent(&self) -> bool {
        self.state.load(Ordering::Relaxed) == ABSENT
    }

    /// Whether it was not checked yet.
    pub(crate) fn is_unseen(&self) -> bool {
        self.state.load(Ordering::Relaxed) == UNSEEN
    }

    /// Notes the outcome of a check; true when a consumer has come back.
    pub(crate) fn set_absent(&self, absent: bool) -> bool {
        let state = if absent { ABSENT } else { PRESENT };
        let before = self.state.swap(state, Ordering::Relaxed);
        match (before, absent) {
            (ABSENT, true) => {}
            (_, true) if !self.attended.load(Ordering::Relaxed) => {}
            (_, true) => drop(self.outage.failed(&"nobody takes the requests in its queue")),
            (_, false) => {
                self.attended.store(true, Ordering::Relaxed);
                self.outage.works();
            }
        }
        before == ABSENT && !absent
    }

    /// Notes that it is used now. Skipped while a check runs: it was used a moment ago.
    pub(crate) fn touch(&self, now: Instant) {
        if let Some(mut used) = self.used.try_lock() {
            *used = now;
        }
    }
}
