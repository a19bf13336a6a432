//! Permissions of a person in an organization: asked of `organization`, and cached for all nodes.
//!
//! Each sign-in, refresh, API key and first use of a token needs them, often over the bridge, and they hardly ever
//! change. A node that is alone asks each time: its `organization` is on the same thread.

use callboard_messages::{
    CallError, Caller, OrganizationId, UserId,
    auth::{AuthError, CredentialRevoked},
    organization::{GetPermissions, OrganizationClosed, OrganizationCreated, OrganizationDeleted, Permissions},
};
use callboard_supervisors::{
    db::{Database, Transaction},
    events::{Inapplicable, Occurred, React, Stored},
};

use crate::{revocation::raise, state::Auth};

/// The key of a person in an organization, or in its default one.
fn key(user_id: UserId, organization_id: Option<OrganizationId>) -> String {
    let organization = organization_id.map_or_else(|| "default".to_owned(), |id| id.to_string());
    format!("{user_id}:{organization}")
}

impl Auth {
    /// The permissions of a person in `organization_id`, or in its default organization.
    pub(crate) async fn permissions(
        &self,
        caller: &Caller,
        user_id: UserId,
        organization_id: Option<OrganizationId>,
    ) -> Result<Permissions, CallError<AuthError>> {
        let ask = async || self.ask_organization(caller, GetPermissions { user_id, organization_id }).await;
        if !self.shared.is_shared {
            return ask().await;
        }
        let known = self.shared.permissions.get(&key(user_id, organization_id), async || ask().await.map(Some)).await?;
        known.ok_or_else(|| AuthError::NotFound("organization".to_owned()).into())
    }
}

impl Stored for Auth {
    fn database(&self) -> &Database {
        &self.database
    }
}

impl React<OrganizationCreated> for Auth {
    async fn react(
        &self,
        _: &mut Transaction,
        event: &Occurred<OrganizationCreated>,
    ) -> Result<(), CallError<Inapplicable>> {
        let OrganizationCreated { owner, organization_id, .. } = &event.event;
        for organization_id in [Some(*organization_id), None] {
            self.shared.permissions.forget(&key(*owner, organization_id)).await;
        }
        Ok(())
    }
}

impl React<OrganizationClosed> for Auth {
    /// Invalidates, on all nodes, the cached permissions of the members of a closed organization.
    async fn react(
        &self,
        transaction: &mut Transaction,
        event: &Occurred<OrganizationClosed>,
    ) -> Result<(), CallError<Inapplicable>> {
        let OrganizationClosed { organization_id, members } = &event.event;
        for member in members {
            self.shared.permissions.forget(&key(*member, Some(*organization_id))).await;
        }
        let count = raise(transaction, self.now()).await?;
        let (revocations, members) = (self.revocations.clone(), members.clone());
        transaction.on_commit(move || {
            for member in members {
                revocations.revoke(&CredentialRevoked::User(member), count);
            }
        });
        Ok(())
    }
}

impl React<OrganizationDeleted> for Auth {
    async fn react(
        &self,
        transaction: &mut Transaction,
        event: &Occurred<OrganizationDeleted>,
    ) -> Result<(), CallError<Inapplicable>> {
        let sql = "DELETE FROM api_keys WHERE organization_id = $1";
        transaction.query(sql).bind(event.event.organization_id).execute().await?;
        Ok(())
    }
}
