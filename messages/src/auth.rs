//! `auth`: who is calling, and may they.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    Access, ApiKeyId, Caller, Code, DomainError, Event, NodeId, Operation, OrganizationId, Scopes, SessionId, UserId,
    secret::Secret,
};

/// What auth refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuthError {
    /// The same for an unknown account and a wrong password.
    #[error("the e-mail address or the password is wrong")]
    WrongCredentials,
    /// A token, key or session that is malformed, expired, revoked or forged.
    #[error("the token is not valid; sign in again")]
    InvalidToken,
    /// A spent refresh token was presented again: its whole family is revoked.
    #[error("this refresh token was used before, so its session has been ended; sign in again")]
    RefreshReused,
    /// Too many failures for this account from this address.
    #[error("too many failed attempts; try again later")]
    LockedOut {
        /// When the next attempt is allowed.
        retry_after: Duration,
    },
    /// The account exists already.
    #[error("an account with this e-mail address exists; sign in instead")]
    EmailTaken,
    /// Not an e-mail address.
    #[error("that is not an e-mail address")]
    InvalidEmail,
    /// Shorter than 10 characters, longer than 72 bytes, or on the list of common passwords.
    #[error("{0}")]
    WeakPassword(String),
    /// Registration is by invitation or closed, and the token is missing, spent or expired.
    #[error("registration needs a valid invitation; ask an administrator for one")]
    InvitationRequired,
    /// Registration is closed on this node.
    #[error("registration is closed on this platform")]
    RegistrationClosed,
    /// A scope that the caller does not hold, or that is none.
    #[error("you can't give a key the scope {0}, which you don't hold yourself")]
    InvalidScope(String),
    /// A field breaks its rule.
    #[error("{0}")]
    Invalid(String),
    /// No such session, key or organization of the caller's.
    #[error("there is no such {0}")]
    NotFound(String),
}

impl DomainError for AuthError {
    fn code(&self) -> Code {
        match self {
            Self::WrongCredentials | Self::InvalidToken | Self::RefreshReused => Code::Unauthenticated,
            Self::LockedOut { .. } => Code::RateLimited,
            Self::EmailTaken => Code::Conflict,
            Self::InvalidEmail | Self::WeakPassword(_) | Self::Invalid(_) => Code::Invalid,
            Self::InvitationRequired | Self::RegistrationClosed | Self::InvalidScope(_) => Code::Forbidden,
            Self::NotFound(_) => Code::NotFound,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::LockedOut { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}

/// A person with an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Account {
    /// The person.
    pub id: UserId,
    /// Lower case.
    pub email: String,
    /// How the person is addressed.
    pub name: String,
    /// Administers the platform itself, beside its organizations.
    pub administrator: bool,
    /// UTC.
    pub created_at: DateTime<Utc>,
}

/// A signed-in session's tokens.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    /// JWT, RS256.
    #[schema(value_type = String)]
    pub access_token: Secret,
    /// Opaque; used once, for [`RefreshToken`].
    #[schema(value_type = String)]
    pub refresh_token: Secret,
    /// Always `Bearer`.
    pub token_type: String,
    /// Seconds until the access token expires.
    pub expires_in: u64,
    /// The session these tokens belong to.
    pub session_id: SessionId,
    /// Whose they are.
    pub account: Account,
}

/// Creates an account, its personal organization and a first session.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Register {
    /// The e-mail address, compared without case.
    pub email: String,
    /// 10 characters to 72 bytes.
    #[schema(value_type = String, min_length = 10, max_length = 72)]
    pub password: Secret,
    /// How the person is addressed; the part of the address before the `@` unless told.
    #[serde(default)]
    pub name: Option<String>,
    /// The one-time set-up token, or an invitation; not needed where registration is open.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub invitation: Option<Secret>,
}

impl Operation for Register {
    const NAME: &'static str = "auth.register";
    const ACCESS: Access = Access::Public;
    type Reply = Tokens;
    type Error = AuthError;
}

/// Starts a session with a password.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Login {
    /// The e-mail address.
    pub email: String,
    /// The password.
    #[schema(value_type = String)]
    pub password: Secret,
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
    #[schema(value_type = String)]
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
    const ACCESS: Access = Access::Authenticated;
    const IDEMPOTENT: bool = true;
    type Reply = ();
    type Error = AuthError;
}

