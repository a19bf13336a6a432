//! Which shard a key belongs to. Calls of one key go to one shard, which runs them one at a time in the order in which
//! they were written down here.
//!
//! A key belongs to the shard its hash says. While calls of a key wait or run it stays where it is, even if the number
//! of shards changes: a worker thread that attaches must not let two calls of a key run at the same time.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use parking_lot::ReentrantMutex;
use uuid::Uuid;

use crate::domain::core::DomainCore;

/// Reentrant, because a call that cannot be sent ends while it is being sent.
#[derive(Default)]
pub(crate) struct Keys(ReentrantMutex<RefCell<HashMap<Uuid, Held>>>);

struct Held {
    shard: usize,
    calls: usize,
}

/// A call of a key, from its arrival to its end.
pub(crate) struct KeyGuard {
    pub(crate) key: Uuid,
    core: Arc<DomainCore>,
}

impl Keys {
    /// Writes a call down: `send` gets the shard that has the key, and whether the call is the only one of it. Calls of
    /// a key are sent one after the other, so that they arrive in order.
    pub(crate) fn enter<T, E>(
        &self,
        core: &Arc<DomainCore>,
        key: Uuid,
        home: impl FnOnce(Option<usize>) -> Result<usize, E>,
        send: impl FnOnce(usize, bool, KeyGuard) -> T,
    ) -> Result<T, E> {
        let keys = self.0.lock();
        let shard = home(keys.borrow().get(&key).map(|held| held.shard))?;
        let alone = {
            let mut keys = keys.borrow_mut();
            let held = keys.entry(key).or_insert(Held { shard, calls: 0 });
            held.shard = shard;
            held.calls += 1;
            held.calls == 1
        };
        Ok(send(shard, alone, KeyGuard { key, core: core.clone() }))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().borrow().len()
    }
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        let keys = self.core.keys.0.lock();
        let mut keys = keys.borrow_mut();
        if let Some(held) = keys.get_mut(&self.key) {
            held.calls -= 1;
            if held.calls == 0 {
                keys.remove(&self.key);
            }
        }
    }
}

/// The place of a key among `count`. UUIDv7 begin with the time, so all bits are mixed.
pub(crate) fn place_of(key: Uuid, count: usize) -> usize {
    let (high, low) = key.as_u64_pair();
    let mixed = (high ^ low.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    usize::try_from(mixed >> 32).unwrap_or(0) % count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_spread_over_the_shards() {
        let mut places = [0_u32; 4];
        for _ in 0..4000 {
            places[place_of(Uuid::now_v7(), 4)] += 1;
        }
        assert!(places.iter().all(|count| (800..1200).contains(count)), "{places:?}");
    }
}
