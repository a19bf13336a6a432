//! A cache of verified tokens, on this thread.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use callboard_messages::{Caller, OrganizationId};
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

/// Most cached tokens of one thread; about 0.5 kB each.
const CAPACITY: usize = 10_000;

/// SHA-256 of a token with the organization it is used for: the token itself is not kept.
pub(crate) type Key = [u8; 32];

pub(crate) fn key(token: &str, organization_id: Option<OrganizationId>) -> Key {
    let mut hash = Sha256::new();
    hash.update(token.as_bytes());
    if let Some(id) = organization_id {
        hash.update(b"\0");
        hash.update(id.0.as_bytes());
    }
    hash.finalize().into()
}

struct Entry {
    caller: Caller,
    expires_at: DateTime<Utc>,
    /// The epoch of revocations, read before auth was asked.
    epoch: u64,
}

/// No hash: the keys are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        for (at, byte) in bytes.iter().take(8).enumerate() {
            self.0 ^= u64::from(*byte) << (8 * at);
        }
    }

    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Auth's answers about tokens.
#[derive(Default)]
pub(crate) struct Memory(RefCell<HashMap<Key, Entry, BuildHasherDefault<AsItIs>>>);

impl Memory {
    /// The token's caller, if no revocation has happened since auth answered.
    pub(crate) fn get(&self, key: &Key, epoch: u64, now: DateTime<Utc>) -> Option<(Caller, DateTime<Utc>)> {
        let entries = self.0.borrow();
        let entry = entries.get(key)?;
        (entry.epoch == epoch && now < entry.expires_at).then(|| (entry.caller.clone(), entry.expires_at))
    }

    /// Whether auth has accepted the token once, and it has not expired; it may have been revoked since.
    pub(crate) fn knows(&self, key: &Key, now: DateTime<Utc>) -> bool {
        self.0.borrow().get(key).is_some_and(|entry| now < entry.expires_at)
    }

    /// Removes a token that auth does not accept any more.
    pub(crate) fn forget(&self, key: &Key) {
        self.0.borrow_mut().remove(key);
    }

    pub(crate) fn put(&self, key: Key, caller: Caller, expires_at: DateTime<Utc>, epoch: u64, now: DateTime<Utc>) {
        let mut entries = self.0.borrow_mut();
        if entries.len() >= CAPACITY {
            entries.retain(|_, entry| entry.epoch == epoch && now < entry.expires_at);
        }
        if entries.len() >= CAPACITY {
            // All of them are in use: any half is removed, and asked about again.
            let mut keep = false;
            entries.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        entries.insert(key, Entry { caller, expires_at, epoch });
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn remembered(count: usize, epoch: u64) -> (Memory, DateTime<Utc>) {
        let (memory, now) = (Memory::default(), DateTime::UNIX_EPOCH);
        for n in 0..count {
            memory.put(key(&n.to_string(), None), Caller::anonymous(), now + TimeDelta::minutes(1), epoch, now);
        }
        (memory, now)
    }

    #[test]
    fn a_token_is_remembered_until_it_expires() {
        let (memory, now) = remembered(1, 0);
        assert!(memory.get(&key("0", None), 0, now).is_some());
        assert!(memory.get(&key("0", None), 0, now + TimeDelta::minutes(1)).is_none());
        assert!(memory.get(&key("1", None), 0, now).is_none());
        assert!(memory.get(&key("0", Some(OrganizationId::new())), 0, now).is_none());
    }

    #[test]
    fn a_revocation_makes_every_token_be_asked_about_again() {
        let (memory, now) = remembered(1, 0);
        assert!(memory.get(&key("0", None), 1, now).is_none());
        assert!(memory.knows(&key("0", None), now), "its owner guesses nothing");
        memory.forget(&key("0", None));
        assert!(!memory.knows(&key("0", None), now));
    }

    #[test]
    fn memory_is_bounded() {
        let (memory, now) = remembered(3 * CAPACITY, 0);
        assert!(memory.0.borrow().len() <= CAPACITY);
        assert!(memory.get(&key(&(3 * CAPACITY - 1).to_string(), None), 0, now).is_some());
    }
}
