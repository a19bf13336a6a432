//! Permissions of people in organizations, which every operation is checked against.

use callboard_messages::{
    Caller, OrganizationId,
    organization::{GetPermissions, OrganizationError, Permissions, Role},
};
use callboard_supervisors::{Handle, Outcome};

use crate::Organizations;

/// A membership.
#[derive(sqlx::FromRow)]
struct Member {
    organization_id: OrganizationId,
    #[sqlx(try_from = "String")]
    role: Role,
}

impl Handle<GetPermissions> for Organizations {
    async fn handle(&self, _: &Caller, message: GetPermissions) -> Outcome<GetPermissions> {
        let query = match message.organization_id {
            Some(organization_id) => self
                .database
                .query(
                    "SELECT organization_id, role FROM members JOIN organizations ON id = organization_id
                     WHERE user_id = $1 AND organization_id = $2 AND deleting_at IS NULL",
                )
                .bind(message.user_id)
                .bind(organization_id),
            None => self
                .database
                .query("SELECT organization_id, role FROM members WHERE user_id = $1 AND is_default")
                .bind(message.user_id),
        };
        let member: Option<Member> = query.fetch_optional().await?;
        let Member { organization_id, role } = member.ok_or(OrganizationError::NotFound)?;
        Ok(Permissions { organization_id, role, scopes: role.scopes() })
    }
}
