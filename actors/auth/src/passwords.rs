//! Passwords: the rule for new ones, and bcrypt on threads of its own.
//!
//! bcrypt reads 72 bytes and stops at a NUL, so two different passwords could match. It is given
//! `base64(HMAC-SHA-384(key, password))` instead: 64 characters that depend on every byte. The key is the platform's, so
//! that a stolen table alone can't be attacked.
//!
//! Whether an account exists shows in no answer and in no time: one that does not is verified against
//! a hash that nothing matches, with the same work.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use callboard_messages::{Caller, Failure, Secret, auth::AuthError};
use callboard_supervisors::BlockingPool;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha384;

const SHORTEST_CHARACTERS: usize = 10;
const LONGEST_BYTES: usize = 72;

/// Common passwords that the other rules would let pass, in lower case, one a line.
const COMMON: &str = include_str!("passwords/common.txt");

/// Whether `password` may be the new password of the account `email`.
pub(crate) fn check(password: &Secret, email: &str) -> Result<(), AuthError> {
    let weak = |reason: String| Err(AuthError::WeakPassword(reason));
    let password = password.expose();
    if password.chars().count() < SHORTEST_CHARACTERS {
        return weak(format!("the password needs at least {SHORTEST_CHARACTERS} characters"));
    }
    if password.len() > LONGEST_BYTES {
        return weak(format!("the password may have at most {LONGEST_BYTES} bytes"));
    }
    let lower = password.to_lowercase();
    let one_character = lower.chars().skip(1).all(|character| lower.starts_with(character));
    let own_name = lower == email || email.split('@').next() == Some(lower.as_str());
    if one_character || own_name || COMMON.lines().any(|common| common == lower) {
        return weak("this password is among the first that an attacker tries; choose another".to_owned());
    }
    Ok(())
}

/// Computes and verifies hashes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Passwords {
    pool: BlockingPool,
    cost: u32,
    key: [u8; 32],
    /// How often bcrypt ran.
    work: Arc<AtomicU64>,
}

impl Passwords {
    pub(crate) fn new(pool: BlockingPool, cost: u32, key: [u8; 32], work: Arc<AtomicU64>) -> Self {
        Self { pool, cost, key, work }
    }

    /// The threads that compute.
    pub(crate) fn pool(&self) -> &BlockingPool {
        &self.pool
    }

    /// The hash to store.
    pub(crate) async fn hash(&self, caller: &Caller, password: &Secret) -> Result<String, Failure> {
        let (digest, cost, work) = (self.digest(password)?, self.cost, self.work.clone());
        let hashed = self
            .pool
            .run(caller.deadline, move || {
                work.fetch_add(1, Ordering::Relaxed);
                bcrypt::non_truncating_hash(digest, cost)
            })
            .await?;
        hashed.map_err(|error| Failure::Internal(format!("bcrypt: {error}")))
    }

    /// Whether `password` is the one of `hash`. Without a hash the answer is no, after the same work.
    pub(crate) async fn verify(
        &self,
        caller: &Caller,
        password: &Secret,
        hash: Option<String>,
    ) -> Result<bool, Failure> {
        let (digest, work) = (self.digest(password)?, self.work.clone());
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| unmatched(self.cost));
        let verified = self
            .pool
            .run(caller.deadline, move || {
                work.fetch_add(1, Ordering::Relaxed);
                bcrypt::non_truncating_verify(digest, &hash)
            })
            .await?;
        let right = verified.map_err(|error| Failure::Internal(format!("bcrypt: {error}")))?;
        Ok(right && known)
    }

    fn digest(&self, password: &Secret) -> Result<String, Failure> {
        let mut mac =
            Hmac::<Sha384>::new_from_slice(&self.key).map_err(|error| Failure::Internal(error.to_string()))?;
        mac.update(password.expose().as_bytes());
        Ok(STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// A well-formed hash, all zeros, of no known password.
fn unmatched(cost: u32) -> String {
    format!("$2b${cost:02}${}", ".".repeat(22 + 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(BlockingPool::new("bcrypt", 1, 4), 4, [7; 32], Arc::default())
    }

    async fn matches(stored: &str, given: &str) -> bool {
        let (passwords, caller) = (passwords(), Caller::anonymous());
        let hash = passwords.hash(&caller, &Secret::new(stored)).await.unwrap();
        passwords.verify(&caller, &Secret::new(given), Some(hash)).await.unwrap()
    }

    #[actix_rt::test]
    async fn no_two_different_passwords_match() {
        let long = "x".repeat(200);
        let mut differs_late = long.clone();
        differs_late.replace_range(100..101, "y");
        for (one, other) in [
            (long.as_str(), differs_late.as_str()),
            (&long[..72], &long[..73]),
            ("before\0after one", "before\0after two"),
            ("\0one", "\0two"),
            ("correct horse", "correct horse "),
            ("Ünïcode", "Unicode"),
        ] {
            assert!(matches(one, one).await, "{one:?}");
            assert!(!matches(one, other).await, "{one:?} {other:?}");
        }
    }

    #[actix_rt::test]
    async fn an_account_without_a_password_matches_nothing_after_the_same_work() {
        let (passwords, caller) = (passwords(), Caller::anonymous());
        assert!(!passwords.verify(&caller, &Secret::new("anything at all"), None).await.unwrap());
        assert_eq!(passwords.work.load(Ordering::Relaxed), 1);
    }

    #[actix_rt::test]
    async fn a_table_without_the_key_is_worth_nothing() {
        let (passwords, caller) = (passwords(), Caller::anonymous());
        let hash = passwords.hash(&caller, &Secret::new("correct horse")).await.unwrap();
        let stranger = Passwords { key: [8; 32], ..passwords };
        assert!(!stranger.verify(&caller, &Secret::new("correct horse"), Some(hash)).await.unwrap());
    }

    #[test]
    fn weak_passwords_are_refused() {
        let email = "ada.lovelace@example.org";
        for weak in [
            "",
            "short",
            "ninechars",
            "äöüäöüäöü",
            "aaaaaaaaaaaaaaa",
            "Password123",
            "QWERTYUIOP",
            "1234567890",
            "ada.lovelace",
            "Ada.Lovelace@example.org",
            &"x1".repeat(37),
            &"🎭".repeat(19),
        ] {
            assert!(matches!(check(&Secret::new(weak), email), Err(AuthError::WeakPassword(_))), "{weak}");
        }
        for strong in ["tencharact", "correct horse battery", &"x1".repeat(36), &"🎭🎪".repeat(9), "with\0a nul byte"]
        {
            assert_eq!(check(&Secret::new(strong), email), Ok(()), "{strong}");
        }
    }
}
