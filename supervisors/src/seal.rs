//! Secrets at rest: AES-256-GCM envelopes.
//!
//! The platform has one [`MasterKey`]. Each scope (a project, a signing key) has a [`DataKey`] of its own, stored wrapped
//! by the master key, so that another master key means wrapping a few keys anew ([`MasterKey::rewrap`]) and never
//! touching what they seal. Whoever seals names the row's identity as associated data; an envelope that was moved to
//! another row does not open. Every envelope is a version byte, a random nonce of 96 bits, and the ciphertext with its tag.

use std::{fmt, sync::Arc};

use aes_gcm::{
    Aes256Gcm, Key, KeyInit, Nonce,
    aead::{Aead, Generate, Payload},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use callboard_messages::Secret;

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;
/// Said apart from what a data key seals, so that one can't stand in for the other even under one key.
const WRAP: &[u8] = b"callboard key\0";
const SEAL: &[u8] = b"callboard secret\0";

/// Why something could not be sealed or opened. It tells nothing about the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Another key or another row's identity, or the envelope was changed or cut.
    #[error("the secret can't be opened: it was sealed with another key or for another place, or it was changed")]
    CannotOpen,
    /// Not 32 bytes in base64.
    #[error("a master key is 32 random bytes in base64; `openssl rand -base64 32` makes one")]
    MalformedKey,
    /// The system's source of randomness failed, or the text is larger than AES-GCM allows (64 GiB).
    #[error("the secret can't be sealed")]
    CannotSeal,
}

/// The key that wraps every data key. Cheap to clone.
#[derive(Clone)]
pub struct MasterKey(Arc<Key<Aes256Gcm>>);

/// A scope's key in the clear, only ever in memory.
#[derive(Clone)]
pub struct DataKey(Arc<Key<Aes256Gcm>>);

impl MasterKey {
    /// A new random key.
    ///
    /// # Errors
    /// When the system's source of randomness fails.
    pub fn generate() -> Result<Self, SealError> {
        Ok(Self(Arc::new(random_key()?)))
    }

    /// Reads a key as [`MasterKey::to_base64`] writes it; white space around it does not matter.
    ///
    /// # Errors
    /// When it is not 32 bytes in base64.
    pub fn from_base64(text: &str) -> Result<Self, SealError> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| SealError::MalformedKey)?;
        Ok(Self(Arc::new(key_from(&bytes).ok_or(SealError::MalformedKey)?)))
    }

    /// The key in base64, as it is kept in a file or a variable.
    #[must_use]
    pub fn to_base64(&self) -> Secret {
        Secret::new(STANDARD.encode(self.0.as_slice()))
    }

    /// A new data key, wrapped for the row that `aad` identifies, and itself.
    ///
    /// # Errors
    /// When the system's source of randomness fails.
    pub fn wrap_new_key(&self, aad: &[u8]) -> Result<(Vec<u8>, DataKey), SealError> {
        let key = DataKey(Arc::new(random_key()?));
        Ok((seal(&self.0, WRAP, key.0.as_slice(), aad)?, key))
    }

    /// The data key in `wrapped`.
    ///
    /// # Errors
    /// When another master key wrapped it, or it belongs to another row.
    pub fn unwrap(&self, wrapped: &[u8], aad: &[u8]) -> Result<DataKey, SealError> {
        let bytes = open(&self.0, WRAP, wrapped, aad)?;
        Ok(DataKey(Arc::new(key_from(&bytes).ok_or(SealError::CannotOpen)?)))
    }

    /// The same data key, wrapped by this master key instead of `former`.
    ///
    /// # Errors
    /// When `former` does not open it.
    pub fn rewrap(&self, former: &Self, wrapped: &[u8], aad: &[u8]) -> Result<Vec<u8>, SealError> {
        seal(&self.0, WRAP, former.unwrap(wrapped, aad)?.0.as_slice(), aad)
    }
}

impl DataKey {
    /// A derived key, which is not stored.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Arc::new(bytes.into()))
    }

    /// Seals `plain` for the row that `aad` identifies.
    ///
    /// # Errors
    /// When the system's source of randomness fails.
    pub fn seal(&self, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, SealError> {
        seal(&self.0, SEAL, plain, aad)
    }

    /// Opens what was sealed for the row that `aad` identifies.
    ///
    /// # Errors
    /// When another key sealed it, it belongs to another row, or it was changed.
    pub fn open(&self, sealed: &[u8], aad: &[u8]) -> Result<Vec<u8>, SealError> {
        open(&self.0, SEAL, sealed, aad)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey([secret])")
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey([secret])")
    }
}

