//! Tokens that say nothing: 256 random bits, of which only the hash is stored.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use callboard_messages::Secret;
use sha2::{Digest, Sha256};

/// A new token, `<prefix>_<43 characters>`.
pub(crate) fn random(prefix: &str) -> Secret {
    from_bytes(prefix, &rand::random::<[u8; 32]>())
}

/// A token of these bytes.
pub(crate) fn from_bytes(prefix: &str, bytes: &[u8; 32]) -> Secret {
    Secret::new(format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// As a token is stored and found: SHA-256 suffices for what can't be guessed.
pub(crate) fn hash(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(token))
}
