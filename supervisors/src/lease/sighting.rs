//! Signs of life of other holders, as a contender has seen them on its own clock.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::time::clock::Clock;

/// The last sign of life of each holder.
pub(crate) struct Sightings<K> {
    clock: Clock,
    seen: Mutex<HashMap<K, Sighting>>,
}

struct Sighting {
    token: i64,
    beat: i64,
    since: Instant,
}

impl<K: Eq + Hash> Sightings<K> {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, seen: Mutex::default() }
    }

    /// Whether this holder has shown no sign of life for `ttl`. One that is seen for the first time, or has changed,
    /// has not.
    pub(crate) fn has_lapsed(&self, key: K, token: i64, beat: i64, ttl: Duration) -> bool {
        let now = self.clock.instant();
        let mut seen = self.seen.lock();
        let sighting = seen.entry(key).or_insert(Sighting { token, beat, since: now });
        if (sighting.token, sighting.beat) != (token, beat) {
            *sighting = Sighting { token, beat, since: now };
        }
        now.saturating_duration_since(sighting.since) >= ttl
    }

    pub(crate) fn forget<Q: Hash + Eq + ?Sized>(&self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.seen.lock().remove(key);
    }

    /// Drops all but these.
    pub(crate) fn retain(&self, keep: impl Fn(&K) -> bool) {
        self.seen.lock().retain(|key, _| keep(key));
    }
}
