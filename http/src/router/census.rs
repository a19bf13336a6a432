//! Requests, streams and WebSockets in flight per client address, on all worker threads.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Mostly more than worker threads, so that they do not wait for each other.
const SHARDS: u128 = 64;

/// Counts requests in flight by address.
pub(super) struct Census {
    limit: usize,
    shards: Vec<Mutex<HashMap<u128, usize>>>,
}

/// One request in flight; dropping it counts it out.
pub struct Visit {
    census: Arc<Census>,
    address: u128,
}

impl Census {
    /// With this limit per address.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, shards: (0..SHARDS).map(|_| Mutex::default()).collect() })
    }

    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Counts a request in; `None` when the address is at its limit.
    pub(super) fn enter(self: &Arc<Self>, address: u128) -> Option<Visit> {
        let mut shard = self.shard(address)?;
        let count = shard.entry(address).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Visit { census: Arc::clone(self), address })
    }

    fn shard(&self, address: u128) -> Option<MutexGuard<'_, HashMap<u128, usize>>> {
        // IPv6 subscribers differ in the upper half, IPv4 addresses in the last bits.
        let shard = ((address >> 64) ^ address) % SHARDS;
        let shard = self.shards.get(usize::try_from(shard).ok()?)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(mut shard) = self.census.shard(self.address)
            && let Entry::Occupied(mut count) = shard.entry(self.address)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_places_and_gives_them_back() {
        let census = Census::new(2);
        let first = census.enter(1).unwrap();
        let _second = census.enter(1).unwrap();
        assert!(census.enter(1).is_none());
        assert!(census.enter(2).is_some());
        drop(first);
        assert!(census.enter(1).is_some());
        assert!(census.shard(2).unwrap().is_empty());
    }
}
