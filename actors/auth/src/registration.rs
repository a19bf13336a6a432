//! Registration of accounts.
//!
//! The account and the spent token are one transaction; the organization is another domain's, which is asked for it and
//! also told by an event: a crash between the two leaves no account without one.

use callboard_messages::{
    CallError, Caller, UserId,
    auth::{Account, AuthError, Register, UserRegistered},
};
use callboard_supervisors::{Handle, Outcome, db::Transaction, events::emit};

use crate::{
    accounts::{self, AccountRow, OPERATOR_EMAIL},
    invitations::{self, Permit},
    opaque,
    origins::Origin,
    passwords,
    sessions::Start,
    state::Auth,
};

impl Handle<Register> for Auth {
    async fn handle(&self, caller: &Caller, message: Register) -> Outcome<Register> {
        let email = accounts::email(&message.email)?;
        if email == OPERATOR_EMAIL {
            return Err(AuthError::InvalidEmail.into());
        }
        let name = accounts::name(message.name.as_deref(), &email)?;
        passwords::check(&message.password, &email, &name)?;
        opaque::check_length("replaces", message.replaces.as_ref())?;
        let permit = self.permit(message.invitation.as_ref(), &email).await?;
        let origin = Origin::network(caller);
        let password_hash = self.shared.passwords.hash(caller, &origin, &message.password).await?;

        let first = permit == Permit::Setup;
        // The founder shares the operator's organization, which the event must name.
        let organization_id = if first { Some(self.operators_organization(caller).await?) } else { None };
        let now = self.now();
        let account = Account { id: UserId::new(), email, name, administrator: first, created_at: now };
        let registered = UserRegistered { user_id: account.id, name: account.name.clone(), organization_id };
        let row = AccountRow { account, founder: first };
        let register = async |transaction: &mut Transaction| -> Result<(), CallError<AuthError>> {
            if let Some(token) = &message.invitation {
                invitations::spend(transaction, token, &row.account.email, now).await?;
            }
            match accounts::insert(transaction, &row, Some(password_hash.clone())).await {
                Err(error) if error.violates("accounts_email_key", "accounts.email") => {
                    return Err(AuthError::EmailTaken.into());
                }
                Err(error) if error.violates("accounts_founder_key", "accounts.founder") => {
                    return Err(AuthError::InvitationRequired.into());
                }
                other => other?,
            }
            Ok(emit(transaction, caller, &registered).await?)
        };
        self.database.transact(register).await?;
        tracing::info!(target: "callboard::security", user_id = %row.account.id, ?permit, "an account was registered");

        // From here on the account exists, whatever fails.
        let organization_id = self.ensure_organization(caller, &row).await.map_err(CallError::after_effect)?;
        let start = Start { organization_id, origin, replaces: message.replaces };
        self.start_session(caller, row.account, start).await.map_err(CallError::after_effect)
    }
}
