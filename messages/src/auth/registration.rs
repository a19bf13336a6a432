//! How a person gets an account.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AuthError, Tokens};
use crate::{Access, Operation, Secret};

/// Creates an account, its personal organization and a first session.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Register {
    /// The e-mail address, compared without case.
    #[schema(format = Email, min_length = 3, max_length = 254)]
    pub email: String,
    /// 10 to 128 characters; none of the most common passwords, nor the account's own name or address.
    #[schema(value_type = String, min_length = 10, max_length = 128)]
    pub password: Secret,
    /// How the person is addressed; default: the part of the address before the `@`.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 100)]
    pub name: Option<String>,
    /// The one-time set-up token, or an invitation; not needed where registration is open.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 128)]
    pub invitation: Option<Secret>,
    /// The refresh token of a session that the new one replaces: it ends.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 128)]
    pub replaces: Option<Secret>,
}

impl Operation for Register {
    const NAME: &'static str = "auth.register";
    const ACCESS: Access = Access::Public;
    type Reply = Tokens;
    type Error = AuthError;
}
