//! Permissions to register while registration is by invitation, and the one that sets a platform up.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::AuthError;
use crate::{Access, NodeId, Operation, Secret};

/// Lets somebody register while registration is by invitation. Administrators only.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateInvitation {
    /// Only this address may use it, when given.
    #[serde(default)]
    #[schema(format = Email, min_length = 3, max_length = 254)]
    pub email: Option<String>,
}

impl Operation for CreateInvitation {
    const NAME: &'static str = "auth.create_invitation";
    const ACCESS: Access = Access::Administrator;
    /// By the request: one that comes again is shown what it made.
    const IDEMPOTENT: bool = true;
    type Reply = Invitation;
    type Error = AuthError;
}

/// A one-time permission to register, shown this once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    /// To be given as `invitation` by who registers.
    #[schema(value_type = String, max_length = 128)]
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
