//! Names of projects. A project's name is its app's host name: one label, and some labels are the platform's.

use callboard_messages::project::ProjectError;

const LENGTH_MAXIMUM: usize = 40;

/// Labels that the platform uses, may use later, or that visitors would take for the platform itself.
const RESERVED: &str = "admin administrator api auth billing callboard console dashboard docs ftp git health help \
    hostmaster imap internal localhost login mail metrics new ns ns1 ns2 oauth openid platform pop postmaster ready \
    registry root router security setup sign-in smtp ssh sso status support system webmaster wpad www";

/// Checks whether the name is allowed.
pub(crate) fn check(name: &str) -> Result<(), ProjectError> {
    let refuse = |reason: &str| Err(ProjectError::Invalid(format!("the name {reason}")));
    if name.is_empty() || name.len() > LENGTH_MAXIMUM {
        return refuse("must have 1 to 40 characters");
    }
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return refuse("may hold only a-z, 0-9 and -");
    }
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return refuse("must begin with a letter");
    }
    if name.ends_with('-') {
        return refuse("must not end with -");
    }
    // "xn--" and similar prefixes make a browser show other letters than are written.
    if name.get(2..4) == Some("--") {
        return refuse("must not have -- as its third and fourth characters");
    }
    if RESERVED.split_whitespace().any(|reserved| reserved == name) {
        return refuse(&format!("{name} is reserved; choose another"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_labels_are_names() {
        for name in ["a", "shop", "shop-2", "a--b-c", &"a".repeat(40)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = "a".repeat(41);
        for name in
            ["", &long, "Shop", "2shop", "-shop", "shop-", "sh_op", "sh.op", "shöp", "xn--shp", "www", "localhost"]
        {
            assert!(matches!(check(name), Err(ProjectError::Invalid(_))), "{name}");
        }
    }
}