/// Who a token or an API key belongs to; asked by the gateway once per token, then remembered until it expires or is
/// revoked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ValidateToken {
    /// A JWT or an API key (`cb_…`).
    pub token: Secret,
    /// The organization to act for, when it is not the token's own.
    pub organization_id: Option<OrganizationId>,
    /// The count of revocations that the asker has heard of: the answer takes all of them into account.
    #[serde(default)]
    pub revocation_count: u64,
}

impl Operation for ValidateToken {
    const NAME: &'static str = "auth.validate_token";
    const ACCESS: Access = Access::Internal;
    const IDEMPOTENT: bool = true;
    type Reply = Validated;
    type Error = AuthError;
}

/// A valid credential, and what it allows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Validated {
    /// With principal, user, organization, session or key, and scopes; correlation id and address are the asker's.
    pub caller: Caller,
    /// From when on it must not be remembered.
    pub expires_at: DateTime<Utc>,
}

/// How many credentials were revoked so far: asked by nodes that can't hear of revocations otherwise.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetRevocationCount {}

impl Operation for GetRevocationCount {
    const NAME: &'static str = "auth.revocation_count";
    const ACCESS: Access = Access::Internal;
    const IDEMPOTENT: bool = true;
    const TIMEOUT: Duration = Duration::from_secs(1);
    type Reply = RevocationCount;
    type Error = AuthError;
}

/// A number that rises with each revocation, in the transaction that revokes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationCount {
    /// Not how many there were: it is at least the time in microseconds since 1970 of the last one, so that a database
    /// restored from a backup can't repeat a number.
    pub count: u64,
}

/// Who the caller is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WhoAmI {}

impl Operation for WhoAmI {
    const NAME: &'static str = "auth.whoami";
    const ACCESS: Access = Access::Authenticated;
    const IDEMPOTENT: bool = true;
    type Reply = Identity;
    type Error = AuthError;
}

/// The caller, as it knows itself.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Identity {
    /// The account.
    pub account: Account,
    /// The tenant acted for.
    pub organization_id: OrganizationId,
    /// Permissions there.
    #[schema(value_type = Vec<String>)]
    pub scopes: Scopes,
    /// The session, when this is one.
    pub session_id: Option<SessionId>,
    /// The API key, when this is one.
    pub api_key_id: Option<ApiKeyId>,
}

/// One sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// The session.
    pub id: SessionId,
    /// Where it was started from.
    pub address: Option<String>,
    /// The program, as it names itself.
    pub user_agent: Option<String>,
    /// UTC.
    pub created_at: DateTime<Utc>,
    /// The last refresh, UTC.
    pub last_seen_at: DateTime<Utc>,
    /// Whether this is the session that asks.
    pub current: bool,
}

/// The caller's live sessions, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListSessions {}

impl Operation for ListSessions {
    const NAME: &'static str = "auth.list_sessions";
    const ACCESS: Access = Access::Authenticated;
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
    const ACCESS: Access = Access::Authenticated;
    const IDEMPOTENT: bool = true;
    type Reply = ();
    type Error = AuthError;
}

/// A program's key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiKey {
    /// The key.
    pub id: ApiKeyId,
    /// What it is for.
    pub name: String,
    /// The part of the key that is shown, to tell keys apart.
    pub prefix: String,
    /// The organization it acts for.
    pub organization_id: OrganizationId,
    /// Permissions; never more than its owner holds.
    #[schema(value_type = Vec<String>)]
    pub scopes: Scopes,
    /// UTC.
    pub created_at: DateTime<Utc>,
    /// UTC; never expires when absent.
    pub expires_at: Option<DateTime<Utc>>,
    /// UTC, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A new key with its secret, shown this once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ApiKeyWithSecret {
    /// The key.
    #[serde(flatten)]
    pub api_key: ApiKey,
    /// `cb_<prefix>_<secret>`.
    #[schema(value_type = String)]
    pub secret: Secret,
}

/// Makes a key for a program.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateApiKey {
    /// What it is for, 1 to 100 characters.
    pub name: String,
    /// Permissions; each must be one the caller holds.
    pub scopes: Vec<String>,
    /// UTC, in the future; never expires when absent.
    #[serde(default)]
    pub expires_at: Option<DateTime<Utc>>,
}

impl Operation for CreateApiKey {
    const NAME: &'static str = "auth.create_api_key";
    const ACCESS: Access = Access::Permission("api_key:write");
    type Reply = ApiKeyWithSecret;
    type Error = AuthError;
}

/// The caller's keys in its organization, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListApiKeys {}

