//! The keys that sign access tokens.
//!
//! One key is active. Rotation makes a new one and retires the old, which is served and believed until the last token it
//! can have signed has expired: nobody is signed out. Every node reads the keys again once a minute, and at once, though
//! at most every five seconds, when a token names a key it does not know.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize, PublicKeyComponents},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use callboard_messages::{
    CallError, Caller, Failure,
    auth::{AuthError, GetJwks, Jwk, Jwks, RotateSigningKey},
};
use callboard_supervisors::{
    BlockingPool, Clock, Handle, Outcome, StartError, Turn,
    db::{Database, Error, Transaction},
    seal::SealError,
};
use chrono::{DateTime, Utc};
use jsonwebtoken::DecodingKey;
use std::sync::RwLock;
use uuid::Uuid;

use crate::{server_keys::wrong_master_key, settings::AuthSettings, state::Auth};

/// Interval of reading the keys, in case another node rotated them.
const FRESH: Duration = Duration::from_secs(60);
/// Shortest interval of reading them because of a token with an unknown key.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(5);

/// The turn of the platform itself, before those of sign-ins.
const OWN: Turn = Turn { subject: 0, preferred: true };

/// The active key.
#[derive(Clone)]
pub(crate) struct SigningKey {
    pub(crate) kid: String,
    pair: Arc<KeyPair>,
}

impl SigningKey {
    /// RS256.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| Failure::Internal("an access token could not be signed".to_owned()))?;
        Ok(signature)
    }
}

/// An active or retired key.
pub(crate) struct VerifyingKey {
    pub(crate) key: DecodingKey,
    jwk: Jwk,
    /// When its last token has expired; `None` while it is active.
    until: Option<DateTime<Utc>>,
}

/// A snapshot of the keys.
pub(crate) struct Ring {
    pub(crate) signing: SigningKey,
    verifying: Vec<VerifyingKey>,
    read_at: Instant,
}

impl Ring {
    /// The key with this id, while tokens of it can be valid.
    pub(crate) fn verifying(&self, kid: &str, now: DateTime<Utc>) -> Option<&VerifyingKey> {
        self.usable(now).find(|key| key.jwk.kid == kid)
    }

    fn usable(&self, now: DateTime<Utc>) -> impl Iterator<Item = &VerifyingKey> {
        self.verifying.iter().filter(move |key| key.until.is_none_or(|until| now < until))
    }

    fn jwks(&self, now: DateTime<Utc>) -> Jwks {
        Jwks { keys: self.usable(now).map(|key| key.jwk.clone()).collect() }
    }
}

/// The node's copy of the keys.
pub(crate) struct SigningKeys(RwLock<Arc<Ring>>);

#[derive(sqlx::FromRow)]
struct SigningKeyRow {
    kid: String,
    active: bool,
    wrapped_key: Vec<u8>,
    sealed_private_key: Vec<u8>,
    modulus: String,
    exponent: String,
    retired_at: Option<DateTime<Utc>>,
}

impl SigningKeys {
    /// Reads the keys; creates the first one.
    pub(crate) async fn open(settings: &AuthSettings, database: &Database, clock: &Clock) -> Result<Self, StartError> {
        let active: Option<(String,)> = database
            .query("SELECT kid FROM signing_keys WHERE active")
            .fetch_optional()
            .await
            .map_err(StartError::new)?;
        if active.is_none() {
            // On a thread of normal priority: every call to auth waits for the first key, and the threads of the pool
            // get only the time that others leave, which is next to none while several nodes start on a machine.
            let pool = BlockingPool::prompt("auth-first-key", 1, 1);
            let generated = pool.run(None, generate).await.map_err(StartError::new)??;
            let mut transaction = database.begin().await.map_err(StartError::new)?;
            insert(&mut transaction, settings, &generated, clock.now()).await?;
            transaction.commit().await.map_err(StartError::new)?;
        }
        let read_at = clock.instant();
        let rows = rows(settings, database, clock).await.map_err(StartError::new)?;
        let ring = Ring::of(settings, rows, read_at)?;
        Ok(Self(RwLock::new(Arc::new(ring))))
    }

    /// The keys, at most a minute old.
    pub(crate) async fn current(
        &self,
        settings: &AuthSettings,
        database: &Database,
        clock: &Clock,
    ) -> Result<Arc<Ring>, Failure> {
        self.not_older_than(FRESH, settings, database, clock).await
    }

    /// The keys, read again when `kid` is not among them.
    pub(crate) async fn holding(
        &self,
        kid: &str,
        settings: &AuthSettings,
        database: &Database,
        clock: &Clock,
    ) -> Result<Arc<Ring>, Failure> {
        let ring = self.current(settings, database, clock).await?;
        if ring.verifying.iter().any(|key| key.jwk.kid == kid) {
            return Ok(ring);
        }
        self.not_older_than(UNKNOWN_KEY_PAUSE, settings, database, clock).await
    }

    async fn not_older_than(
        &self,
        age: Duration,
        settings: &AuthSettings,
        database: &Database,
        clock: &Clock,
    ) -> Result<Arc<Ring>, Failure> {
        let ring = self.ring();
        if clock.instant().saturating_duration_since(ring.read_at) < age {
            return Ok(ring);
        }
        self.read_again(settings, database, clock).await
    }

    async fn read_again(
        &self,
        settings: &AuthSettings,
        database: &Database,
        clock: &Clock,
    ) -> Result<Arc<Ring>, Failure> {
        let read_at = clock.instant();
        let rows = rows(settings, database, clock).await?;
        let ring = Ring::of(settings, rows, read_at).map_err(|error| Failure::Internal(error.to_string()))?;
        let ring = Arc::new(ring);
        *self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = ring.clone();
        Ok(ring)
    }

