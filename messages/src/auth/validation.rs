//! Who a credential belongs to.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::AuthError;
use crate::{Access, Caller, Operation, OrganizationId, Secret};

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
