//! Credentials that stopped being valid, for whoever remembers them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::AuthError;
use crate::{Access, ApiKeyId, Event, Operation, SessionId, UserId};

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