    fn ring(&self) -> Arc<Ring> {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

async fn rows(settings: &AuthSettings, database: &Database, clock: &Clock) -> Result<Vec<SigningKeyRow>, Error> {
    database
        .query(
            "SELECT kid, active, wrapped_key, sealed_private_key, modulus, exponent, retired_at
             FROM signing_keys WHERE active OR retired_at > $1 ORDER BY created_at DESC",
        )
        .bind(clock.now() - retention(settings))
        .fetch_all()
        .await
}

impl Ring {
    fn of(settings: &AuthSettings, rows: Vec<SigningKeyRow>, read_at: Instant) -> Result<Self, StartError> {
        let (mut signing, mut verifying) = (None, Vec::new());
        for row in rows {
            if row.active {
                signing = Some(SigningKey { kid: row.kid.clone(), pair: Arc::new(open_pair(settings, &row)?) });
            }
            let key = DecodingKey::from_rsa_components(&row.modulus, &row.exponent).map_err(StartError::new)?;
            let until = row.retired_at.map(|retired_at| retired_at + retention(settings));
            verifying.push(VerifyingKey { key, jwk: jwk(row.kid, row.modulus, row.exponent), until });
        }
        let signing = signing.ok_or_else(|| StartError::from("auth has no active signing key"))?;
        Ok(Self { signing, verifying, read_at })
    }
}

/// How long a retired key stays valid: another node may sign with it until it reads the keys again.
fn retention(settings: &AuthSettings) -> Duration {
    settings.access_token_lifetime + FRESH
}

fn jwk(kid: String, n: String, e: String) -> Jwk {
    Jwk { kty: "RSA".to_owned(), usage: "sig".to_owned(), alg: "RS256".to_owned(), kid, n, e }
}

fn identity(kid: &str) -> String {
    format!("auth/signing_keys/{kid}")
}

fn open_pair(settings: &AuthSettings, row: &SigningKeyRow) -> Result<KeyPair, StartError> {
    let identity = identity(&row.kid);
    let opened: Result<Vec<u8>, SealError> = settings
        .master_key
        .unwrap(&row.wrapped_key, identity.as_bytes())
        .and_then(|data_key| data_key.open(&row.sealed_private_key, identity.as_bytes()));
    KeyPair::from_pkcs8(&opened.map_err(wrong_master_key)?).map_err(StartError::new)
}

/// A new key that is not stored yet.
struct Generated {
    kid: String,
    private_key: Vec<u8>,
    modulus: String,
    exponent: String,
}

/// Uses CPU for a good part of a second.
fn generate() -> Result<Generated, Failure> {
    let generate = || {
        let pair = KeyPair::generate(KeySize::Rsa2048)?;
        let public = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        Ok(Generated {
            kid: Uuid::now_v7().simple().to_string(),
            private_key: pair.as_der()?.as_ref().to_vec(),
            modulus: URL_SAFE_NO_PAD.encode(public.n),
            exponent: URL_SAFE_NO_PAD.encode(public.e),
        })
    };
    generate().map_err(|_: aws_lc_rs::error::Unspecified| Failure::Internal("no signing key could be made".to_owned()))
}

/// Stores the key as the active one, unless another node was faster.
async fn insert(
    transaction: &mut Transaction,
    settings: &AuthSettings,
    generated: &Generated,
    now: DateTime<Utc>,
) -> Result<(), Failure> {
    let identity = identity(&generated.kid);
    let sealing = |error: SealError| Failure::Internal(error.to_string());
    let (wrapped, data_key) = settings.master_key.wrap_new_key(identity.as_bytes()).map_err(sealing)?;
    let sealed = data_key.seal(&generated.private_key, identity.as_bytes()).map_err(sealing)?;
    transaction
        .query(
            "INSERT INTO signing_keys (kid, active, wrapped_key, sealed_private_key, modulus, exponent, created_at)
             VALUES ($1, TRUE, $2, $3, $4, $5, $6)
             ON CONFLICT DO NOTHING",
        )
        .bind(generated.kid.clone())
        .bind(wrapped)
        .bind(sealed)
        .bind(generated.modulus.clone())
        .bind(generated.exponent.clone())
        .bind(now)
        .execute()
        .await?;
    Ok(())
}

impl Handle<GetJwks> for Auth {
    async fn handle(&self, _: &Caller, _: GetJwks) -> Outcome<GetJwks> {
        let ring = self.shared.signing_keys.current(&self.settings, &self.database, &self.context.clock).await?;
        Ok(ring.jwks(self.now()))
    }
}

impl Handle<RotateSigningKey> for Auth {
    async fn handle(&self, caller: &Caller, _: RotateSigningKey) -> Outcome<RotateSigningKey> {
        let generated = self.shared.passwords.pool().run_in_turn(OWN, caller.deadline, generate).await??;
        let now = self.now();
        let rotate = async |transaction: &mut Transaction| -> Result<(), CallError<AuthError>> {
            transaction
                .query("UPDATE signing_keys SET active = FALSE, retired_at = $1 WHERE active")
                .bind(now)
                .execute()
                .await?;
            insert(transaction, &self.settings, &generated, now).await?;
            transaction
                .query("DELETE FROM signing_keys WHERE retired_at < $1")
                .bind(now - retention(&self.settings))
                .execute()
                .await?;
            Ok(())
        };
        self.database.transact(rotate).await?;
        tracing::info!(target: "callboard::security", kid = generated.kid, "a new signing key took over");
        let keys = &self.shared.signing_keys;
        let ring: Result<_, CallError<AuthError>> =
            keys.read_again(&self.settings, &self.database, &self.context.clock).await.map_err(Into::into);
        Ok(ring.map_err(CallError::after_effect)?.jwks(now))
    }
}
