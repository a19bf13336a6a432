//! Deletion of a project: mark it, have its app removed, remove it.
//!
//! What the mark can't see through while its caller waits, the reconciler finishes: an app may end slowly, and deploy be
//! out of reach.

use callboard_messages::{
    CallError, Caller, OrganizationId, ProjectId,
    deploy::CleanupEnvironment,
    organization::OrganizationDeleted,
    project::{DeleteProject, Project, ProjectDeleted, ProjectFact},
};
use callboard_supervisors::{
    Bus, Handle, Outcome,
    db::{Database, Error, Transaction},
    events::{Inapplicable, Occurred, React, Stored, emit},
    reconcile::{Reconcile, Unfinished},
};

use crate::projects::{Projects, columns};

impl Handle<DeleteProject> for Projects {
    async fn handle(&self, caller: &Caller, message: DeleteProject) -> Outcome<DeleteProject> {
        let organization_id = caller.tenant()?;
        let marked: Option<Project> = self
            .database
            .query(concat!(
                "UPDATE projects SET deleting_at = COALESCE(deleting_at, $4)
                 WHERE id = $1 AND organization_id = $2 AND version = COALESCE($3, version) AND NOT creating
                 RETURNING ",
                columns!()
            ))
            .bind(message.project_id)
            .bind(organization_id)
            .bind(message.if_match)
            .bind(self.clock.now())
            .fetch_optional()
            .await?;
        let Some(marked) = marked else {
            return Err(self.why_unchanged(organization_id, message.project_id).await?.into());
        };
        let (database, bus, clock) = (&self.database, &self.bus, &self.clock);
        let is_gone = self.deletions.carry_on(database, bus, clock, caller.as_system(), marked.id).await;
        Ok((!is_gone).then_some(marked))
    }
}

/// The deletions under way.
pub(crate) enum Deletions {}

impl Reconcile for Deletions {
    const WHAT: &'static str = "the deletion of projects";
    type Id = ProjectId;

    async fn marked(database: &Database, limit: i64) -> Result<Vec<(ProjectId, OrganizationId)>, Error> {
        database
            .query(
                "SELECT id, organization_id FROM projects WHERE deleting_at IS NOT NULL ORDER BY deleting_at LIMIT $1",
            )
            .bind(limit)
            .fetch_all()
            .await
    }

    async fn finish(database: &Database, bus: &Bus, caller: &Caller, project_id: ProjectId) -> Result<(), Unfinished> {
        bus.ask(caller, CleanupEnvironment { project_id })
            .await
            .map_err(|error| Unfinished::of("its app can't be taken down", &error))?;
        let remove = async |transaction: &mut Transaction| -> Result<(), Error> {
            let gone: Option<(OrganizationId, String, i64)> = transaction
                .query(
                    "DELETE FROM projects WHERE id = $1 AND deleting_at IS NOT NULL
                     RETURNING organization_id, name, version",
                )
                .bind(project_id)
                .fetch_optional()
                .await?;
            // Of two that finish it, one tells.
            if let Some((organization_id, name, version)) = gone {
                let deleted = ProjectDeleted(ProjectFact { project_id, organization_id, name, version });
                emit(transaction, caller, &deleted).await?;
            }
            Ok(())
        };
        Ok(database.transact(remove).await?)
    }
}

impl Stored for Projects {
    fn database(&self) -> &Database {
        &self.database
    }
}

impl React<OrganizationDeleted> for Projects {
    /// Marks projects that were created while the organization was being deleted, also unfinished ones: the last step
    /// of their creation finds them gone.
    async fn react(
        &self,
        transaction: &mut Transaction,
        event: &Occurred<OrganizationDeleted>,
    ) -> Result<(), CallError<Inapplicable>> {
        let marked = transaction
            .query("UPDATE projects SET deleting_at = COALESCE(deleting_at, $2) WHERE organization_id = $1")
            .bind(event.event.organization_id)
            .bind(self.clock.now())
            .execute()
            .await?;
        if marked > 0 {
            let deletions = self.deletions.clone();
            transaction.on_commit(move || deletions.wake());
        }
        Ok(())
    }
}
