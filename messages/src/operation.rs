//! What an operation is.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::code::DomainError;

/// Who may call an operation. There is no default: an operation that forgets to say so does not compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone, without credentials.
    Public,
    /// Any caller with a valid session or API key.
    Authenticated,
    /// A caller whose scopes in its organization hold this permission, such as `project:write`.
    Permission(&'static str),
    /// A person, about what is its own whatever its role: its sessions, its organizations. An API key needs this
    /// permission.
    Personal(&'static str),
    /// A caller who administers the platform itself, whatever its organization.
    Administrator,
    /// Other domains of the platform only; never reachable from outside.
    Internal,
}

impl Access {
    /// The permission that it asks of some callers or of all.
    #[must_use]
    pub const fn permission(self) -> Option<&'static str> {
        match self {
            Self::Permission(permission) | Self::Personal(permission) => Some(permission),
            Self::Public | Self::Authenticated | Self::Administrator | Self::Internal => None,
        }
    }
}

/// A request with a reply.
///
/// `NAME` is `<domain>.<verb>`; span, metric, routing key, audit entry and permission derive from it, and it is
/// written nowhere else.
pub trait Operation: Serialize + DeserializeOwned + Send + 'static {
    /// `<domain>.<verb>`, for example `project.create`.
    const NAME: &'static str;
    /// Who may call it.
    const ACCESS: Access;
    /// Whether a second execution as the same [request](crate::Caller::request) has no second effect, so that a caller may
    /// retry after an unknown outcome.
    const IDEMPOTENT: bool = false;
    /// The longest time a caller waits when its own deadline is not sooner.
    const TIMEOUT: Duration = Duration::from_secs(10);
    /// Operations with a key run one at a time per key, in order of arrival, within a node.
    const KEY: Option<fn(&Self) -> uuid::Uuid> = None;
    /// The answer.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// The refusals this domain can give.
    type Error: DomainError;

    /// The domain that owns the operation: the part of `NAME` before the dot.
    fn domain() -> &'static str {
        domain_of(Self::NAME)
    }
}

fn domain_of(name: &'static str) -> &'static str {
    name.split_once('.').map_or(name, |(domain, _)| domain)
}
