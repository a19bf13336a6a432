//! Passwords: the rule for new ones, and bcrypt on threads of its own.
//!
//! bcrypt reads 72 bytes and stops at a NUL, so two different passwords could match. It is given
//! `base64(HMAC-SHA-384(key, password))` instead: 64 characters that depend on every byte. The key is the platform's, so
//! that a stolen table alone can't be attacked.
//!
//! Whether an account exists shows in no answer and in no duration: a sign-in to a missing account is verified against
//! a hash that nothing matches, with the same work.
//!
//! The threads are few. Attempts take turns by origin, and one that would wait too long is refused at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use callboard_messages::{Caller, Failure, Secret, auth::AuthError};
use callboard_supervisors::BlockingPool;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha384;

use crate::origins::Origin;

const SHORTEST: usize = 10;
const LONGEST: usize = 128;

/// Time limit of bcrypt with its queue: shorter than the operation's, which needs time for the rest.
const PATIENCE: Duration = Duration::from_secs(8);

/// Common passwords that the other rules accept, in lower case, one a line. Their source: `SOURCES.md` beside it.
const COMMON: &str = include_str!("passwords/common.txt");

/// Whether `password` may be the new password of the account `email`, whose person is called `name`.
pub(crate) fn check(password: &Secret, email: &str, name: &str) -> Result<(), AuthError> {
    let weak = |reason: String| Err(AuthError::WeakPassword(reason));
    check_length(password)?;
    let password = password.expose();
    if password.chars().count() < SHORTEST {
        return weak(format!("the password needs at least {SHORTEST} characters"));
    }
    let lower = password.to_lowercase();
    let one_character = lower.chars().skip(1).all(|character| lower.starts_with(character));
    if one_character || COMMON.lines().any(|common| common == lower) {
        return weak("this password is among the first that an attacker tries; choose another".to_owned());
    }
    // In any spelling: `Ada.Lovelace` and `ada lovelace` are one name.
    let letters = |text: &str| text.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect::<String>();
    let (given, local_part) = (letters(password), email.split('@').next().unwrap_or(email));
    if !given.is_empty() && [email, local_part, name].into_iter().any(|own| letters(own) == given) {
        return weak("the password must not be your own name or e-mail address; choose another".to_owned());
    }
    Ok(())
}

/// Refuses passwords longer than any account has.
pub(crate) fn check_length(password: &Secret) -> Result<(), AuthError> {
    if password.expose().chars().count() <= LONGEST {
        return Ok(());
    }
    Err(AuthError::WeakPassword(format!("a password may have at most {LONGEST} characters")))
}

/// Computes and verifies hashes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Passwords {
    pool: BlockingPool,
    cost: u32,
    key: [u8; 32],
    /// Number of bcrypt runs.
    work: Arc<AtomicU64>,
}

impl Passwords {
    pub(crate) fn new(pool: BlockingPool, cost: u32, key: [u8; 32], work: Arc<AtomicU64>) -> Self {
        Self { pool, cost, key, work }
    }

    /// The bcrypt threads.
    pub(crate) fn pool(&self) -> &BlockingPool {
        &self.pool
    }

    /// The hash to store.
    pub(crate) async fn hash(&self, caller: &Caller, origin: &Origin, password: &Secret) -> Result<String, Failure> {
        let (digest, cost) = (self.digest(password)?, self.cost);
        self.run(caller, origin, move || bcrypt::non_truncating_hash(digest, cost)).await
    }

