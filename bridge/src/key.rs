//! The key that the nodes of a cluster share. What it did not sign is not read.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The shortest key that is taken, in bytes.
const SHORTEST: usize = 32;

/// The cluster's key. `Debug` does not show it.
#[derive(Clone)]
pub struct ClusterKey(Hmac<Sha256>);

impl ClusterKey {
    /// From a text of at least 32 bytes, the same on every node.
    ///
    /// # Errors
    /// A sentence, when it is too short.
    pub fn new(text: impl AsRef<[u8]>) -> Result<Self, String> {
        let text = text.as_ref();
        if text.len() < SHORTEST {
            return Err(format!("the cluster key has {} bytes and must have at least {SHORTEST}", text.len()));
        }
        Hmac::new_from_slice(text).map(Self).map_err(|error| format!("the cluster key can't be used: {error}"))
    }

    /// A new one, for a cluster that lives as long as this process.
    #[must_use]
    pub fn generate() -> Self {
        Self(Hmac::new(&rand::random::<[u8; 64]>().into()))
    }

    /// Signs what is said in `kind` to `to`.
    pub(crate) fn sign(&self, kind: u8, to: &str, body: &[u8]) -> [u8; 32] {
        self.over(kind, to, body).finalize().into_bytes().into()
    }

    /// Whether the key signed it. Takes the same time whatever is wrong.
    pub(crate) fn has_signed(&self, signature: &[u8], kind: u8, to: &str, body: &[u8]) -> bool {
        self.over(kind, to, body).verify_slice(signature).is_ok()
    }

    fn over(&self, kind: u8, to: &str, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(&[kind]);
        mac.update(&u64::try_from(to.len()).unwrap_or(u64::MAX).to_be_bytes());
        mac.update(to.as_bytes());
        mac.update(body);
        mac
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[cluster key]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_has_signed_the_same_words() {
        let key = ClusterKey::new([7; 32]).unwrap();
        let signature = key.sign(1, "queue", b"body");
        assert!(ClusterKey::new([7; 32]).unwrap().has_signed(&signature, 1, "queue", b"body"));
        assert!(!ClusterKey::generate().has_signed(&signature, 1, "queue", b"body"));
        assert!(!key.has_signed(&signature, 2, "queue", b"body"));
        assert!(!key.has_signed(&signature, 1, "queueb", b"ody"));
        assert!(!key.has_signed(&signature[..31], 1, "queue", b"body"));
        assert!(!key.has_signed(b"", 1, "queue", b"body"));
    }

    #[test]
    fn a_short_key_is_refused() {
        assert!(ClusterKey::new("secret").unwrap_err().contains("at least 32"));
    }
}
