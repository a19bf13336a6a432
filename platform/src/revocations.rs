//! Revocations: how caches of verified credentials learn that one is no longer valid.
//!
//! Auth counts revocations in its database: the transaction that revokes raises the count, so the two can't disagree. A
//! process knows the highest count it has heard of. A cache keeps with each verified token the
//! [`epoch`](Revocations::epoch) it read *before* it asked auth, and trusts the entry only while the epoch is still
//! that one; otherwise it asks again. One atomic read on the hot path, no lock, and nothing that can be missed: after a
//! revocation every cached token is asked about once more, and the revoked one is refused.
//!
//! A process that is alone knows each revocation because it makes it. One of several hears of it in three ways, of
//! which one is enough: from the process that made it, at once ([`nudge`](Revocations::nudge)); from Redis; or from
//! auth ([`confirm`](Revocations::confirm)). The last two also say *as of when* the count was right. Caches are trusted
//! only within [`TRUSTED_FOR`] of that moment ([`is_current`](Revocations::is_current)), so that a revoked credential
//! is refused everywhere within that time, whatever is down; a process that can hear of nothing asks auth about every
//! token.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use callboard_messages::auth::CredentialRevoked;
use tokio::sync::watch;

use callboard_supervisors::Clock;

/// How long caches are trusted after the count was right at its source.
pub const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// The revocations as this process knows them. Clones share that.
#[derive(Debug, Clone)]
pub struct Revocations(Arc<Known>);

#[derive(Debug)]
struct Known {
    /// Changes whenever cached tokens must be asked about again.
    epoch: AtomicU64,
    /// The highest known count of auth's database.
    count: AtomicU64,
    /// The count after this process's own revocations, for other nodes.
    made: watch::Sender<u64>,
    /// `None` for a process that is alone.
    trust: Option<Trust>,
}

struct Trust {
    clock: Clock,
    began: Instant,
    /// Microseconds after `began`.
    until: AtomicU64,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Default for Revocations {
    /// For a process that is alone: nobody else revokes, so its caches are always current.
    fn default() -> Self {
        Self::new(None)
    }
}

impl Revocations {
    fn new(trust: Option<Trust>) -> Self {
        let (epoch, count) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Known { epoch, count, made: watch::Sender::new(0), trust }))
    }

    /// For one process among several: nothing is current until the count is confirmed.
    #[must_use]
    pub fn among_several(clock: Clock) -> Self {
        let began = clock.instant();
        Self::new(Some(Trust { clock, began, until: AtomicU64::new(0) }))
    }

    /// Rises with each revocation. Read it before asking auth, and keep it with the answer.
    #[inline]
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::Acquire)
    }

    /// Whether caches may be trusted now. Read it before the epoch.
    #[inline]
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.0.trust.as_ref().is_none_or(Trust::holds)
    }

    /// The highest count of auth's database that this process knows.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::Acquire)
    }

    /// Publishes a revocation after the commit of its transaction, which raised the count to `count`.
    pub fn revoke(&self, revoked: &CredentialRevoked, count: u64) {
        tracing::info!(target: "callboard::security", ?revoked, count, "a credential was revoked");
        self.nudge(count);
        self.0.made.send_replace(count);
    }

    /// Invalidates all caches after a commit with an unknown outcome.
    pub fn doubt(&self) {
        self.0.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Learns of a count, which may be old.
    pub fn nudge(&self, count: u64) {
        if self.0.count.fetch_max(count, Ordering::AcqRel) < count {
            self.0.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Confirms that the count was `count`, or less, at its source at `as_of`, on this process's clock.
    pub fn confirm(&self, count: u64, as_of: Instant) {
        // In this order: a reader that sees the trust sees the count.
        self.nudge(count);
        if let Some(trust) = &self.0.trust {
            trust.extend(as_of + TRUSTED_FOR);
        }
    }

    /// Watches the count after this process's own revocations, to tell other nodes.
    #[must_use]
    pub fn made(&self) -> watch::Receiver<u64> {
        self.0.made.subscribe()
    }
}

impl Trust {
    fn holds(&self) -> bool {
        self.since_began(self.clock.instant()) < self.until.load(Ordering::Acquire)
    }

    fn extend(&self, until: Instant) {
        self.until.fetch_max(self.since_began(until), Ordering::AcqRel);
    }

    fn since_began(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use callboard_messages::SessionId;
    use chrono::DateTime;

    use super::*;

    #[test]
    fn every_clone_sees_a_revocation_at_once() {
        let revocations = Revocations::default();
        let cache = revocations.clone();
        let before = cache.epoch();
        revocations.revoke(&CredentialRevoked::Session(SessionId::new()), 7);
        assert!(cache.epoch() > before);
        assert_eq!(cache.count(), 7);
        assert_eq!(*cache.made().borrow(), 7);
    }

    #[test]
    fn a_process_that_is_alone_always_trusts_what_it_remembers() {
        assert!(Revocations::default().is_current());
    }

    #[test]
    fn what_is_remembered_is_trusted_only_for_a_while_after_the_count_was_confirmed() {
        let clock = Clock::manual(DateTime::UNIX_EPOCH);
        let revocations = Revocations::among_several(clock.clone());
        assert!(!revocations.is_current(), "nothing is known yet");
        let asked = clock.instant();
        clock.advance(Duration::from_millis(300));
        revocations.confirm(0, asked);
        assert!(revocations.is_current());
        // The time counts from when the count was right, not from when the answer came.
        clock.advance(TRUSTED_FOR - Duration::from_millis(300));
        assert!(!revocations.is_current());
        revocations.nudge(3);
        assert!(!revocations.is_current(), "a rumour confirms nothing");
        revocations.confirm(3, clock.instant());
        assert!(revocations.is_current());
    }

    #[test]
    fn the_epoch_changes_with_news_and_with_doubt_and_not_with_what_is_known() {
        let revocations = Revocations::default();
        let epochs: Vec<u64> = [5, 5, 4, 6]
            .into_iter()
            .map(|count| {
                revocations.nudge(count);
                revocations.epoch()
            })
            .collect();
        assert_eq!(epochs, [1, 1, 1, 2]);
        revocations.doubt();
        assert_eq!(revocations.epoch(), 3);
        assert_eq!(revocations.count(), 6);
    }
}