impl Operation for ListApiKeys {
    const NAME: &'static str = "auth.list_api_keys";
    const ACCESS: Access = Access::Permission("api_key:read");
    const IDEMPOTENT: bool = true;
    type Reply = Vec<ApiKey>;
    type Error = AuthError;
}

/// Makes a key useless, at once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RevokeApiKey {
    /// Which.
    pub api_key_id: ApiKeyId,
}

impl Operation for RevokeApiKey {
    const NAME: &'static str = "auth.revoke_api_key";
    const ACCESS: Access = Access::Permission("api_key:write");
    const IDEMPOTENT: bool = true;
    type Reply = ();
    type Error = AuthError;
}

/// Lets somebody register while registration is by invitation. Administrators only.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateInvitation {
    /// Only this address may use it, when given.
    #[serde(default)]
    pub email: Option<String>,
}

impl Operation for CreateInvitation {
    const NAME: &'static str = "auth.create_invitation";
    const ACCESS: Access = Access::Administrator;
    type Reply = Invitation;
    type Error = AuthError;
}

/// A one-time permission to register, shown this once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    /// To be given as [`Register::invitation`].
    #[schema(value_type = String)]
    pub token: Secret,
    /// UTC, 7 days from now.
    pub expires_at: DateTime<Utc>,
}

/// The one-time set-up token of a platform without an administrator; nothing once there is one. Asked by a node when it
/// starts; each call replaces the token that this node had before. Of the tokens of several nodes one makes the
/// administrator, and the others are worth nothing then.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct IssueSetupToken {
    /// Which node asks.
    #[serde(default)]
    pub node: Option<NodeId>,
}

impl Operation for IssueSetupToken {
    const NAME: &'static str = "auth.issue_setup_token";
    const ACCESS: Access = Access::Internal;
    type Reply = Option<Secret>;
    type Error = AuthError;
}

/// The credentials of the command line on the node's own machine: an API key of the local operator account, who
/// administers the platform and can't sign in with a password. Each call replaces the key that this node had before.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct IssueLocalKey {
    /// Which node asks.
    #[serde(default)]
    pub node: Option<NodeId>,
}

impl Operation for IssueLocalKey {
    const NAME: &'static str = "auth.issue_local_key";
    const ACCESS: Access = Access::Internal;
    type Reply = ApiKeyWithSecret;
    type Error = AuthError;
}

/// The public signing keys, RFC 7517.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GetJwks {}

impl Operation for GetJwks {
    const NAME: &'static str = "auth.jwks";
    const ACCESS: Access = Access::Public;
    const IDEMPOTENT: bool = true;
    type Reply = Jwks;
    type Error = AuthError;
}

/// A JSON Web Key Set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Jwks {
    /// The keys that tokens may be signed with now.
    pub keys: Vec<Jwk>,
}

/// An RSA public key, RFC 7517 and 7518.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Jwk {
    /// `RSA`.
    pub kty: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub usage: String,
    /// `RS256`.
    pub alg: String,
    /// The key's id, in each token's header.
    pub kid: String,
    /// Modulus, base64url.
    pub n: String,
    /// Exponent, base64url.
    pub e: String,
}

/// A signing key takes over; tokens of the one before stay valid until they expire.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RotateSigningKey {}

impl Operation for RotateSigningKey {
    const NAME: &'static str = "auth.rotate_signing_key";
    const ACCESS: Access = Access::Internal;
    type Reply = Jwks;
    type Error = AuthError;
}

/// A credential stopped being valid; whoever remembers it must forget it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialRevoked {
    /// Every token of this session.
    Session(SessionId),
    /// This key.
    ApiKey(ApiKeyId),
    /// What this person may do has changed.
    User(UserId),
}

impl Event for CredentialRevoked {
    const NAME: &'static str = "auth.credential_revoked";

    fn aggregate(&self) -> Uuid {
        match self {
            Self::Session(id) => id.0,
            Self::ApiKey(id) => id.0,
            Self::User(id) => id.0,
        }
    }
}

/// Somebody has an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRegistered {
    /// Who.
    pub user_id: UserId,
    /// As the person is addressed.
    pub name: String,
    /// The organization the person joins as an owner instead of getting one of its own.
    #[serde(default)]
    pub organization_id: Option<OrganizationId>,
}

impl Event for UserRegistered {
    const NAME: &'static str = "user.registered";

    fn aggregate(&self) -> Uuid {
        self.user_id.0
    }
}
