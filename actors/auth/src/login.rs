//! Sign-in: starts a session by a password.

use callboard_messages::{
    Caller,
    auth::{AuthError, Login},
};
use callboard_supervisors::{Handle, Outcome};

use crate::{
    accounts::{self, AccountRow},
    lockout::Lockout,
    opaque,
    origins::Origin,
    passwords,
    sessions::Start,
    state::Auth,
};

/// An account with the hash of its password.
#[derive(sqlx::FromRow)]
struct AccountWithHash {
    #[sqlx(flatten)]
    row: AccountRow,
    password_hash: Option<String>,
}

impl Handle<Login> for Auth {
    async fn handle(&self, caller: &Caller, message: Login) -> Outcome<Login> {
        let email = accounts::email(&message.email)?;
        passwords::check_length(&message.password)?;
        opaque::check_length("device", message.device.as_ref())?;
        opaque::check_length("replaces", message.replaces.as_ref())?;
        let found: Option<AccountWithHash> = self
            .database
            .query(
                "SELECT id, email, name, administrator, founder, created_at, password_hash
                 FROM accounts WHERE email = $1",
            )
            .bind(email.clone())
            .fetch_optional()
            .await?;
        let (row, hash) = found.map_or((None, None), |found| (Some(found.row), found.password_hash));
        let device = row.as_ref().zip(message.device.as_ref()).and_then(|(row, token)| {
            let account = row.account.id;
            self.shared.devices.known(account, token).map(|device| Origin::Device { account, device })
        });
        let origin = device.unwrap_or_else(|| Origin::network(caller));
        let lockout = Lockout::new(&self.database, &email, &origin);
        lockout.check(self.now()).await?;

        // The same work whether or not the account exists.
        let right = self.shared.passwords.verify(caller, &origin, &message.password, hash).await?;
        let Some(row) = row.filter(|_| right) else {
            lockout.failed(self.now()).await?;
            return Err(AuthError::WrongCredentials.into());
        };
        // Parallel guesses get no more answers than sequential ones, not even when one of them is right.
        lockout.check(self.now()).await?;
        lockout.succeeded().await?;

        let organization_id = self.ensure_organization(caller, &row).await?;
        let start = Start { organization_id, origin, replaces: message.replaces };
        self.start_session(caller, row.account, start).await
    }
}
