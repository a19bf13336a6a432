//! The local operator: the account of the command line on the node's own machine.
//!
//! It administers the platform, can't sign in with a password, and holds one API key that the node writes into a file
//! only its own user can read. It does not count as the first administrator, who shares its organization.

use callboard_messages::{
    ApiKeyId, CallError, Caller, Failure, OrganizationId, UserId,
    auth::{Account, AuthError, CredentialRevoked, IssueLocalKey},
    organization::EnsurePersonal,
};
use callboard_supervisors::{
    Handle, Outcome,
    db::{Error, Transaction},
};

use crate::{
    accounts::{self, AccountRow, OPERATOR_EMAIL, accounts},
    api_keys::{self, NewKey},
    state::Auth,
};

/// Name of the organization that the operator and the first administrator share.
const ORGANIZATION: &str = "main";

impl Auth {
    /// The operator's organization; creates its account if there is none yet.
    pub(crate) async fn operators_organization(&self, caller: &Caller) -> Result<OrganizationId, CallError<AuthError>> {
        let operator = self.ensure_operator().await?;
        let ensure =
            EnsurePersonal { user_id: operator.id, account_name: ORGANIZATION.to_owned(), organization_id: None };
        Ok(self.ask_organization(caller, ensure).await?.id)
    }

    async fn ensure_operator(&self) -> Result<Account, CallError<AuthError>> {
        if let Some(operator) = self.operator().await? {
            return Ok(operator);
        }
        let account = Account {
            id: UserId::new(),
            email: OPERATOR_EMAIL.to_owned(),
            name: "Operator".to_owned(),
            administrator: true,
            created_at: self.now(),
        };
        let row = AccountRow { account, founder: false };
        let make = async |transaction: &mut Transaction| accounts::insert(transaction, &row, None).await;
        match self.database.transact(make).await {
            Ok(()) => Ok(row.account),
            Err(error)
                if error.violates("accounts_email_key", "accounts.email")
                    || error.violates("accounts_operator_key", "accounts.operator") =>
            {
                let faster = self.operator().await?;
                Ok(faster.ok_or_else(|| Failure::Internal("the operator's account vanished".to_owned()))?)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn operator(&self) -> Result<Option<Account>, Error> {
        self.database.query(concat!(accounts!(), " WHERE operator")).fetch_optional().await
    }
}

impl Handle<IssueLocalKey> for Auth {
    async fn handle(&self, caller: &Caller, message: IssueLocalKey) -> Outcome<IssueLocalKey> {
        let organization_id = self.operators_organization(caller).await?;
        let operator = self.ensure_operator().await?;
        let now = self.now();
        let node = message.node;
        self.revoking(async |transaction| {
            let replaced: Vec<(ApiKeyId,)> = transaction
                .query("DELETE FROM api_keys WHERE local AND (node IS NULL OR node = $1) RETURNING id")
                .bind(node)
                .fetch_all()
                .await?;
            let key = NewKey {
                account_id: operator.id,
                organization_id,
                name: "the command line on this machine".to_owned(),
                scopes: vec!["*".to_owned()],
                expires_at: None,
                local: true,
                node,
            };
            let created = api_keys::insert(transaction, key, now).await?;
            Ok((created, replaced.into_iter().map(|(id,)| CredentialRevoked::ApiKey(id)).collect()))
        })
        .await
    }
}
