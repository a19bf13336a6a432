//! Opaque tokens: 256 random bits, of which only the hash is stored.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use callboard_messages::{Secret, auth::AuthError};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A new token, `<prefix>_<43 characters>`.
pub(crate) fn random(prefix: &str) -> Secret {
    from_bytes(prefix, &rand::random::<[u8; 32]>())
}

/// A token of these bytes.
pub(crate) fn from_bytes(prefix: &str, bytes: &[u8; 32]) -> Secret {
    Secret::new(format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// The bytes of such a token.
pub(crate) fn to_bytes(prefix: &str, token: &str) -> Option<[u8; 32]> {
    let encoded = token.strip_prefix(prefix)?.strip_prefix('_').filter(|encoded| encoded.len() == 43)?;
    URL_SAFE_NO_PAD.decode(encoded).ok()?.try_into().ok()
}

/// Longer texts are refused without a query.
const LONGEST: usize = 128;

/// Refuses a text that is too long for a token.
pub(crate) fn check_length(field: &str, token: Option<&Secret>) -> Result<(), AuthError> {
    if token.is_some_and(|token| token.expose().chars().count() > LONGEST) {
        return Err(AuthError::Invalid(format!("`{field}` has at most {LONGEST} characters")));
    }
    Ok(())
}

/// The stored form of a token: SHA-256 suffices for what can't be guessed.
pub(crate) fn hash(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(token))
}

/// Whether two tokens are equal, in constant time.
pub(crate) fn equal(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}
