//! Who asks: travels beside every message.

use std::{net::IpAddr, sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{ApiKeyId, OrganizationId, SessionId, UserId};

/// Permissions a caller holds in its organization; `*` holds all of them, `project:*` all of one noun.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scopes(Arc<[String]>);

impl Scopes {
    /// From a list of permissions.
    pub fn new(permissions: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(permissions.into_iter().map(Into::into).collect())
    }

    /// Whether `permission` (`noun:verb`) is held.
    #[must_use]
    pub fn allows(&self, permission: &str) -> bool {
        let noun = permission.split_once(':').map_or(permission, |(noun, _)| noun);
        self.0.iter().any(|held| {
            held == "*" || held == permission || held.strip_suffix(":*").is_some_and(|all_of| all_of == noun)
        })
    }

    /// The permissions as they are written.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// The kind of caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    /// Nobody yet: no credentials, or none that are valid.
    #[default]
    Anonymous,
    /// A person with a session.
    User,
    /// A program with an API key.
    ApiKey,
    /// The platform itself: one domain asking another.
    System,
}

/// Who asks, for which organization, until when. Cheap to clone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Caller {
    /// The kind of caller.
    pub principal: Principal,
    /// The person, or the owner of the API key.
    pub user_id: Option<UserId>,
    /// The tenant the caller acts for.
    pub organization_id: Option<OrganizationId>,
    /// The session, for a person.
    pub session_id: Option<SessionId>,
    /// The key, for a program.
    pub api_key_id: Option<ApiKeyId>,
    /// Permissions in that organization.
    pub scopes: Scopes,
    /// Administers the platform itself, beside its organizations.
    #[serde(default)]
    pub administrator: bool,
    /// One id from the first request through every hop.
    pub correlation_id: Uuid,
    /// The same for every attempt at one request: by it, what makes something finds what an earlier attempt has made.
    #[serde(default)]
    pub request: Option<Uuid>,
    /// The client's address, from the socket or a trusted proxy.
    pub address: Option<IpAddr>,
    /// The client's program, as it names itself; shown in the list of sessions.
    pub user_agent: Option<Arc<str>>,
    /// Work that has not begun by then is dropped. Monotonic, so it never crosses a wire as it is: a bridge sends
    /// what is left of it.
    #[serde(skip)]
    pub deadline: Option<Instant>,
}

impl Caller {
    /// A caller without credentials.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { correlation_id: Uuid::now_v7(), ..Self::default() }
    }

    /// The platform itself, with every permission and no tenant.
    #[must_use]
    pub fn system() -> Self {
        Self { principal: Principal::System, scopes: Scopes::new(["*"]), administrator: true, ..Self::anonymous() }
    }

    /// The platform itself, on behalf of this caller: same correlation id, organization and deadline.
    #[must_use]
    pub fn as_system(&self) -> Self {
        Self { principal: Principal::System, scopes: Scopes::new(["*"]), administrator: true, ..self.clone() }
    }

    /// The same caller, who waits no longer than `deadline`.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(self.deadline.map_or(deadline, |own| own.min(deadline)));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_allows_itself_its_noun_or_everything() {
        assert!(Scopes::new(["project:write"]).allows("project:write"));
        assert!(!Scopes::new(["project:write"]).allows("project:read"));
        assert!(Scopes::new(["project:*"]).allows("project:read"));
        assert!(!Scopes::new(["project:*"]).allows("projects:read"));
        assert!(Scopes::new(["*"]).allows("deploy:create"));
        assert!(!Scopes::default().allows("deploy:create"));
    }
}
