//! The permissions that there are, and what a key can be given of them.

use std::collections::BTreeSet;

use callboard_messages::{Caller, Scopes, auth::AuthError};
use callboard_supervisors::Bus;

use crate::sessions;

/// What the key of an administrator needs to administer the platform.
pub(crate) const ADMINISTER: &str = "platform:administer";

/// Every permission that an operation of any domain asks for, or auth itself.
pub(crate) struct Permissions(BTreeSet<&'static str>);

impl Permissions {
    pub(crate) fn of(bus: &Bus) -> Self {
        Self(bus.permissions().chain([sessions::READ, sessions::WRITE, ADMINISTER]).collect())
    }

    /// Whether the caller may give a key this scope: `noun:verb`, `noun:*` or `*`.
    pub(crate) fn check(&self, scope: &str, caller: &Caller) -> Result<(), AuthError> {
        if scope != "*" && !self.all().any(|known| known == scope) {
            return Err(AuthError::Invalid(self.unknown(scope)));
        }
        if caller.scopes.allows(scope) { Ok(()) } else { Err(AuthError::InvalidScope(scope.to_owned())) }
    }

    /// Each permission, and all of each noun.
    fn all(&self) -> impl Iterator<Item = String> {
        let nouns: BTreeSet<&str> = self.0.iter().filter_map(|known| known.split(':').next()).collect();
        let wide = nouns.into_iter().map(|noun| format!("{noun}:*"));
        self.0.iter().map(|known| (*known).to_owned()).chain(wide)
    }

    /// What there is instead of `scope`: the one that it was likely meant to be, or all of them.
    fn unknown(&self, scope: &str) -> String {
        let shown: String = scope.chars().filter(|character| !character.is_control()).take(80).collect();
        let distance = |known: &String| strsim::osa_distance(known, &shown);
        match self.all().min_by_key(distance).filter(|nearest| distance(nearest) <= nearest.len() / 3) {
            Some(nearest) => format!("there is no permission {shown:?}; did you mean {nearest:?}?"),
            None => {
                let all: Vec<String> = self.all().collect();
                format!("there is no permission {shown:?}; there are \"*\", {}", all.join(", "))
            }
        }
    }
}

/// What is in both: the scopes a key was given, as far as its owner still holds them.
pub(crate) fn both(given: &[String], held: &Scopes) -> Scopes {
    let given = Scopes::new(given.iter().map(String::as_str));
    let kept = given.iter().filter(|scope| held.allows(scope));
    // A wide scope of the key, of which the owner holds only a part, is narrowed to that part.
    let narrowed = held.iter().filter(|scope| given.allows(scope) && !given.iter().any(|own| own == *scope));
    Scopes::new(kept.chain(narrowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_allows_what_it_was_given_and_its_owner_still_holds() {
        let cases: [(&[&str], &[&str], &[&str]); 7] = [
            (&["project:read"], &["*"], &["project:read"]),
            (&["*"], &["*"], &["*"]),
            (&["*"], &["project:read", "deploy:*"], &["project:read", "deploy:*"]),
            (&["project:*"], &["project:read", "deploy:*"], &["project:read"]),
            (&["project:read", "deploy:create"], &["project:read"], &["project:read"]),
            (&["project:write"], &["project:read"], &[]),
            (&["deploy:*", "project:read"], &["deploy:*"], &["deploy:*"]),
        ];
        for (given, held, expected) in cases {
            let given: Vec<String> = given.iter().map(ToString::to_string).collect();
            let both = both(&given, &Scopes::new(held.iter().copied()));
            assert_eq!(both.iter().collect::<Vec<_>>(), expected, "{given:?} {held:?}");
        }
    }

    #[test]
    fn a_scope_that_is_none_is_refused_with_the_nearest_that_is() {
        let permissions = Permissions(["project:read", "project:write", "deploy:create"].into());
        let caller = Caller { scopes: Scopes::new(["*"]), ..Caller::anonymous() };
        for scope in ["*", "project:read", "project:*", "deploy:*"] {
            assert_eq!(permissions.check(scope, &caller), Ok(()), "{scope}");
        }
        for (scope, nearest) in [
            ("projct:read", "project:read"),
            ("project:raed", "project:read"),
            ("deploy:crate", "deploy:create"),
            ("projects:*", "project:*"),
            ("Project:read", "project:read"),
        ] {
            let sentence = format!("there is no permission {scope:?}; did you mean {nearest:?}?");
            assert_eq!(permissions.check(scope, &caller), Err(AuthError::Invalid(sentence)));
        }
        for scope in ["", "nonsense", "a\nb", "billing:pay", ":", "*:*", &"x".repeat(100_000)] {
            let Err(AuthError::Invalid(sentence)) = permissions.check(scope, &caller) else { panic!("{scope}") };
            assert!(sentence.contains("deploy:create, ") && sentence.len() < 300, "{sentence}");
        }
    }

    #[test]
    fn a_scope_that_the_caller_does_not_hold_can_t_be_given() {
        let permissions = Permissions(["project:read", "project:write"].into());
        let caller = Caller { scopes: Scopes::new(["project:read"]), ..Caller::anonymous() };
        assert_eq!(permissions.check("project:read", &caller), Ok(()));
        for scope in ["project:write", "project:*", "*"] {
            assert_eq!(permissions.check(scope, &caller), Err(AuthError::InvalidScope(scope.to_owned())));
        }
    }
}
