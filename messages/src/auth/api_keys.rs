//! Keys of programs, and of the command line on a node's own machine.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::AuthError;
use crate::{
    Access, ApiKeyId, NodeId, Operation, OrganizationId, Scopes, Secret,
    shapes::{Permission, Permissions},
};

/// A program's key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[cfg_attr(feature = "sql", derive(sqlx::FromRow))]
pub struct ApiKey {
    /// The key.
    pub id: ApiKeyId,
    /// What it is for.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// The part of the key that is shown, to tell keys apart.
    #[schema(min_length = 10, max_length = 10, pattern = "^[0-9a-f]+$")]
    pub prefix: String,
    /// The organization it acts for.
    pub organization_id: OrganizationId,
    /// Permissions; never more than its owner holds.
    #[schema(value_type = Permissions)]
    #[cfg_attr(feature = "sql", sqlx(json))]
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
    #[schema(value_type = String, max_length = 128, pattern = "^cb_[0-9a-f]{10}_[0-9a-f]{48}$")]
    pub secret: Secret,
}

/// What the key of an administrator needs to administer the platform.
pub const ADMINISTER: &str = "platform:administer";

/// Makes a key for a program.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateApiKey {
    /// What it is for, 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// Permissions, `noun:verb`, `noun:*`, `*:verb` or `*`; each must be one that there is, and all that it stands for
    /// must be held by the caller.
    #[schema(value_type = Vec<Permission>, min_items = 1, max_items = 50)]
    pub scopes: Vec<String>,
    /// UTC, in the future; never expires when absent.
    #[serde(default)]
    pub expires_at: Option<DateTime<Utc>>,
}

impl Operation for CreateApiKey {
    const NAME: &'static str = "auth.create_api_key";
    const ACCESS: Access = Access::Permission("api_key:write");
    /// By the request: one that comes again is shown what it made.
    const IDEMPOTENT: bool = true;
    type Reply = ApiKeyWithSecret;
    type Error = AuthError;
}

/// The caller's keys in its organization, newest first, 200 at most.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListApiKeys {}

impl ListApiKeys {
    /// The keys that are listed.
    pub const MOST: usize = 200;
}

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
