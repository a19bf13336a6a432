//! `organization`.

use callboard_messages::organization::{CreateOrganization, DeleteOrganization, GetOrganization, ListOrganizations};

use crate::{ask::ask, table::Routes};

pub(super) fn routes() -> Routes {
    Routes::new(super::API)
        .get("/organizations", ask::<ListOrganizations>().paged())
        .post(
            "/organizations",
            ask::<CreateOrganization>().created(|organization| format!("/api/v1/organizations/{}", organization.id)),
        )
        .get("/organizations/{organization_id}", ask::<GetOrganization>())
        .delete(
            "/organizations/{organization_id}",
            ask::<DeleteOrganization>().accepted(|organization| format!("/api/v1/organizations/{}", organization.id)),
        )
}
