//! Deletion of an organization: close it, have its projects deleted, remove it.
//!
//! From the moment it is closed nobody acts for it any more, and it can't be opened again. What can't be deleted while its
//! caller waits, the reconciler finishes. What other domains keep for the organization goes when they hear
//! [`OrganizationDeleted`].

use callboard_messages::{
    CallError, Caller, Limit, OrganizationId, Page, UserId,
    organization::{
        DeleteOrganization, Organization, OrganizationClosed, OrganizationDeleted, OrganizationError, Role,
    },
    project::{DeleteProject, ListProjects, Project, ProjectError},
};
use callboard_supervisors::{
    Bus, Handle, Outcome, TaskSet,
    db::{Database, Error, Transaction},
    events::emit,
    reconcile::{Reconcile, Unfinished},
};

use crate::{
    Organizations,
    organizations::{confined_to, memberships},
};

/// Projects deleted at a time, so that a slow one delays no other.
const AT_ONCE: usize = 8;

impl Handle<DeleteOrganization> for Organizations {
    async fn handle(&self, caller: &Caller, message: DeleteOrganization) -> Outcome<DeleteOrganization> {
        let (user_id, organization_id) = (caller.person()?, message.organization_id);
        if confined_to(caller)?.is_some_and(|only| only != organization_id) {
            return Err(OrganizationError::NotFound.into());
        }
        let now = self.clock.now();
        let close = async |transaction: &mut Transaction| -> Result<(), CallError<OrganizationError>> {
            // Of two callers that close it, one emits the event. A person always has an organization to act for:
            // neither a personal nor a default organization can be closed.
            let closed = transaction
                .query(
                    "UPDATE organizations SET deleting_at = $3
                     WHERE id = $1 AND deleting_at IS NULL AND personal_of IS NULL
                       AND EXISTS (SELECT 1 FROM members
                                   WHERE organization_id = $1 AND user_id = $2 AND role = 'owner')
                       AND NOT EXISTS (SELECT 1 FROM members WHERE organization_id = $1 AND is_default)",
                )
                .bind(organization_id)
                .bind(user_id)
                .bind(now)
                .execute()
                .await?;
            if closed == 1 {
                let members = members_of(transaction, organization_id).await?;
                emit(transaction, caller, &OrganizationClosed { organization_id, members }).await?;
            }
            Ok(())
        };
        self.database.transact(close).await?;
        let found: Option<Organization> = self
            .database
            .query(concat!(memberships!(), " WHERE m.organization_id = $1 AND m.user_id = $2"))
            .bind(organization_id)
            .bind(user_id)
            .fetch_optional()
            .await?;
        let closed = match found {
            None => return Err(OrganizationError::NotFound.into()),
            Some(organization) if organization.role != Role::Owner => return Err(OrganizationError::NotOwner.into()),
            Some(organization) if organization.deleting_at.is_none() => return Err(OrganizationError::Needed.into()),
            Some(organization) => organization,
        };
        let platform = Caller { organization_id: Some(organization_id), ..caller.as_system() };
        let (database, bus, clock) = (&self.database, &self.bus, &self.clock);
        let is_gone = self.deletions.carry_on(database, bus, clock, platform, organization_id).await;
        Ok((!is_gone).then_some(closed))
    }
}

async fn members_of(transaction: &mut Transaction, organization_id: OrganizationId) -> Result<Vec<UserId>, Error> {
    let members: Vec<(UserId,)> = transaction
        .query("SELECT user_id FROM members WHERE organization_id = $1 ORDER BY user_id")
        .bind(organization_id)
        .fetch_all()
        .await?;
    Ok(members.into_iter().map(|(user_id,)| user_id).collect())
}

/// The deletions under way.
pub(crate) enum Deletions {}

impl Reconcile for Deletions {
    const WHAT: &'static str = "the deletion of organizations";
    type Id = OrganizationId;

    async fn marked(database: &Database, limit: i64) -> Result<Vec<(OrganizationId, OrganizationId)>, Error> {
        database
            .query("SELECT id, id FROM organizations WHERE deleting_at IS NOT NULL ORDER BY deleting_at LIMIT $1")
            .bind(limit)
            .fetch_all()
            .await
    }

    /// The steps after the close. The caller acts for the organization.
    async fn finish(
        database: &Database,
        bus: &Bus,
        caller: &Caller,
        organization_id: OrganizationId,
    ) -> Result<(), Unfinished> {
        loop {
            let list = ListProjects { name: None, limit: Limit::of(100), cursor: None };
            let page: Page<Project> = bus.ask(caller, list).await.map_err(|error| undeleted(&error))?;
            if page.items.is_empty() {
                break;
            }
            delete(bus, caller, page.items).await?;
        }
        let remove = async |transaction: &mut Transaction| -> Result<(), Error> {
            let members = members_of(transaction, organization_id).await?;
            let gone: Option<(String,)> = transaction
                .query("DELETE FROM organizations WHERE id = $1 AND deleting_at IS NOT NULL RETURNING name")
                .bind(organization_id)
                .fetch_optional()
                .await?;
            // Of two that finish it, one tells.
            if let Some((name,)) = gone {
                emit(transaction, caller, &OrganizationDeleted { organization_id, name, members }).await?;
            }
            Ok(())
        };
        Ok(database.transact(remove).await?)
    }
}

/// Has these projects deleted. An error when one of them still exists.
async fn delete(bus: &Bus, caller: &Caller, projects: Vec<Project>) -> Result<(), Unfinished> {
    let (mut deleting, mut worst) = (TaskSet::default(), None::<Unfinished>);
    for project in projects {
        if deleting.len() == AT_ONCE {
            worst = worst.max(deleting.next().await.flatten());
        }
        let (bus, caller) = (bus.clone(), caller.clone());
        deleting.spawn(async move {
            match bus.ask(&caller, DeleteProject { project_id: project.id, if_match: None }).await {
                Ok(None) | Err(CallError::Refused(ProjectError::NotFound)) => None,
                Ok(Some(_)) => Some(Unfinished::UnderWay),
                Err(error) => Some(undeleted(&error)),
            }
        });
    }
    while let Some(unfinished) = deleting.next().await {
        worst = worst.max(unfinished);
    }
    worst.map_or(Ok(()), Err)
}

fn undeleted(error: &CallError<ProjectError>) -> Unfinished {
    Unfinished::of("its projects can't be deleted", error)
}