fn random_key() -> Result<Key<Aes256Gcm>, SealError> {
    Key::<Aes256Gcm>::try_generate().map_err(|_| SealError::CannotSeal)
}

fn key_from(bytes: &[u8]) -> Option<Key<Aes256Gcm>> {
    <[u8; 32]>::try_from(bytes).ok().map(Into::into)
}

fn seal(key: &Key<Aes256Gcm>, purpose: &[u8], plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, SealError> {
    let nonce = <[u8; NONCE_BYTES]>::try_generate().map_err(|_| SealError::CannotSeal)?;
    let aad = [purpose, aad].concat();
    let ciphertext = Aes256Gcm::new(key)
        .encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: &aad })
        .map_err(|_| SealError::CannotSeal)?;
    Ok([&[VERSION][..], &nonce, &ciphertext].concat())
}

fn open(key: &Key<Aes256Gcm>, purpose: &[u8], sealed: &[u8], aad: &[u8]) -> Result<Vec<u8>, SealError> {
    let Some((&VERSION, rest)) = sealed.split_first() else { return Err(SealError::CannotOpen) };
    let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::CannotOpen)?;
    let aad = [purpose, aad].concat();
    Aes256Gcm::new(key)
        .decrypt(&Nonce::from(*nonce), Payload { msg: ciphertext, aad: &aad })
        .map_err(|_| SealError::CannotOpen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped_key(aad: &[u8]) -> (MasterKey, Vec<u8>, DataKey) {
        let master = MasterKey::generate().unwrap();
        let (wrapped, key) = master.wrap_new_key(aad).unwrap();
        (master, wrapped, key)
    }

    #[test]
    fn a_secret_opens_with_its_wrapped_key_after_a_restart() {
        let (master, wrapped, key) = wrapped_key(b"project 1");
        let sealed = key.seal(b"hunter2", b"project 1/API_TOKEN").unwrap();
        let master = MasterKey::from_base64(&format!(" {}\n", master.to_base64().expose())).unwrap();
        let key = master.unwrap(&wrapped, b"project 1").unwrap();
        assert_eq!(key.open(&sealed, b"project 1/API_TOKEN").unwrap(), b"hunter2");
    }

    #[test]
    fn a_secret_or_key_moved_to_another_row_does_not_open() {
        let (master, wrapped, key) = wrapped_key(b"project 1");
        let sealed = key.seal(b"hunter2", b"A").unwrap();
        assert_eq!(key.open(&sealed, b"B"), Err(SealError::CannotOpen));
        assert_eq!(master.unwrap(&wrapped, b"project 2").unwrap_err(), SealError::CannotOpen);
    }

    #[test]
    fn another_key_does_not_open() {
        let (_, wrapped, key) = wrapped_key(b"");
        let (stranger, _, other) = wrapped_key(b"");
        assert_eq!(stranger.unwrap(&wrapped, b"").unwrap_err(), SealError::CannotOpen);
        assert_eq!(other.open(&key.seal(b"x", b"").unwrap(), b""), Err(SealError::CannotOpen));
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let (_, _, key) = wrapped_key(b"");
        let sealed = key.seal(b"hunter2", b"A").unwrap();
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(key.open(&changed, b"A"), Err(SealError::CannotOpen), "byte {place}");
            assert_eq!(key.open(&sealed[..place], b"A"), Err(SealError::CannotOpen), "cut at {place}");
        }
    }

    #[test]
    fn equal_secrets_seal_differently() {
        let (_, _, key) = wrapped_key(b"");
        assert_ne!(key.seal(b"x", b"").unwrap(), key.seal(b"x", b"").unwrap());
    }

    #[test]
    fn a_new_master_key_takes_over_without_touching_what_is_sealed() {
        let (former, wrapped, key) = wrapped_key(b"project 1");
        let sealed = key.seal(b"hunter2", b"A").unwrap();
        let master = MasterKey::generate().unwrap();
        let wrapped = master.rewrap(&former, &wrapped, b"project 1").unwrap();
        assert!(former.unwrap(&wrapped, b"project 1").is_err());
        assert_eq!(master.unwrap(&wrapped, b"project 1").unwrap().open(&sealed, b"A").unwrap(), b"hunter2");
    }

    #[test]
    fn a_malformed_master_key_is_refused() {
        for text in ["", "short", "AAAA", &"A".repeat(88), "not base64 at all!"] {
            assert_eq!(MasterKey::from_base64(text).unwrap_err(), SealError::MalformedKey, "{text}");
        }
    }

    #[test]
    fn keys_are_not_shown() {
        let (master, _, key) = wrapped_key(b"");
        assert_eq!(format!("{master:?} {key:?}"), "MasterKey([secret]) DataKey([secret])");
    }
}
