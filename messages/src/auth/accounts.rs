//! People with an account.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::AuthError;
use crate::{
    Access, ApiKeyId, Operation, OrganizationId, Scopes, SessionId, UserId, event::event, shapes::Permissions,
};

/// A person with an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[cfg_attr(feature = "sql", derive(sqlx::FromRow))]
pub struct Account {
    /// The person.
    pub id: UserId,
    /// Lower case.
    #[schema(format = Email, min_length = 3, max_length = 254)]
    pub email: String,
    /// How the person is addressed.
    #[schema(min_length = 1, max_length = 100)]
    pub name: String,
    /// Administers the platform itself, beside its organizations.
    pub administrator: bool,
    /// UTC.
    pub created_at: DateTime<Utc>,
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
    #[schema(value_type = Permissions)]
    pub scopes: Scopes,
    /// The session, when this is one.
    pub session_id: Option<SessionId>,
    /// The API key, when this is one.
    pub api_key_id: Option<ApiKeyId>,
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

event!(UserRegistered = "user.registered", about user_id);
