//! One-time tokens for registration: invitations, and the set-up token.

use std::time::Duration;

use callboard_messages::{
    CallError, Caller, NodeId, Secret, UserId,
    auth::{AuthError, CreateInvitation, Invitation, IssueSetupToken},
};
use callboard_supervisors::{
    Handle, Outcome,
    db::{Error, Transaction},
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{accounts, opaque, settings::Registration, state::Auth};

const LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What permits a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permit {
    /// Registration is open.
    Open,
    /// An invitation of an administrator.
    Invitation,
    /// The set-up token: makes the first administrator.
    Setup,
}

impl Auth {
    /// Whether `email` may register with `token`, before anything costly is done. [`spend`] decides.
    pub(crate) async fn permit(&self, token: Option<&Secret>, email: &str) -> Result<Permit, CallError<AuthError>> {
        let policy = self.settings.registration;
        let refused = match policy {
            Registration::Closed => AuthError::RegistrationClosed,
            Registration::Open | Registration::Invite => AuthError::InvitationRequired,
        };
        let Some(token) = token else {
            return if policy == Registration::Open { Ok(Permit::Open) } else { Err(refused.into()) };
        };
        let setup: Option<(bool,)> = self
            .database
            .query(
                "SELECT setup FROM invitations
                 WHERE token_hash = $1 AND spent_at IS NULL AND expires_at > $2 AND (email IS NULL OR email = $3)",
            )
            .bind(opaque::hash(token.expose()))
            .bind(self.now())
            .bind(email.to_owned())
            .fetch_optional()
            .await?;
        match setup {
            Some((true,)) => Ok(Permit::Setup),
            Some((false,)) if policy != Registration::Closed => Ok(Permit::Invitation),
            _ => Err(refused.into()),
        }
    }
}

/// Spends a token, in the transaction of the registration: of two that use the same one, one is refused.
pub(crate) async fn spend(
    transaction: &mut Transaction,
    token: &Secret,
    email: &str,
    now: DateTime<Utc>,
) -> Result<(), CallError<AuthError>> {
    let spent = transaction
        .query(
            "UPDATE invitations SET spent_at = $2
             WHERE token_hash = $1 AND spent_at IS NULL AND expires_at > $2 AND (email IS NULL OR email = $3)",
        )
        .bind(opaque::hash(token.expose()))
        .bind(now)
        .bind(email.to_owned())
        .execute()
        .await?;
    if spent == 1 { Ok(()) } else { Err(AuthError::InvitationRequired.into()) }
}

/// The addressee of a token.
enum For {
    /// The first administrator, by the link of this node.
    Setup { node: Option<NodeId> },
    /// An invited person: anybody, or only this address.
    Invited { email: Option<String>, by: UserId },
}

async fn insert(transaction: &mut Transaction, token: &Secret, whom: For, now: DateTime<Utc>) -> Result<(), Error> {
    let (setup, node, email, created_by) = match whom {
        For::Setup { node } => (true, node, None, None),
        For::Invited { email, by } => (false, None, email, Some(by)),
    };
    transaction
        .query(
            "INSERT INTO invitations (id, token_hash, setup, email, created_by, created_at, expires_at, node)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(Uuid::now_v7())
        .bind(opaque::hash(token.expose()))
        .bind(setup)
        .bind(email)
        .bind(created_by)
        .bind(now)
        .bind(now + LIFETIME)
        .bind(node)
        .execute()
        .await?;
    Ok(())
}

impl Handle<CreateInvitation> for Auth {
    async fn handle(&self, caller: &Caller, message: CreateInvitation) -> Outcome<CreateInvitation> {
        let account = self.account_of(caller).await?;
        if self.settings.registration == Registration::Closed {
            return Err(AuthError::RegistrationClosed.into());
        }
        let email = message.email.as_deref().map(accounts::email).transpose()?;
        let (token, now) = (opaque::random("cbi"), self.now());
        let invite = async |transaction: &mut Transaction| -> Outcome<CreateInvitation> {
            let whom = For::Invited { email: email.clone(), by: account.id };
            insert(transaction, &token, whom, now).await?;
            Ok(Invitation { token: token.clone(), expires_at: now + LIFETIME })
        };
        self.database.once::<CreateInvitation>(caller, &self.context.clock, invite).await
    }
}

impl Handle<IssueSetupToken> for Auth {
    async fn handle(&self, _: &Caller, message: IssueSetupToken) -> Outcome<IssueSetupToken> {
        let node = message.node;
        let issue = async |transaction: &mut Transaction| -> Result<_, Error> {
            let administrators: i64 = transaction
                .query("SELECT COUNT(*) FROM accounts WHERE administrator AND NOT operator")
                .fetch_scalar()
                .await?;
            transaction
                .query("DELETE FROM invitations WHERE setup AND (node IS NULL OR node = $1)")
                .bind(node)
                .execute()
                .await?;
            let token = (administrators == 0).then(|| opaque::random("cbs"));
            if let Some(token) = &token {
                insert(transaction, token, For::Setup { node }, self.now()).await?;
            }
            Ok(token)
        };
        Ok(self.database.transact(issue).await?)
    }
}
