//! Deleting a project: mark it, have its app taken down, remove it.
//!
//! The mark can't be taken back, and every step after it can be repeated: what a crash, an app that ends slowly or a deploy
//! domain out of reach keeps from its end is accepted, and finished by the reconciler, which looks at the start, when it is
//! told of such a deletion, and every minute.

use std::{sync::Arc, time::Duration};

use callboard_messages::{
    CallError, Caller, OrganizationId, ProjectId,
    deploy::CleanupEnvironment,
    project::{DeleteProject, Project, ProjectDeleted, ProjectError, ProjectFact},
};
use callboard_supervisors::{
    Backoff, Bus, ChildContext, ChildSpec, Exit, Handle, Outcome, TaskSet,
    db::{Database, Databases, Error, Transaction},
    events::emit,
};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::projects::{ProjectRow, Projects, tenant};

/// How long a caller waits for the end. An app that takes all the time it may to end has ended by then.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
/// What is left of a caller's own time for the answer.
const TO_ANSWER: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_secs(60);
/// The pauses while a deletion can't be finished.
const AGAIN: Backoff = Backoff { first: Duration::from_secs(1), at_most: EVERY, factor: 2.0, jitter: 0.2 };
/// How many are looked at in one pass.
const PAGE: i64 = 100;
/// How many apps are waited for at a time: one that ends slowly keeps no other project.
const AT_ONCE: usize = 8;

impl Handle<DeleteProject> for Projects {
    async fn handle(&self, caller: &Caller, message: DeleteProject) -> Outcome<DeleteProject> {
        let organization_id = tenant(caller)?;
        let marked: Option<ProjectRow> = self
            .database
            .query(
                "UPDATE projects SET deleting_at = COALESCE(deleting_at, $4)
                 WHERE id = $1 AND organization_id = $2 AND version = COALESCE($3, version) AND NOT creating
                 RETURNING id, organization_id, name, description, version, created_at, updated_at, deleting_at",
            )
            .bind(message.project_id.0)
            .bind(organization_id.0)
            .bind(message.if_match)
            .bind(self.clock.now())
            .fetch_optional()
            .await?;
        let Some(marked) = marked.map(Project::from) else {
            return Err(self.why_unchanged(organization_id, message.project_id).await?.into());
        };
        let mut platform = caller.as_system();
        platform.deadline = platform.deadline.map(|deadline| deadline.checked_sub(TO_ANSWER).unwrap_or(deadline));
        let platform = platform.with_deadline(self.clock.instant() + ANSWERED_WITHIN);
        match finish(&self.database, &self.bus, &platform, marked.id).await {
            Ok(()) => Ok(None),
            Err(error) => {
                tracing::warn!(project_id = %marked.id, %error, "a project is deleted later than its caller waits");
                self.unfinished.notify_one();
                Ok(Some(marked))
            }
        }
    }
}

/// What remains once the project is marked.
async fn finish(
    database: &Database,
    bus: &Bus,
    caller: &Caller,
    project_id: ProjectId,
) -> Result<(), CallError<ProjectError>> {
    if let Err(error) = bus.ask(caller, CleanupEnvironment { project_id }).await {
        return Err(ProjectError::CleanupFailed(error.to_string()).into());
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

/// Finishes the deletions that are under way and that nobody waits for.
pub(crate) fn reconciler(databases: Databases, unfinished: Arc<Notify>) -> ChildSpec {
    ChildSpec::with_database("deletions", databases, crate::DOMAIN, move |context, database| {
        reconcile(context, database, unfinished.clone())
    })
}

async fn reconcile(context: ChildContext, database: Database, unfinished: Arc<Notify>) -> Exit {
    let mut tried = 0;
    loop {
        let done = tokio::select! {
            () = context.stopping() => return Exit::Shutdown,
            done = pass(&database, &context.bus) => done,
        };
        let pause = if done { EVERY } else { AGAIN.delay(tried) };
        tried += 1;
        tokio::select! {
            () = context.stopping() => return Exit::Shutdown,
            () = unfinished.notified() => tried = 0,
            () = context.clock.sleep(pause) => {}
        }
    }
}

/// Whether nothing is left.
async fn pass(database: &Database, bus: &Bus) -> bool {
    let marked: Result<Vec<(Uuid, Uuid)>, _> = database
        .query("SELECT id, organization_id FROM projects WHERE deleting_at IS NOT NULL ORDER BY deleting_at LIMIT $1")
        .bind(PAGE)
        .fetch_all()
        .await;
    let marked = match marked {
        Ok(marked) => marked,
        Err(error) => {
            tracing::warn!(%error, "the deletions under way could not be read");
            return false;
        }
    };
    let (mut finishing, mut all) = (TaskSet::default(), true);
    for (id, organization_id) in marked {
        if finishing.len() == AT_ONCE {
            all &= finishing.next().await.unwrap_or(false);
        }
        let (database, bus) = (database.clone(), bus.clone());
        let caller = Caller { organization_id: Some(OrganizationId(organization_id)), ..Caller::system() };
        finishing.spawn(async move { finish_later(&database, &bus, &caller, ProjectId(id)).await });
    }
    while let Some(finished) = finishing.next().await {
        all &= finished;
    }
    all
}

async fn finish_later(database: &Database, bus: &Bus, caller: &Caller, project_id: ProjectId) -> bool {
    let finished = finish(database, bus, caller, project_id).await;
    match &finished {
        Ok(()) => tracing::info!(%project_id, "a deletion under way is finished"),
        Err(error) => tracing::warn!(%project_id, %error, "a deletion under way waits for the next pass"),
    }
    finished.is_ok()
}
