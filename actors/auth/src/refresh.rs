//! Exchanging a refresh token for its successor.
//!
//! The exchange is one conditional `UPDATE`, so of any number of parallel attempts one spends the token. The others,
//! and a client whose answer was lost, must not be logged out: for ten seconds the spent token yields **the same
//! successor**. That is possible without storing the successor in the clear because it is derived,
//! `HMAC-SHA-256(key, predecessor)`: a new 256-bit secret to everybody without the platform's key. A token that is
//! spent for longer can only come from a thief or a copy: the session ends, with every token it ever had.

use std::time::Duration;

use callboard_messages::{
    CallError, Caller, Failure, Secret, SessionId, UserId,
    auth::{AuthError, RefreshToken},
};
use callboard_supervisors::{
    Handle, Outcome,
    db::{Error, Transaction},
};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{accounts::AccountRow, opaque, state::Auth};

/// Prefix of every refresh token.
pub(crate) const PREFIX: &str = "cbr";

/// How long a spent token still yields its successor.
const GRACE: Duration = Duration::from_secs(10);

/// Derives the successor of each token.
pub(crate) struct Successors([u8; 32]);

impl Successors {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    fn of(&self, token: &Secret) -> Result<Secret, Failure> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).map_err(|error| Failure::Internal(error.to_string()))?;
        mac.update(token.expose().as_bytes());
        Ok(opaque::from_bytes(PREFIX, &mac.finalize().into_bytes().into()))
    }
}

/// The presented token, of a live session.
#[derive(sqlx::FromRow)]
struct Presented {
    session_id: SessionId,
    spent_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    #[sqlx(flatten)]
    row: AccountRow,
}

/// Stores an unspent token.
pub(crate) async fn insert(
    transaction: &mut Transaction,
    token: &Secret,
    session_id: SessionId,
    expires_at: DateTime<Utc>,
) -> Result<(), Error> {
    transaction
        .query("INSERT INTO refresh_tokens (token_hash, session_id, expires_at) VALUES ($1, $2, $3)")
        .bind(opaque::hash(token.expose()))
        .bind(session_id)
        .bind(expires_at)
        .execute()
        .await?;
    Ok(())
}

impl Handle<RefreshToken> for Auth {
    async fn handle(&self, caller: &Caller, message: RefreshToken) -> Outcome<RefreshToken> {
        let now = self.now();
        let presented: Option<Presented> = self
            .database
            .query(
                "SELECT t.session_id, t.spent_at, s.revoked_at,
                        a.id, a.email, a.name, a.administrator, a.founder, a.created_at
                 FROM refresh_tokens t
                 JOIN sessions s ON s.id = t.session_id
                 JOIN accounts a ON a.id = s.account_id
                 WHERE t.token_hash = $1 AND t.expires_at > $2",
            )
            .bind(opaque::hash(message.refresh_token.expose()))
            .bind(now)
            .fetch_optional()
            .await?;
        let presented = presented.filter(|token| token.revoked_at.is_none()).ok_or(AuthError::InvalidToken)?;
        let session_id = presented.session_id;

        let successor = self.shared.successors.of(&message.refresh_token)?;
        let spent_at = match presented.spent_at {
            Some(spent_at) => Some(spent_at),
            None => self.spend(&message.refresh_token, &successor, session_id, now).await?,
        };
        if spent_at.is_some_and(|spent_at| spent_at + GRACE < now) {
            return self.end_family(caller, presented.row.account.id, session_id).await;
        }
        let organization_id = self.ensure_organization(caller, &presented.row).await?;
        self.tokens(presented.row.account, session_id, organization_id, successor).await
    }
}

impl Auth {
    /// Spends the token and stores its successor. If it was spent before, returns when.
    async fn spend(
        &self,
        token: &Secret,
        successor: &Secret,
        session_id: SessionId,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, CallError<AuthError>> {
        let expires_at = now + self.settings.refresh_token_lifetime;
        let token_hash = opaque::hash(token.expose());
        let spend = async |transaction: &mut Transaction| -> Result<_, CallError<AuthError>> {
            let spent = transaction
                .query("UPDATE refresh_tokens SET spent_at = $2 WHERE token_hash = $1 AND spent_at IS NULL")
                .bind(token_hash.clone())
                .bind(now)
                .execute()
                .await?;
            if spent == 0 {
                let other: Option<(Option<DateTime<Utc>>,)> = transaction
                    .query("SELECT spent_at FROM refresh_tokens WHERE token_hash = $1")
                    .bind(token_hash.clone())
                    .fetch_optional()
                    .await?;
                let (spent_at,) = other.ok_or(AuthError::InvalidToken)?;
                return Ok(spent_at);
            }
            // Again: the session may have ended since the token was looked up.
            let alive = transaction
                .query("UPDATE sessions SET last_seen_at = $2, expires_at = $3 WHERE id = $1 AND revoked_at IS NULL")
                .bind(session_id)
                .bind(now)
                .bind(expires_at)
                .execute()
                .await?;
            if alive == 0 {
                return Err(AuthError::InvalidToken.into());
            }
            insert(transaction, successor, session_id, expires_at).await?;
            Ok(None)
        };
        self.database.transact(spend).await
    }

    /// Ends the session of a spent token: its owner can't be told from a thief, so both are signed out.
    async fn end_family(&self, caller: &Caller, account_id: UserId, session_id: SessionId) -> Outcome<RefreshToken> {
        if self.end_sessions(account_id, Some(session_id)).await? {
            tracing::warn!(
                target: "callboard::security",
                event = "auth.refresh_reuse_detected", user_id = %account_id, %session_id, address = ?caller.address,
                "a spent refresh token was presented again; its session was ended"
            );
        }
        Err(AuthError::RefreshReused.into())
    }
}
