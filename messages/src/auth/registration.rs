//! How a person gets an account.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AuthError, Tokens};
use crate::{Access, Operation, Secret};

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
