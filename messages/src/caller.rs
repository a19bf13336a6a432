//! Who asks: travels beside every message.

use std::{net::IpAddr, sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    code::Failure,
    ids::{ApiKeyId, OrganizationId, SessionId, UserId},
};

/// Permissions a caller holds in its organization: `*` holds all of them, `project:*` all of one noun, and `*:read` one
/// verb of every noun. What has a `-` before it is not held, whatever else is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scopes(Arc<[String]>);

impl Scopes {
    /// From a list of permissions.
    pub fn new(permissions: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(permissions.into_iter().map(Into::into).collect())
    }

    /// Whether `permission` (`noun:verb`) is held; of a pattern such as `noun:*`, whether all that it can stand for is.
    #[must_use]
    pub fn allows(&self, permission: &str) -> bool {
        let mut is_held = false;
        for held in self.iter() {
            match held.strip_prefix(EXCEPT) {
                Some(except) if Pattern::of(except).meets(Pattern::of(permission)) => return false,
                Some(_) => {}
                // Every call of every domain asks this, and mostly it is held by its name.
                None if is_held || held == permission => is_held = true,
                None => is_held = Pattern::of(held).covers(Pattern::of(permission)),
            }
        }
        is_held
    }

    /// What both hold.
    #[must_use]
    pub fn both(&self, other: &Self) -> Self {
        let held = |scopes: &Self| -> Vec<String> {
            scopes.iter().filter(|scope| !scope.starts_with(EXCEPT)).map(str::to_owned).collect()
        };
        let theirs = held(other);
        let mut shared: Vec<String> = Vec::new();
        for (mine, their) in held(self).iter().flat_map(|mine| theirs.iter().map(move |their| (mine, their))) {
            if let Some(shorter) = Pattern::of(mine).and(Pattern::of(their))
                && !shared.contains(&shorter)
            {
                shared.push(shorter);
            }
        }
        let excepts: Vec<&str> =
            self.iter().chain(other.iter()).filter_map(|scope| scope.strip_prefix(EXCEPT)).collect();
        shared.retain(|scope| !excepts.iter().any(|except| Pattern::of(except).covers(Pattern::of(scope))));
        let covered =
            |scope: &String| shared.iter().any(|wider| wider != scope && Pattern::of(wider).covers(Pattern::of(scope)));
        let mut all: Vec<String> = shared.iter().filter(|scope| !covered(scope)).cloned().collect();
        for except in excepts.into_iter().filter(|except| {
            let except = Pattern::of(except);
            shared.iter().any(|scope| Pattern::of(scope).meets(except))
        }) {
            let except = format!("{EXCEPT}{except}");
            if !all.contains(&except) {
                all.push(except);
            }
        }
        Self(all.into())
    }

    /// The permissions as they are written.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Before what is not held.
const EXCEPT: char = '-';

/// `noun:verb`, in which `*` stands for any; `*` alone is `*:*`.
#[derive(Clone, Copy)]
struct Pattern<'a> {
    noun: &'a str,
    verb: &'a str,
}

impl<'a> Pattern<'a> {
    fn of(text: &'a str) -> Self {
        let (noun, verb) = text.split_once(':').unwrap_or((text, if text == "*" { "*" } else { "" }));
        Self { noun, verb }
    }

    /// Whether it stands for everything that `other` stands for.
    fn covers(self, other: Self) -> bool {
        (self.noun == "*" || self.noun == other.noun) && (self.verb == "*" || self.verb == other.verb)
    }

    /// Whether there is anything that both stand for.
    fn meets(self, other: Self) -> bool {
        self.and(other).is_some()
    }

    /// What both stand for, as it is written.
    fn and(self, other: Self) -> Option<String> {
        let both = |one: &'a str, other: &'a str| match (one, other) {
            ("*", any) | (any, "*") => Some(any),
            (one, other) => (one == other).then_some(one),
        };
        match (both(self.noun, other.noun)?, both(self.verb, other.verb)?) {
            ("*", "*") => Some("*".to_owned()),
            (noun, verb) => Some(format!("{noun}:{verb}")),
        }
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

    /// The tenant the caller acts for; the gateway gives every signed-in caller one.
    ///
    /// # Errors
    /// When there is none: nobody has signed in.
    pub fn tenant(&self) -> Result<OrganizationId, Failure> {
        self.organization_id.ok_or(Failure::Unauthenticated)
    }

    /// The person, or the owner of the API key.
    ///
    /// # Errors
    /// When there is none: nobody has signed in.
    pub fn person(&self) -> Result<UserId, Failure> {
        self.user_id.ok_or(Failure::Unauthenticated)
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

    #[test]
    fn a_verb_of_every_noun_is_held_but_for_what_is_excepted() {
        let scopes = Scopes::new(["*:read", "*:write", "deploy:*", "-organization:write"]);
        for held in ["project:read", "flag:write", "deploy:create", "organization:read", "deploy:*", "*:read"] {
            assert!(scopes.allows(held), "{held}");
        }
        // Of a pattern all must be held, also what nobody asks for yet.
        for other in ["organization:write", "organization:*", "*:write", "flag:kill", "flag:*", "*", "*:*", "read", ""]
        {
            assert!(!scopes.allows(other), "{other}");
        }
        let all_but = Scopes::new(["-organization:delete", "*"]);
        assert!(all_but.allows("organization:write") && all_but.allows("project:*"));
        assert!(!all_but.allows("organization:delete") && !all_but.allows("organization:*") && !all_but.allows("*"));
    }

    #[test]
    fn what_two_hold_is_what_each_of_them_allows() {
        let cases: [(&[&str], &[&str], &[&str]); 13] = [
            (&["project:read"], &["*"], &["project:read"]),
            (&["*"], &["*"], &["*"]),
            (&["*"], &["project:read", "deploy:*"], &["project:read", "deploy:*"]),
            (&["project:*"], &["project:read", "deploy:*"], &["project:read"]),
            (&["project:read", "deploy:create"], &["project:read"], &["project:read"]),
            (&["project:write"], &["project:read"], &[]),
            (&["deploy:*", "project:read"], &["deploy:*"], &["deploy:*"]),
            (&["project:*"], &["*:read", "*:write"], &["project:read", "project:write"]),
            (&["*:read"], &["*:read", "deploy:*"], &["*:read"]),
            (&["*:read"], &["deploy:*"], &["deploy:read"]),
            (&["*:write"], &["*", "-organization:write"], &["*:write", "-organization:write"]),
            (&["project:*"], &["*", "-organization:write"], &["project:*"]),
            (&["organization:write"], &["*:write", "-organization:write"], &[]),
        ];
        let asked =
            ["project:read", "project:write", "deploy:create", "deploy:read", "organization:write", "flag:read"];
        for (given, held, expected) in cases {
            let (given, held) = (Scopes::new(given.iter().copied()), Scopes::new(held.iter().copied()));
            let both = given.both(&held);
            assert_eq!(both.iter().collect::<Vec<_>>(), expected, "{given:?} {held:?}");
            for permission in asked {
                let each = given.allows(permission) && held.allows(permission);
                assert_eq!(both.allows(permission), each, "{permission}: {given:?} {held:?}");
            }
        }
    }
}
