//! The key that the nodes of a cluster share. Messages that it did not sign are not read.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::wire::Kind;

/// Shortest key, in bytes.
const SHORTEST: usize = 32;

/// The cluster's key. `Debug` does not show it.
#[derive(Clone)]
pub struct ClusterKey {
    key: Hmac<Sha256>,
    former: Option<Hmac<Sha256>>,
}

impl ClusterKey {
    /// The key of a text of at least 32 bytes, the same on every node.
    ///
    /// # Errors
    /// A sentence, when it is too short.
    pub fn new(text: impl AsRef<[u8]>) -> Result<Self, String> {
        Ok(Self { key: mac(text.as_ref())?, former: None })
    }

    /// The same key as the successor of `former`: events that were signed with that, and still wait in a queue, are
    /// accepted. Nothing else is.
    ///
    /// # Errors
    /// A sentence, when the former one is too short.
    pub fn after(self, former: impl AsRef<[u8]>) -> Result<Self, String> {
        Ok(Self { former: Some(mac(former.as_ref())?), ..self })
    }

    /// A random key, for a cluster within this process.
    #[must_use]
    pub fn generate() -> Self {
        Self { key: Hmac::new(&rand::random::<[u8; 64]>().into()), former: None }
    }

    /// Signs a message of this kind to `to`.
    pub(crate) fn sign(&self, kind: u8, to: &str, body: &[u8]) -> [u8; 32] {
        over(&self.key, kind, to, body).finalize().into_bytes().into()
    }

    /// Whether the key signed it. Takes constant time.
    pub(crate) fn has_signed(&self, signature: &[u8], kind: u8, to: &str, body: &[u8]) -> bool {
        let signed = |key: &Hmac<Sha256>| over(key, kind, to, body).verify_slice(signature).is_ok();
        let former = self.former.as_ref().filter(|_| kind == Kind::Event as u8);
        signed(&self.key) || former.is_some_and(signed)
    }
}

fn mac(text: &[u8]) -> Result<Hmac<Sha256>, String> {
    if text.len() < SHORTEST {
        return Err(format!("the cluster key has {} bytes and must have at least {SHORTEST}", text.len()));
    }
    Hmac::new_from_slice(text).map_err(|error| format!("the cluster key can't be used: {error}"))
}

fn over(key: &Hmac<Sha256>, kind: u8, to: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = key.clone();
    mac.update(&[kind]);
    mac.update(&u64::try_from(to.len()).unwrap_or(u64::MAX).to_be_bytes());
    mac.update(to.as_bytes());
    mac.update(body);
    mac
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
    fn of_what_a_former_key_has_signed_only_events_are_believed() {
        let (former, key) = (ClusterKey::new([6; 32]).unwrap(), ClusterKey::new([7; 32]).unwrap());
        let (event, request) = (Kind::Event as u8, Kind::Requests as u8);
        let signature = |kind| former.sign(kind, "queue", b"body");
        assert!(!key.has_signed(&signature(event), event, "queue", b"body"));
        let key = key.after([6; 32]).unwrap();
        assert!(key.has_signed(&signature(event), event, "queue", b"body"));
        assert!(!key.has_signed(&signature(request), request, "queue", b"body"));
        assert!(key.after("short").is_err());
    }

    #[test]
    fn a_short_key_is_refused() {
        assert!(ClusterKey::new("secret").unwrap_err().contains("at least 32"));
    }
}
