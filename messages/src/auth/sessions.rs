//! Sign-ins, and the tokens they give.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Account, AuthError};
use crate::{Access, Operation, Secret, SessionId};

/// One sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[cfg_attr(feature = "sql", derive(sqlx::FromRow))]
pub struct Session {
    /// The session.
    pub id: SessionId,
    /// Where it was started from.
    #[schema(max_length = 45)]
    pub address: Option<String>,
    /// The program, as it names itself.
    #[schema(max_length = 200)]
    pub user_agent: Option<String>,
    /// UTC.
    pub created_at: DateTime<Utc>,
    /// The last refresh, UTC.
    pub last_seen_at: DateTime<Utc>,
    /// Whether this is the session that asks.
    pub current: bool,
}

/// A signed-in session's tokens.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    /// JWT, RS256.
    #[schema(value_type = String, max_length = 4_096)]
    pub access_token: Secret,
    /// Opaque; used once, for [`RefreshToken`].
    #[schema(value_type = String, max_length = 128)]
    pub refresh_token: Secret,
    /// Always `Bearer`.
    #[schema(min_length = 6, max_length = 6, pattern = "^Bearer$")]
    pub token_type: String,
    /// Seconds until the access token expires.
    pub expires_in: u64,
    /// The session these tokens belong to.
    pub session_id: SessionId,
    /// Whose they are.
    pub account: Account,
    /// Given at each sign-in, for the next one of this device: see [`Login::device`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 128)]
    pub device: Option<Secret>,
}

/// Starts a session with a password.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Login {
    /// The e-mail address.
    #[schema(format = Email, min_length = 3, max_length = 254)]
    pub email: String,
    /// The password.
    #[schema(value_type = String, max_length = 128)]
    pub password: Secret,
    /// The `device` of an earlier sign-in to this account. A device that the account knows goes first when many wait to
    /// sign in, and the failures of others at its address don't delay it.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 128)]
    pub device: Option<Secret>,
    /// The refresh token of a session that the new one replaces: it ends.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 128)]
    pub replaces: Option<Secret>,
}

impl Operation for Login {
    const NAME: &'static str = "auth.login";
    const ACCESS: Access = Access::Public;
    type Reply = Tokens;
    type Error = AuthError;
}

/// Exchanges a refresh token for its successor. A retry within 10 s gets the same successor; later it ends the session.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RefreshToken {
    /// The opaque token of the last [`Tokens`].
    #[schema(value_type = String, max_length = 128)]
    pub refresh_token: Secret,
}

impl Operation for RefreshToken {
    const NAME: &'static str = "auth.refresh_token";
    const ACCESS: Access = Access::Public;
    type Reply = Tokens;
    type Error = AuthError;
}

/// Ends the caller's session.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Logout {}

impl Operation for Logout {
    const NAME: &'static str = "auth.logout";
    const ACCESS: Access = Access::Authenticated;
    const IDEMPOTENT: bool = true;
    type Reply = ();
    type Error = AuthError;
}

/// Ends every session of the caller.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LogoutAll {}

impl Operation for LogoutAll {
    const NAME: &'static str = "auth.logout_all";
    const ACCESS: Access = Access::Personal("session:write");
    const IDEMPOTENT: bool = true;
    type Reply = ();
    type Error = AuthError;
}

/// The caller's live sessions, newest first, 100 at most.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListSessions {}

impl ListSessions {
    /// The sessions that are listed.
    pub const MOST: usize = 100;
}

impl Operation for ListSessions {
    const NAME: &'static str = "auth.list_sessions";
    const ACCESS: Access = Access::Personal("session:read");
    const IDEMPOTENT: bool = true;
    type Reply = Vec<Session>;
    type Error = AuthError;
}

/// Ends one of the caller's sessions, at once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RevokeSession {
    /// Which.
    pub session_id: SessionId,
}

impl Operation for RevokeSession {
    const NAME: &'static str = "auth.revoke_session";
    const ACCESS: Access = Access::Personal("session:write");
    const IDEMPOTENT: bool = true;
    type Reply = ();
    type Error = AuthError;
}
