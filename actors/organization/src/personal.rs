//! The organization every person has.

use callboard_messages::{
    CallError, Caller, Failure,
    organization::{EnsurePersonal, Organization, OrganizationError, Role},
};
use callboard_supervisors::{Handle, Outcome, db::Error};
use uuid::Uuid;

use crate::{
    Organizations, name,
    organizations::{OrganizationRow, join},
};

/// Names tried before giving up; from the second on a collision has a chance of 1 in 65,536.
const TRIES: usize = 10;

impl Handle<EnsurePersonal> for Organizations {
    async fn handle(&self, _: &Caller, message: EnsurePersonal) -> Outcome<EnsurePersonal> {
        if let Some(row) = self.default_of(message.user_id.0).await? {
            return Ok(row.try_into()?);
        }
        match message.organization_id {
            Some(organization_id) => self.join_as_owner(organization_id.0, message.user_id.0).await?,
            None => self.create_personal(message.user_id.0, &message.account_name).await?,
        }
        // Also when another call was faster: both answer with what is there now.
        let row = self.default_of(message.user_id.0).await?;
        let row = row.ok_or_else(|| Failure::Internal("a person was left without an organization".to_owned()))?;
        Ok(Organization::try_from(row)?)
    }
}

impl Organizations {
    async fn default_of(&self, user_id: Uuid) -> Result<Option<OrganizationRow>, Error> {
        self.database
            .query(
                "SELECT o.id, o.name, o.display_name, o.personal_of, m.role, o.created_at
                 FROM members m JOIN organizations o ON o.id = m.organization_id
                 WHERE m.user_id = $1 AND m.is_default",
            )
            .bind(user_id)
            .fetch_optional()
            .await
    }

    async fn join_as_owner(&self, organization_id: Uuid, user_id: Uuid) -> Result<(), CallError<OrganizationError>> {
        let mut transaction = self.database.begin().await?;
        let there: Option<(Uuid,)> = transaction
            .query("SELECT id FROM organizations WHERE id = $1")
            .bind(organization_id)
            .fetch_optional()
            .await?;
        if there.is_none() {
            return Err(OrganizationError::NotFound.into());
        }
        join(&mut transaction, organization_id, user_id, Role::Owner, true, self.clock.now()).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn create_personal(&self, user_id: Uuid, account_name: &str) -> Result<(), CallError<OrganizationError>> {
        let now = self.clock.now();
        for name in name::candidates(account_name).take(TRIES) {
            let mut transaction = self.database.begin().await?;
            // Nothing is inserted when the name is taken, or when another call made this person's organization.
            transaction
                .query(
                    "INSERT INTO organizations (id, name, display_name, personal_of, created_at)
                     VALUES ($1, $2, $3, $4, $5)
                     ON CONFLICT DO NOTHING",
                )
                .bind(Uuid::now_v7())
                .bind(name)
                .bind(account_name.to_owned())
                .bind(user_id)
                .bind(now)
                .execute()
                .await?;
            let made: Option<(Uuid,)> = transaction
                .query("SELECT id FROM organizations WHERE personal_of = $1")
                .bind(user_id)
                .fetch_optional()
                .await?;
            let Some((id,)) = made else { continue };
            join(&mut transaction, id, user_id, Role::Owner, true, now).await?;
            transaction.commit().await?;
            return Ok(());
        }
        Err(Failure::Internal(format!("no free name for an organization after {TRIES} tries")).into())
    }
}
