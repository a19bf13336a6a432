//! Who is there to take requests, as far as this node has looked.
//!
//! A request that nobody takes would be waited for until its deadline. So the queues that were used lately are looked
//! at, and while one has no consumer, calls are refused at once.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use callboard_supervisors::remote::Target;
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use crate::{names::Names, outgoing::Destination, wire::Kind};

/// How long a place is looked at after it was used last.
const USED: Duration = Duration::from_secs(60);

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
    absent: AtomicBool,
    used: Mutex<Instant>,
}

#[derive(Default)]
pub(crate) struct Presence(RwLock<HashMap<Whom, Arc<Place>>>);

impl Presence {
    pub(crate) fn place(&self, names: &Names, domain: &'static str, target: Target) -> Arc<Place> {
        let whom = match target {
            Target::Domain => Whom::Domain(domain),
            Target::Node(node) => Whom::Node(node),
        };
        if let Some(place) = self.0.read().get(&whom) {
            return place.clone();
        }
        let queue = match whom {
            Whom::Domain(domain) => names.domain(domain),
            Whom::Node(node) => names.node(node),
        };
        let to = Destination { kind: Kind::Requests, queue: queue.into() };
        let place = Place { whom, to, absent: AtomicBool::new(false), used: Mutex::new(Instant::now()) };
        self.0.write().entry(whom).or_insert_with(|| Arc::new(place)).clone()
    }

    /// The places that were used lately; others are forgotten.
    pub(crate) fn recent(&self) -> Vec<Arc<Place>> {
        let mut places = self.0.write();
        places.retain(|_, place| place.used.lock().elapsed() < USED);
        places.values().cloned().collect()
    }

    /// Whether anybody is missed.
    pub(crate) fn any_absent(&self) -> bool {
        self.0.read().values().any(|place| place.is_absent())
    }
}

impl Place {
    /// Whether nobody took requests when it was last looked at.
    pub(crate) fn is_absent(&self) -> bool {
        self.absent.load(Ordering::Relaxed)
    }

    pub(crate) fn set_absent(&self, absent: bool) {
        if self.absent.swap(absent, Ordering::Relaxed) != absent {
            if absent {
                tracing::warn!(queue = %self.to.queue, "nobody takes requests");
            } else {
                tracing::info!(queue = %self.to.queue, "somebody takes requests again");
            }
        }
    }

    /// It is used now. A place that is being looked at is not waited for: it was used a moment ago.
    pub(crate) fn touch(&self, now: Instant) {
        if let Some(mut used) = self.used.try_lock() {
            *used = now;
        }
    }
}
