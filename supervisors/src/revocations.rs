//! How everything that remembers a verified credential learns, at once, that one stopped being valid.
//!
//! Auth counts: each revocation, after its commit, raises the epoch. A cache keeps with each verified token the epoch
//! it read *before* it asked auth, and trusts the entry only while the epoch is still that one; otherwise it asks
//! again. One atomic read on the hot path, no lock, and nothing that can be missed: a revocation makes every
//! remembered token be asked about once more, the revoked one in vain.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use callboard_messages::auth::CredentialRevoked;

/// The revocations of this process. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Revocations(Arc<AtomicU64>);

impl Revocations {
    /// Rises with each revocation. Read it before asking auth, and keep it with the answer.
    #[inline]
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// A credential stopped being valid. To be called after the commit that says so.
    pub fn revoke(&self, revoked: &CredentialRevoked) {
        let epoch = self.0.fetch_add(1, Ordering::AcqRel) + 1;
        tracing::info!(target: "callboard::security", ?revoked, epoch, "a credential was revoked");
    }
}

#[cfg(test)]
mod tests {
    use callboard_messages::SessionId;

    use super::*;

    #[test]
    fn every_clone_sees_a_revocation_at_once() {
        let revocations = Revocations::default();
        let cache = revocations.clone();
        let before = cache.epoch();
        revocations.revoke(&CredentialRevoked::Session(SessionId::new()));
        assert!(cache.epoch() > before);
    }
}
