//! Deleting a project: mark it, have its app taken down, remove it.
//!
//! Every step can be repeated. A deletion that a crash or a deploy domain out of reach has interrupted leaves the mark
//! and is finished by the next try, the caller's or the reconciler's, which looks at the start and every minute.

use std::time::Duration;

use callboard_messages::{
    Caller, OrganizationId, ProjectId,
    deploy::CleanupEnvironment,
    project::{DeleteProject, ProjectDeleted, ProjectError, ProjectFact},
};
use callboard_supervisors::{
    Bus, ChildContext, ChildSpec, Exit, Handle, Outcome,
    db::{Database, Databases, Error, Transaction},
    events::emit,
};
use uuid::Uuid;

use crate::projects::{Projects, tenant};

const EVERY: Duration = Duration::from_secs(60);
const AT_ONCE: i64 = 100;

impl Handle<DeleteProject> for Projects {
    async fn handle(&self, caller: &Caller, message: DeleteProject) -> Outcome<DeleteProject> {
        let organization_id = tenant(caller)?;
        let marked = self
            .database
            .query(
                "UPDATE projects SET deleting_at = COALESCE(deleting_at, $4)
                 WHERE id = $1 AND organization_id = $2 AND version = COALESCE($3, version) AND NOT creating",
            )
            .bind(message.project_id.0)
            .bind(organization_id.0)
            .bind(message.if_match)
            .bind(self.clock.now())
            .execute()
            .await?;
        if marked == 0 {
            return Err(self.why_unchanged(organization_id, message.project_id).await?.into());
        }
        finish(&self.database, &self.bus, &caller.as_system(), message.project_id).await
    }
}

/// What remains once the project is marked.
async fn finish(database: &Database, bus: &Bus, caller: &Caller, project_id: ProjectId) -> Outcome<DeleteProject> {
    if let Err(error) = bus.ask(caller, CleanupEnvironment { project_id }).await {
        tracing::warn!(%project_id, %error, "the app of a project that is being deleted could not be taken down");
        return Err(ProjectError::CleanupFailed(error.public_message().into_owned()).into());
    }
    let remove = async |transaction: &mut Transaction| -> Result<(), Error> {
        let gone: Option<(Uuid, String, i64)> = transaction
            .query(
                "DELETE FROM projects WHERE id = $1 AND deleting_at IS NOT NULL
                 RETURNING organization_id, name, version",
            )
            .bind(project_id.0)
            .fetch_optional()
            .await?;
        // Of two that finish it, one tells.
        if let Some((organization_id, name, version)) = gone {
            let organization_id = OrganizationId(organization_id);
            let deleted = ProjectDeleted(ProjectFact { project_id, organization_id, name, version });
            emit(transaction, caller, &deleted).await?;
        }
        Ok(())
    };
    Ok(database.transact(remove).await?)
}

/// Finishes the deletions that were interrupted.
pub(crate) fn reconciler(databases: Databases) -> ChildSpec {
    ChildSpec::with_database("deletions", databases, crate::DOMAIN, reconcile)
}

async fn reconcile(context: ChildContext, database: Database) -> Exit {
    loop {
        pass(&database, &context.bus).await;
        if !context.sleep(EVERY).await {
            return Exit::Shutdown;
        }
    }
}

async fn pass(database: &Database, bus: &Bus) {
    let marked: Result<Vec<(Uuid, Uuid)>, _> = database
        .query("SELECT id, organization_id FROM projects WHERE deleting_at IS NOT NULL ORDER BY deleting_at LIMIT $1")
        .bind(AT_ONCE)
        .fetch_all()
        .await;
    let marked = match marked {
        Ok(marked) => marked,
        Err(error) => return tracing::warn!(%error, "the interrupted deletions could not be read"),
    };
    for (id, organization_id) in marked {
        let caller = Caller { organization_id: Some(OrganizationId(organization_id)), ..Caller::system() };
        match finish(database, bus, &caller, ProjectId(id)).await {
            Ok(()) => tracing::info!(project_id = %id, "an interrupted deletion is finished"),
            Err(error) => tracing::warn!(project_id = %id, %error, "an interrupted deletion waits for the next pass"),
        }
    }
}
