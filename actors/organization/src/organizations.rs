//! Organizations for their members: create, get, list.

use callboard_messages::{
    Caller, Cursor, Failure, OrganizationId, Page, Principal, UserId,
    organization::{
        CreateOrganization, GetOrganization, ListOrganizations, Organization, OrganizationCreated, OrganizationError,
        Role,
    },
};
use callboard_supervisors::{
    Handle, Outcome,
    db::{Error, Transaction},
    events::emit,
};
use chrono::{DateTime, Utc};

use crate::{Organizations, name};

const DISPLAY_NAME_LONGEST: usize = 100;

/// Each [`Organization`] joined with a membership in it.
macro_rules! memberships {
    () => {
        "SELECT o.id, o.name, o.display_name, o.personal_of IS NOT NULL AS personal, m.role, o.created_at,
                o.deleting_at
         FROM members m JOIN organizations o ON o.id = m.organization_id"
    };
}
pub(crate) use memberships;

/// Makes `user_id` a member, unless it is one; by default with this organization as its default, if it has no other.
pub(crate) async fn join(
    transaction: &mut Transaction,
    organization_id: OrganizationId,
    user_id: UserId,
    role: Role,
    is_default: bool,
    now: DateTime<Utc>,
) -> Result<u64, Error> {
    transaction
        .query(
            "INSERT INTO members (organization_id, user_id, role, is_default, created_at)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT DO NOTHING",
        )
        .bind(organization_id)
        .bind(user_id)
        .bind(role.as_str())
        .bind(is_default)
        .bind(now)
        .execute()
        .await
}

/// The only organization that a program sees, its key's; `None` for a person, which sees all of its own.
pub(crate) fn confined_to(caller: &Caller) -> Result<Option<OrganizationId>, Failure> {
    (caller.principal == Principal::ApiKey).then(|| caller.tenant()).transpose()
}

impl Handle<CreateOrganization> for Organizations {
    async fn handle(&self, caller: &Caller, message: CreateOrganization) -> Outcome<CreateOrganization> {
        let user_id = caller.person()?;
        name::check(&message.name)?;
        let display_name = message.display_name.as_deref().map_or(message.name.as_str(), str::trim).to_owned();
        let length = display_name.chars().count();
        if !(1..=DISPLAY_NAME_LONGEST).contains(&length) || display_name.chars().any(char::is_control) {
            return Err(OrganizationError::Invalid(format!(
                "a display name is 1 to {DISPLAY_NAME_LONGEST} characters without control characters"
            ))
            .into());
        }
        let organization = Organization {
            id: OrganizationId::new(),
            name: message.name,
            display_name,
            personal: false,
            role: Role::Owner,
            created_at: self.clock.now(),
            deleting_at: None,
        };

        let created = OrganizationCreated {
            organization_id: organization.id,
            name: organization.name.clone(),
            display_name: organization.display_name.clone(),
            personal: false,
            owner: user_id,
        };
        let create = async |transaction: &mut Transaction| -> Outcome<CreateOrganization> {
            let inserted = transaction
                .query("INSERT INTO organizations (id, name, display_name, created_at) VALUES ($1, $2, $3, $4)")
                .bind(organization.id)
                .bind(organization.name.clone())
                .bind(organization.display_name.clone())
                .bind(organization.created_at)
                .execute()
                .await;
            match inserted {
                Err(error) if error.violates("organizations_name_key", "organizations.name") => {
                    return Err(OrganizationError::NameTaken(organization.name.clone()).into());
                }
                other => other?,
            };
            join(transaction, organization.id, user_id, Role::Owner, false, organization.created_at).await?;
            emit(transaction, caller, &created).await?;
            Ok(organization.clone())
        };
        self.database.once::<CreateOrganization>(caller, &self.clock, create).await
    }
}

impl Handle<GetOrganization> for Organizations {
    async fn handle(&self, caller: &Caller, message: GetOrganization) -> Outcome<GetOrganization> {
        let user_id = caller.person()?;
        if confined_to(caller)?.is_some_and(|only| only != message.organization_id) {
            return Err(OrganizationError::NotFound.into());
        }
        let organization: Option<Organization> = self
            .database
            .query(concat!(memberships!(), " WHERE m.organization_id = $1 AND m.user_id = $2"))
            .bind(message.organization_id)
            .bind(user_id)
            .fetch_optional()
            .await?;
        Ok(organization.ok_or(OrganizationError::NotFound)?)
    }
}

impl Handle<ListOrganizations> for Organizations {
    async fn handle(&self, caller: &Caller, message: ListOrganizations) -> Outcome<ListOrganizations> {
        let user_id = caller.person()?;
        let organizations: Vec<Organization> = self
            .database
            .query(concat!(
                memberships!(),
                " WHERE m.user_id = $1
                   AND m.organization_id < $2
                   AND ($3 IS NULL OR m.organization_id = $3)
                 ORDER BY m.organization_id DESC
                 LIMIT $4"
            ))
            .bind(user_id)
            .bind(Cursor::below(message.cursor))
            .bind(confined_to(caller)?)
            .bind(message.limit.rows())
            .fetch_all()
            .await?;
        Ok(Page::of(organizations, message.limit, |organization| organization.id.0))
    }
}
