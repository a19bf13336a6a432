//! The permission check behind every operation: what a person may do, and where.

use callboard_messages::{
    Caller, OrganizationId,
    organization::{GetPermissions, OrganizationError, Permissions},
};
use callboard_supervisors::{Handle, Outcome};
use uuid::Uuid;

use crate::{Organizations, organizations::read_role};

impl Handle<GetPermissions> for Organizations {
    async fn handle(&self, _: &Caller, message: GetPermissions) -> Outcome<GetPermissions> {
        let query = match message.organization_id {
            Some(organization_id) => self
                .database
                .query("SELECT organization_id, role FROM members WHERE user_id = $1 AND organization_id = $2")
                .bind(message.user_id.0)
                .bind(organization_id.0),
            None => self
                .database
                .query("SELECT organization_id, role FROM members WHERE user_id = $1 AND is_default")
                .bind(message.user_id.0),
        };
        let row: Option<(Uuid, String)> = query.fetch_optional().await?;
        let (organization_id, role) = row.ok_or(OrganizationError::NotFound)?;
        let role = read_role(&role)?;
        Ok(Permissions { organization_id: OrganizationId(organization_id), role, scopes: role.scopes() })
    }
}
