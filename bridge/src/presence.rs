//! Who is there to take requests, as far as this node has looked.
//!
//! A request that nobody takes would be waited for until its deadline. So the queues of the domains that this node
//! reaches, and of the nodes that were asked lately, are looked at, and while one has no consumer, calls are refused at
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

/// How long the queue of a node is looked at after it was used last.
const USED: Duration = Duration::from_secs(60);

/// How long the first request to a queue waits for it to be looked at.
const LOOK: Duration = Duration::from_secs(1);

const UNSEEN: u8 = 0;
const PRESENT: u8 = 1;
const ABSENT: u8 = 2;

/// Who is asked.
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
    /// Whether somebody ever took requests: one that nobody has started yet is not away.
    attended: AtomicBool,
    /// Nobody takes the requests.
    pub(crate) outage: Outage,
}

#[derive(Default)]
pub(crate) struct Presence {
    queues: RwLock<HashMap<Whom, Arc<RequestQueue>>>,
    /// Told when there is a queue to look at.
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

    /// Waits until a queue was looked at, but not for long.
    pub(crate) async fn look(&self, requests: &RequestQueue, deadline: Instant) {
        let until = deadline.min(Instant::now() + LOOK);
        while requests.is_unseen() && Instant::now() < until {
            self.unseen.notify_one();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The queues that are looked at; nodes that were not asked lately are forgotten.
    pub(crate) fn looked_at(&self) -> Vec<Arc<RequestQueue>> {
        let mut queues = self.queues.write();
        queues.retain(|whom, requests| matches!(whom, Whom::Domain(_)) || requests.used.lock().elapsed() < USED);
        queues.values().cloned().collect()
    }

    /// What was seen over another connection is seen no more: a broker that was away may have no queues any more.
    pub(crate) fn forget(&self) {
        self.queues.read().values().for_each(|requests| requests.state.store(UNSEEN, Ordering::Relaxed));
    }

    /// Whether anybody is missed.
    pub(crate) fn any_absent(&self) -> bool {
        self.queues.read().values().any(|requests| requests.is_absent())
    }
}

impl RequestQueue {
    /// Whether nobody took requests when it was last looked at.
    pub(crate) fn is_absent(&self) -> bool {
        self.state.load(Ordering::Relaxed) == ABSENT
    }

    /// Whether it was not looked at yet.
    pub(crate) fn is_unseen(&self) -> bool {
        self.state.load(Ordering::Relaxed) == UNSEEN
    }

    /// Notes what was seen; true when somebody has come back.
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

    /// It is used now. A queue that is being looked at is not waited for: it was used a moment ago.
    pub(crate) fn touch(&self, now: Instant) {
        if let Some(mut used) = self.used.try_lock() {
            *used = now;
        }
    }
}
