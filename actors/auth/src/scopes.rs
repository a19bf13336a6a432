//! All permissions, and the scopes that an API key can have.

use std::collections::BTreeSet;

use callboard_messages::{
    Caller, Principal, Scopes,
    auth::{ADMINISTER, AuthError},
};
use callboard_supervisors::Bus;

/// Every permission of any domain's operations.
pub(crate) struct Permissions(BTreeSet<&'static str>);

impl Permissions {
    pub(crate) fn of(bus: &Bus) -> Self {
        Self(bus.permissions().chain([ADMINISTER]).collect())
    }

    /// Whether the caller may give a key this scope: `noun:verb`, `noun:*`, `*:verb` or `*`.
    pub(crate) fn check(&self, scope: &str, caller: &Caller) -> Result<(), AuthError> {
        if scope != "*" && !self.all().any(|known| known == scope) {
            return Err(AuthError::Invalid(self.unknown(scope)));
        }
        if self.are_held(scope, caller) { Ok(()) } else { Err(AuthError::InvalidScope(scope.to_owned())) }
    }

    /// Whether the caller holds every permission of a scope. For a person it is enough that it holds all that exist
    /// today, because a key never does more than its owner may; a key may have less than its owner, and must not pass
    /// on what it may lack tomorrow.
    fn are_held(&self, scope: &str, caller: &Caller) -> bool {
        let given = Scopes::new([scope]);
        let mut meant = self.0.iter().filter(|known| given.allows(known));
        let is_person = caller.principal == Principal::User;
        caller.scopes.allows(scope) || (is_person && meant.all(|known| caller.scopes.allows(known)))
    }

    /// Every valid scope: each permission, each noun, and each verb of every noun.
    fn all(&self) -> impl Iterator<Item = String> {
        let pairs = || self.0.iter().filter_map(|known| known.split_once(':'));
        let nouns: BTreeSet<&str> = pairs().map(|(noun, _)| noun).collect();
        let verbs: BTreeSet<&str> = pairs().map(|(_, verb)| verb).collect();
        let of_nouns = nouns.into_iter().map(|noun| format!("{noun}:*"));
        let of_verbs = verbs.into_iter().map(|verb| format!("*:{verb}"));
        self.0.iter().map(|known| (*known).to_owned()).chain(of_nouns).chain(of_verbs)
    }

    /// A message for an unknown scope, with the most similar one, or all of them.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_that_is_none_is_refused_with_the_nearest_that_is() {
        let permissions = Permissions(["project:read", "project:write", "deploy:create"].into());
        let caller = Caller { scopes: Scopes::new(["*"]), ..Caller::anonymous() };
        for scope in ["*", "project:read", "project:*", "deploy:*", "*:read", "*:create"] {
            assert_eq!(permissions.check(scope, &caller), Ok(()), "{scope}");
        }
        for (scope, nearest) in [
            ("projct:read", "project:read"),
            ("project:raed", "project:read"),
            ("deploy:crate", "deploy:create"),
            ("projects:*", "project:*"),
            ("Project:read", "project:read"),
            ("-project:read", "project:read"),
            ("*:reed", "*:read"),
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

    #[test]
    fn a_person_gives_what_it_holds_all_of_and_a_key_what_it_was_given() {
        let permissions =
            Permissions(["project:read", "project:write", "organization:read", "organization:write"].into());
        let scopes = Scopes::new(["*:read", "*:write", "-organization:write"]);
        let person = Caller { principal: Principal::User, scopes, ..Caller::anonymous() };
        for scope in ["*:read", "project:*", "organization:read"] {
            assert_eq!(permissions.check(scope, &person), Ok(()), "{scope}");
        }
        let of_key = Scopes::new(["project:read", "project:write"]);
        let key = Caller { principal: Principal::ApiKey, scopes: of_key, ..Caller::anonymous() };
        for (scope, caller) in
            [("*:write", &person), ("organization:*", &person), ("*", &person), ("project:*", &key), ("*:read", &key)]
        {
            assert_eq!(permissions.check(scope, caller), Err(AuthError::InvalidScope(scope.to_owned())));
        }
    }
}
