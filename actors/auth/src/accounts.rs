//! Accounts of people, and the rules for their email addresses and names.

use callboard_messages::{
    CallError, Caller,
    auth::{Account, AuthError, Identity, WhoAmI},
};
use callboard_supervisors::{
    Handle, Outcome,
    db::{Error, Transaction},
};

use crate::state::Auth;

/// The address of the local operator's account, which nobody can register.
pub(crate) const OPERATOR_EMAIL: &str = "operator@localhost";

const EMAIL_LONGEST: usize = 254;
const LOCAL_PART_LONGEST: usize = 64;
const NAME_LONGEST: usize = 100;

/// An account as auth has it, without what proves it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct AccountRow {
    #[sqlx(flatten)]
    pub(crate) account: Account,
    /// Whether it was the first of the platform, and shares the operator's organization.
    pub(crate) founder: bool,
}

/// Reads each [`AccountRow`].
macro_rules! accounts {
    () => {
        "SELECT id, email, name, administrator, founder, created_at FROM accounts"
    };
}
pub(crate) use accounts;

/// The address as it is stored and compared.
pub(crate) fn email(text: &str) -> Result<String, AuthError> {
    let email = text.trim().to_lowercase();
    let Some((local, domain)) = email.rsplit_once('@') else { return Err(AuthError::InvalidEmail) };
    let plain =
        |character: char| !character.is_control() && !character.is_whitespace() && !"@<>,;\"".contains(character);
    let right = email.len() <= EMAIL_LONGEST
        && (1..=LOCAL_PART_LONGEST).contains(&local.len())
        && local.chars().all(plain)
        && !domain.is_empty()
        && domain.split('.').all(|label| !label.is_empty())
        && domain.chars().all(plain);
    if right { Ok(email) } else { Err(AuthError::InvalidEmail) }
}

/// The name of a person: as given, or the part of the address before the `@`.
pub(crate) fn name(told: Option<&str>, email: &str) -> Result<String, AuthError> {
    let name = told.unwrap_or_else(|| email.split('@').next().unwrap_or(email)).trim();
    if !(1..=NAME_LONGEST).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        return Err(AuthError::Invalid(format!("a name is 1 to {NAME_LONGEST} characters without control characters")));
    }
    Ok(name.to_owned())
}

/// Stores an account. `password_hash` is absent for the operator alone.
pub(crate) async fn insert(
    transaction: &mut Transaction,
    AccountRow { account, founder }: &AccountRow,
    password_hash: Option<String>,
) -> Result<(), Error> {
    let operator = password_hash.is_none();
    transaction
        .query(
            "INSERT INTO accounts (id, email, name, password_hash, administrator, operator, founder, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(account.id)
        .bind(account.email.clone())
        .bind(account.name.clone())
        .bind(password_hash)
        .bind(account.administrator)
        .bind(operator)
        .bind(*founder)
        .bind(account.created_at)
        .execute()
        .await?;
    Ok(())
}

impl Auth {
    /// The caller's account. When it is gone, the caller is no longer authenticated.
    pub(crate) async fn account_of(&self, caller: &Caller) -> Result<Account, CallError<AuthError>> {
        let account: Option<Account> =
            self.database.query(concat!(accounts!(), " WHERE id = $1")).bind(caller.person()?).fetch_optional().await?;
        Ok(account.ok_or(AuthError::InvalidToken)?)
    }
}

impl Handle<WhoAmI> for Auth {
    async fn handle(&self, caller: &Caller, _: WhoAmI) -> Outcome<WhoAmI> {
        let account = self.account_of(caller).await?;
        let (organization_id, scopes) = match caller.organization_id {
            Some(organization_id) => (organization_id, caller.scopes.clone()),
            None => {
                let permissions = self.permissions(caller, account.id, None).await?;
                (permissions.organization_id, permissions.scopes)
            }
        };
        let (session_id, api_key_id) = (caller.session_id, caller.api_key_id);
        Ok(Identity { account, organization_id, scopes, session_id, api_key_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_without_case() {
        assert_eq!(email(" Ada@Example.ORG ").unwrap(), "ada@example.org");
        assert_eq!(email("ada+tag@localhost").unwrap(), "ada+tag@localhost");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}@example.org", "x".repeat(65));
        let longer = format!("ada@{}.org", "x".repeat(300));
        for text in [
            "",
            "ada",
            "@",
            "ada@",
            "@example.org",
            "a@b@c",
            "a b@c.d",
            "ada@example..org",
            "ada@.org",
            "a\r\nb@c.d",
            "<a@b.c>",
            &long,
            &longer,
        ] {
            assert_eq!(email(text), Err(AuthError::InvalidEmail), "{text:?}");
        }
    }

    #[test]
    fn a_name_comes_from_the_address_unless_told() {
        assert_eq!(name(None, "ada@example.org").unwrap(), "ada");
        assert_eq!(name(Some(" Ada Lovelace "), "ada@example.org").unwrap(), "Ada Lovelace");
        assert!(name(Some(" "), "ada@example.org").is_err());
        assert!(name(Some("a\nb"), "ada@example.org").is_err());
        assert!(name(Some(&"x".repeat(101)), "ada@example.org").is_err());
    }
}
