//! The rule for names of organizations in URLs.

use callboard_messages::organization::OrganizationError;
use uuid::Uuid;

const SHORTEST: usize = 2;
const LONGEST: usize = 40;

/// Names with another meaning in a URL, a host name or a sentence of ours.
const RESERVED: [&str; 32] = [
    "account",
    "actors",
    "admin",
    "administrator",
    "api",
    "app",
    "apps",
    "auth",
    "billing",
    "callboard",
    "dashboard",
    "default",
    "docs",
    "health",
    "help",
    "live",
    "localhost",
    "login",
    "me",
    "metrics",
    "new",
    "null",
    "organizations",
    "projects",
    "ready",
    "root",
    "settings",
    "setup",
    "sign-in",
    "support",
    "system",
    "www",
];

/// Whether `name` may name an organization.
pub(crate) fn check(name: &str) -> Result<(), OrganizationError> {
    let right = (SHORTEST..=LONGEST).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !right {
        return Err(OrganizationError::Invalid(format!(
            "a name is {SHORTEST} to {LONGEST} of a-z, 0-9 and -, begins with a letter and does not end with -"
        )));
    }
    if RESERVED.contains(&name) {
        return Err(OrganizationError::Invalid(format!("the name {name} is reserved; choose another")));
    }
    Ok(())
}

/// Candidates for the name of `account_name`'s organization, the plain one first; the others have a random ending.
pub(crate) fn candidates(account_name: &str) -> impl Iterator<Item = String> {
    const ENDING: usize = 5;
    let mut plain = String::new();
    for letter in account_name.chars().flat_map(char::to_lowercase) {
        if letter.is_ascii_alphanumeric() {
            plain.push(letter);
        } else if !plain.is_empty() && !plain.ends_with('-') {
            plain.push('-');
        }
    }
    let plain = plain.trim_start_matches(|first: char| !first.is_ascii_lowercase());
    let stem: String = plain.chars().take(LONGEST - ENDING).collect();
    let stem = stem.trim_end_matches('-').to_owned();
    let stem = if stem.is_empty() { "person".to_owned() } else { stem };
    let plain = check(&stem).is_ok().then(|| stem.clone());
    let endings = std::iter::repeat_with(move || {
        // The end of a UUIDv7 is random.
        let random = Uuid::now_v7().simple().to_string();
        format!("{stem}-{}", random.get(28..).unwrap_or(&random))
    });
    plain.into_iter().chain(endings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_rule() {
        for name in ["ab", "acme", "a-1", "team-42", &"a".repeat(40)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for name in ["", "a", "1a", "-a", "a-", "A", "aB", "a_b", "a b", "ä1", "a.b", &"a".repeat(41), "admin", "www"]
        {
            assert!(matches!(check(name), Err(OrganizationError::Invalid(_))), "{name}");
        }
    }

    #[test]
    fn every_account_name_gives_names_that_keep_the_rule() {
        let long = "x".repeat(100);
        for account in ["ada", "Ada Lovelace", "", "42", "---", "admin", "Ünïcode Ñame", "李小龙", "a", "1-a", &long]
        {
            let names: Vec<_> = candidates(account).take(4).collect();
            assert_eq!(names.len(), 4);
            for name in names {
                assert_eq!(check(&name), Ok(()), "{account} gives {name}");
            }
        }
        assert_eq!(candidates("Ada Lovelace").next().unwrap(), "ada-lovelace");
        assert_ne!(candidates("admin").next().unwrap(), "admin");
    }
}
