//! Who is there to take requests, as far as this node has looked.
//!
//! A request that nobody takes would be waited for until its deadline. So the queues that were used lately are looked
//! at, and while one has no consumer, calls are refused at once.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use callboard_supervisors::remote::Target;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{names::Names, outgoing::Destination, wire::Kind};

/// How long a place is looked at after it was used last.
const USED: Duration = Duration::from_secs(60);

/// How long the first request to a place waits for it to be looked at.
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

/// Where requests to somebody go, and whether anybody takes them.
pub(crate) struct Place {
    pub(crate) whom: Whom,
    pub(crate) to: Destination,
    state: AtomicU8,
    used: Mutex<Instant>,
}

#[derive(Default)]
pub(crate) struct Presence {
    places: RwLock<HashMap<Whom, Arc<Place>>>,
    /// Told when there is a place to look at.
    pub(crate) unseen: Notify,
}

impl Presence {
    pub(crate) fn place(&self, names: &Names, domain: &'static str, target: Target) -> Arc<Place> {
        let whom = match target {
            Target::Domain => Whom::Domain(domain),
            Target::Node(node) => Whom::Node(node),
        };
        if let Some(place) = self.places.read().get(&whom) {
            return place.clone();
        }
        let queue = match whom {
            Whom::Domain(domain) => names.domain(domain),
            Whom::Node(node) => names.node(node),
        };
        let to = Destination { kind: Kind::Requests, queue: queue.into() };
        let place = Place { whom, to, state: AtomicU8::new(UNSEEN), used: Mutex::new(Instant::now()) };
        self.places.write().entry(whom).or_insert_with(|| Arc::new(place)).clone()
    }

    /// Waits until a place was looked at, but not for long.
    pub(crate) async fn look(&self, place: &Place, deadline: Instant) {
        let until = deadline.min(Instant::now() + LOOK);
        while place.is_unseen() && Instant::now() < until {
            self.unseen.notify_one();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The places that were used lately; others are forgotten.
    pub(crate) fn recent(&self) -> Vec<Arc<Place>> {
        let mut places = self.places.write();
        places.retain(|_, place| place.used.lock().elapsed() < USED);
        places.values().cloned().collect()
    }

    /// What was seen over another connection is seen no more: a broker that was away may have no queues any more.
    pub(crate) fn forget(&self) {
        self.places.read().values().for_each(|place| place.state.store(UNSEEN, Ordering::Relaxed));
    }

    /// Whether anybody is missed.
    pub(crate) fn any_absent(&self) -> bool {
        self.places.read().values().any(|place| place.is_absent())
    }
}

impl Place {
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
        match (before, state) {
            (UNSEEN | PRESENT, ABSENT) => tracing::warn!(queue = %self.to.queue, "nobody takes requests"),
            (ABSENT, PRESENT) => tracing::info!(queue = %self.to.queue, "somebody takes requests again"),
            _ => {}
        }
        before == ABSENT && !absent
    }

    /// It is used now. A place that is being looked at is not waited for: it was used a moment ago.
    pub(crate) fn touch(&self, now: Instant) {
        if let Some(mut used) = self.used.try_lock() {
            *used = now;
        }
    }
}
