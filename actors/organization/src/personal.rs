//! The personal organization of every person.
//!
//! It is created when the event of the registration arrives, and by whoever needs it sooner: both do the same, and the
//! second finds the first's.

use callboard_messages::{
    CallError, Caller, Failure, OrganizationId, UserId,
    auth::UserRegistered,
    organization::{EnsurePersonal, Organization, OrganizationCreated, OrganizationError, Role},
};
use callboard_supervisors::{
    Handle, Outcome,
    db::{Database, Error, Transaction},
    events::{Inapplicable, Occurred, React, Stored, emit},
};
use chrono::{DateTime, Utc};

use crate::{
    Organizations, name,
    organizations::{join, memberships},
};

/// Most names tried; from the second on a collision has a chance of 1 in 65,536.
const TRIES: usize = 10;

impl Handle<EnsurePersonal> for Organizations {
    async fn handle(&self, caller: &Caller, message: EnsurePersonal) -> Outcome<EnsurePersonal> {
        if let Some(organization) = self.default_of(message.user_id).await? {
            return Ok(organization);
        }
        let now = self.clock.now();
        let work = async |transaction: &mut Transaction| ensure(transaction, caller, &message, now).await;
        self.database.transact(work).await?;
        // Also when another call was faster: both answer with the one that exists now.
        let organization = self.default_of(message.user_id).await?;
        Ok(organization.ok_or_else(|| Failure::Internal("a person was left without an organization".to_owned()))?)
    }
}

impl Stored for Organizations {
    fn database(&self) -> &Database {
        &self.database
    }
}

impl React<UserRegistered> for Organizations {
    async fn react(
        &self,
        transaction: &mut Transaction,
        event: &Occurred<UserRegistered>,
    ) -> Result<(), CallError<Inapplicable>> {
        let UserRegistered { user_id, name, organization_id } = &event.event;
        let there: Option<(OrganizationId,)> = transaction
            .query("SELECT organization_id FROM members WHERE user_id = $1 AND is_default")
            .bind(*user_id)
            .fetch_optional()
            .await?;
        if there.is_some() {
            return Ok(());
        }
        let message =
            EnsurePersonal { user_id: *user_id, account_name: name.clone(), organization_id: *organization_id };
        ensure(transaction, &event.caller, &message, self.clock.now()).await.map_err(|error| match error {
            CallError::Refused(refusal) => Inapplicable(refusal.to_string()).into(),
            CallError::Failed(failure) => failure.into(),
        })
    }
}

impl Organizations {
    async fn default_of(&self, user_id: UserId) -> Result<Option<Organization>, Error> {
        self.database
            .query(concat!(memberships!(), " WHERE m.user_id = $1 AND m.is_default"))
            .bind(user_id)
            .fetch_optional()
            .await
    }
}

/// Creates a person's default organization, unless another transaction has done so meanwhile.
async fn ensure(
    transaction: &mut Transaction,
    caller: &Caller,
    message: &EnsurePersonal,
    now: DateTime<Utc>,
) -> Result<(), CallError<OrganizationError>> {
    let user_id = message.user_id;
    let organization_id = match message.organization_id {
        Some(organization_id) => {
            let there: Option<(OrganizationId,)> = transaction
                .query("SELECT id FROM organizations WHERE id = $1")
                .bind(organization_id)
                .fetch_optional()
                .await?;
            there.ok_or(OrganizationError::NotFound)?.0
        }
        None => create_personal(transaction, caller, user_id, &message.account_name, now).await?,
    };
    join(transaction, organization_id, user_id, Role::Owner, true, now).await?;
    Ok(())
}

async fn create_personal(
    transaction: &mut Transaction,
    caller: &Caller,
    user_id: UserId,
    account_name: &str,
    now: DateTime<Utc>,
) -> Result<OrganizationId, CallError<OrganizationError>> {
    for name in name::candidates(account_name).take(TRIES) {
        // Nothing is inserted when the name is taken, or when another call made this person's organization.
        let inserted = transaction
            .query(
                "INSERT INTO organizations (id, name, display_name, personal_of, created_at)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT DO NOTHING",
            )
            .bind(OrganizationId::new())
            .bind(name.clone())
            .bind(account_name.to_owned())
            .bind(user_id)
            .bind(now)
            .execute()
            .await?;
        let made: Option<(OrganizationId,)> = transaction
            .query("SELECT id FROM organizations WHERE personal_of = $1")
            .bind(user_id)
            .fetch_optional()
            .await?;
        let Some((organization_id,)) = made else { continue };
        if inserted == 1 {
            let created = OrganizationCreated {
                organization_id,
                name,
                display_name: account_name.to_owned(),
                personal: true,
                owner: user_id,
            };
            emit(transaction, caller, &created).await?;
        }
        return Ok(organization_id);
    }
    Err(Failure::Internal(format!("no free name for an organization after {TRIES} tries")).into())
}
