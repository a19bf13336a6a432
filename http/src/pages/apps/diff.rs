//! What differs between two versions of an environment.

use std::collections::BTreeMap;

use callboard_messages::project::{Environment, Variable};
use serde::Serialize;

/// A variable that differs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    name: String,
    /// `added`, `changed` or `removed`.
    kind: &'static str,
    secret: bool,
    /// Absent for a secret, and for what was not there.
    before: Option<String>,
    after: Option<String>,
}

impl Difference {
    /// What happens to the variable, for whoever is asked before.
    pub(super) fn sentence(&self) -> String {
        let name = &self.name;
        match (self.kind, &self.before, &self.after) {
            ("added", _, Some(after)) => format!("{name} is set again, to {after:?}."),
            ("added", ..) => format!("{name} is set again."),
            ("removed", ..) => format!("{name} is not set any more."),
            (_, Some(before), Some(after)) => format!("{name} becomes {after:?} instead of {before:?}."),
            _ => format!("{name} gets its earlier value."),
        }
    }
}

/// The variables that differ, by name. Of a secret only that it was set again is known.
pub(super) fn between(before: &Environment, after: &Environment) -> Vec<Difference> {
    let mut names: BTreeMap<&str, (Option<&Variable>, Option<&Variable>)> = BTreeMap::new();
    for variable in &before.variables {
        names.entry(&variable.name).or_default().0 = Some(variable);
    }
    for variable in &after.variables {
        names.entry(&variable.name).or_default().1 = Some(variable);
    }
    let differs = |(name, (before, after)): (&str, (Option<&Variable>, Option<&Variable>))| {
        let kind = match (before, after) {
            (None, Some(_)) => "added",
            (Some(_), None) => "removed",
            (Some(before), Some(after)) if is_other(before, after) => "changed",
            _ => return None,
        };
        let secret = before.is_some_and(|variable| variable.secret) || after.is_some_and(|variable| variable.secret);
        let value = |variable: Option<&Variable>| variable.and_then(|variable| variable.value.clone());
        Some(Difference { name: name.to_owned(), kind, secret, before: value(before), after: value(after) })
    };
    names.into_iter().filter_map(differs).collect()
}

fn is_other(before: &Variable, after: &Variable) -> bool {
    if before.secret || after.secret { before.version != after.version } else { before.value != after.value }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn environment(variables: &[(&str, Option<&str>, i64)]) -> Environment {
        let variable = |(name, value, version): &(&str, Option<&str>, i64)| Variable {
            name: (*name).to_owned(),
            value: value.map(str::to_owned),
            secret: value.is_none(),
            version: *version,
            updated_at: Utc::now(),
        };
        Environment { version: 9, variables: variables.iter().map(variable).collect() }
    }

    #[test]
    fn a_secret_differs_when_it_was_set_again_and_a_value_when_it_is_another() {
        let before = environment(&[
            ("A", Some("1"), 1),
            ("B", Some("1"), 1),
            ("S", None, 1),
            ("T", None, 1),
            ("X", Some("x"), 1),
        ]);
        let after = environment(&[
            ("A", Some("1"), 2),
            ("B", Some("2"), 2),
            ("N", Some("n"), 2),
            ("S", None, 2),
            ("T", None, 1),
        ]);
        let found: Vec<(String, &str)> =
            between(&before, &after).into_iter().map(|difference| (difference.name, difference.kind)).collect();
        let expected = [("B", "changed"), ("N", "added"), ("S", "changed"), ("X", "removed")];
        assert_eq!(found, expected.map(|(name, kind)| (name.to_owned(), kind)));
        assert!(between(&after, &after).is_empty());
    }
}