    /// Whether `password` is that of `hash`. Without a hash the answer is no, after the same work.
    pub(crate) async fn verify(
        &self,
        caller: &Caller,
        origin: &Origin,
        password: &Secret,
        hash: Option<String>,
    ) -> Result<bool, Failure> {
        let digest = self.digest(password)?;
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| unmatched(self.cost));
        let right = self.run(caller, origin, move || bcrypt::non_truncating_verify(digest, &hash)).await?;
        Ok(right && known)
    }

    /// Runs in the origin's turn.
    async fn run<T: Send + 'static>(
        &self,
        caller: &Caller,
        origin: &Origin,
        compute: impl FnOnce() -> bcrypt::BcryptResult<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let latest = self.pool.clock().instant() + PATIENCE;
        let deadline = caller.deadline.map_or(latest, |deadline| deadline.min(latest));
        let work = self.work.clone();
        let job = move || {
            work.fetch_add(1, Ordering::Relaxed);
            compute()
        };
        match self.pool.run_in_turn(origin.turn(), Some(deadline), job).await {
            Ok(computed) => computed.map_err(|error| Failure::Internal(format!("bcrypt: {error}"))),
            // It took longer than estimated: the result is dropped.
            Err(Failure::Expired | Failure::Timeout) => Err(Failure::Overloaded { retry_after: PATIENCE }),
            Err(failure) => Err(failure),
        }
    }

    fn digest(&self, password: &Secret) -> Result<String, Failure> {
        let mut mac =
            Hmac::<Sha384>::new_from_slice(&self.key).map_err(|error| Failure::Internal(error.to_string()))?;
        mac.update(password.expose().as_bytes());
        Ok(STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// A well-formed hash, all zeros, that no password matches.
fn unmatched(cost: u32) -> String {
    format!("$2b${cost:02}${}", ".".repeat(22 + 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Origin = Origin::Network(None);

    fn passwords() -> Passwords {
        Passwords::new(BlockingPool::new("bcrypt", 1, 4), 4, [7; 32], Arc::default())
    }

    async fn matches(stored: &str, given: &str) -> bool {
        let (passwords, caller) = (passwords(), Caller::anonymous());
        let hash = passwords.hash(&caller, &HERE, &Secret::new(stored)).await.unwrap();
        passwords.verify(&caller, &HERE, &Secret::new(given), Some(hash)).await.unwrap()
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
        assert!(!passwords.verify(&caller, &HERE, &Secret::new("anything at all"), None).await.unwrap());
        assert_eq!(passwords.work.load(Ordering::Relaxed), 1);
    }

    #[actix_rt::test]
    async fn a_table_without_the_key_is_worth_nothing() {
        let (passwords, caller) = (passwords(), Caller::anonymous());
        let hash = passwords.hash(&caller, &HERE, &Secret::new("correct horse")).await.unwrap();
        let stranger = Passwords { key: [8; 32], ..passwords };
        assert!(!stranger.verify(&caller, &HERE, &Secret::new("correct horse"), Some(hash)).await.unwrap());
    }

    fn weak(password: &str) -> bool {
        let outcome = check(&Secret::new(password), "ada.lovelace@example.org", "Countess of Lovelace");
        matches!(outcome, Err(AuthError::WeakPassword(_)))
    }

    #[test]
    fn weak_passwords_are_refused() {
        for password in [
            "",
            "short",
            "ninechars",
            "äöüäöüäöü",
            "aaaaaaaaaaaaaaa",
            "Password123",
            "QWERTYUIOP",
            "1234567890",
            "ada.lovelace",
            "AdaLovelace",
            "Ada.Lovelace@example.org",
            "countess of LOVELACE",
            &"x1".repeat(65),
            &"🎭".repeat(19),
        ] {
            assert!(weak(password), "{password}");
        }
        for password in [
            "tencharact",
            "correct horse battery",
            &"x1".repeat(64),
            &"🎭🎪".repeat(64),
            "with\0a nul byte",
            "ada.lovelace!7",
        ] {
            assert!(!weak(password), "{password}");
        }
    }

    #[test]
    fn the_common_passwords_are_thousands_that_nothing_else_would_refuse() {
        let common: Vec<&str> = COMMON.lines().collect();
        assert!(common.len() >= 3000, "{}", common.len());
        for password in &common {
            let length = password.chars().count();
            assert!((SHORTEST..=LONGEST).contains(&length) && password.to_lowercase() == *password, "{password}");
            assert!(
                weak(&password.to_uppercase()) || password.to_uppercase().to_lowercase() != *password,
                "{password}"
            );
        }
        assert!(common.is_sorted_by(|one, next| one < next), "sorted, each once");
    }
}
