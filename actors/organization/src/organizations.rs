//! Organizations as their members see them: create, get, list.

use callboard_messages::{
    Caller, Failure, OrganizationId, Page, Principal, UserId,
    organization::{
        CreateOrganization, GetOrganization, ListOrganizations, Organization, OrganizationCreated, OrganizationError,
        Role,
    },
    page_limit,
};
use callboard_supervisors::{
    Handle, Outcome,
    db::{Error, Transaction},
    events::emit,
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{Organizations, name};

const DISPLAY_NAME_LONGEST: usize = 100;

/// An organization, joined with the membership of the one who asks.
#[derive(sqlx::FromRow)]
pub(crate) struct OrganizationRow {
    id: Uuid,
    name: String,
    display_name: String,
    personal_of: Option<Uuid>,
    role: String,
    created_at: DateTime<Utc>,
}

impl TryFrom<OrganizationRow> for Organization {
    type Error = Failure;

    fn try_from(row: OrganizationRow) -> Result<Self, Failure> {
        Ok(Self {
            id: OrganizationId(row.id),
            name: row.name,
            display_name: row.display_name,
            personal: row.personal_of.is_some(),
            role: read_role(&row.role)?,
            created_at: row.created_at,
        })
    }
}

/// A role as [`Role::as_str`] writes it. The table's own check lets no other word in.
pub(crate) fn read_role(text: &str) -> Result<Role, Failure> {
    [Role::Owner, Role::Admin, Role::Developer, Role::Viewer, Role::Billing]
        .into_iter()
        .find(|role| role.as_str() == text)
        .ok_or_else(|| Failure::Internal(format!("a member has the unknown role {text}")))
}

/// Makes `user_id` a member, if it is none yet, by default for its default organization when it has no other.
pub(crate) async fn join(
    transaction: &mut Transaction,
    organization_id: Uuid,
    user_id: Uuid,
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

/// The person who asks: nobody else has organizations.
fn person(caller: &Caller) -> Result<UserId, Failure> {
    caller.user_id.ok_or(Failure::Unauthenticated)
}

/// A program sees no organization but its key's; a person sees all of its own.
fn confined_to(caller: &Caller) -> Option<Uuid> {
    (caller.principal == Principal::ApiKey).then(|| caller.organization_id.map_or(Uuid::nil(), |id| id.0))
}

impl Handle<CreateOrganization> for Organizations {
    async fn handle(&self, caller: &Caller, message: CreateOrganization) -> Outcome<CreateOrganization> {
        let user_id = person(caller)?;
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
                .bind(organization.id.0)
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
            join(transaction, organization.id.0, user_id.0, Role::Owner, false, organization.created_at).await?;
            emit(transaction, caller, &created).await?;
            Ok(organization.clone())
        };
        self.database.once::<CreateOrganization>(caller, &self.clock, create).await
    }
}

impl Handle<GetOrganization> for Organizations {
    async fn handle(&self, caller: &Caller, message: GetOrganization) -> Outcome<GetOrganization> {
        let user_id = person(caller)?;
        if confined_to(caller).is_some_and(|only| only != message.organization_id.0) {
            return Err(OrganizationError::NotFound.into());
        }
        let row: Option<OrganizationRow> = self
            .database
            .query(
                "SELECT o.id, o.name, o.display_name, o.personal_of, m.role, o.created_at
                 FROM members m JOIN organizations o ON o.id = m.organization_id
                 WHERE m.organization_id = $1 AND m.user_id = $2",
            )
            .bind(message.organization_id.0)
            .bind(user_id.0)
            .fetch_optional()
            .await?;
        Ok(row.ok_or(OrganizationError::NotFound)?.try_into()?)
    }
}

impl Handle<ListOrganizations> for Organizations {
    async fn handle(&self, caller: &Caller, message: ListOrganizations) -> Outcome<ListOrganizations> {
        let user_id = person(caller)?;
        let limit = page_limit(message.limit).map_err(OrganizationError::Invalid)?;
        let rows: Vec<OrganizationRow> = self
            .database
            .query(
                "SELECT o.id, o.name, o.display_name, o.personal_of, m.role, o.created_at
                 FROM members m JOIN organizations o ON o.id = m.organization_id
                 WHERE m.user_id = $1
                   AND m.organization_id < $2
                   AND ($3 IS NULL OR m.organization_id = $3)
                 ORDER BY m.organization_id DESC
                 LIMIT $4",
            )
            .bind(user_id.0)
            .bind(message.cursor.map_or(Uuid::max(), |cursor| cursor.0))
            .bind(confined_to(caller))
            .bind(i64::from(limit) + 1)
            .fetch_all()
            .await?;
        let organizations = rows.into_iter().map(Organization::try_from).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::from_rows(organizations, limit, |organization| organization.id.0))
    }
}
