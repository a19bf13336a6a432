//! Deleting a project: mark it, have its app taken down, remove it.
//!
//! The mark can't be taken back, and every step after it can be repeated: what a crash, an app that ends slowly or a deploy
//! domain out of reach keeps from its end is accepted, and finished by the reconciler, which looks at the start, when it is
//! told of such a deletion, and every minute.

use std::{sync::Arc, time::Duration};

use callboard_messages::{
    CallError, Caller, DomainError, OrganizationId, ProjectId,
    deploy::CleanupEnvironment,
    organization::OrganizationDeleted,
    project::{DeleteProject, Project, ProjectDeleted, ProjectFact},
};
use callboard_supervisors::{
    Backoff, Bus, ChildContext, ChildSpec, Exit, Handle, Outage, Outcome, TaskSet,
    db::{Database, Databases, Error, Transaction},
    events::{Inapplicable, Occurred, React, Stored, emit},
};
use tokio::sync::Notify;

use crate::projects::{Projects, columns};

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
        let mut platform = caller.as_system();
        platform.deadline = platform.deadline.map(|deadline| deadline.checked_sub(TO_ANSWER).unwrap_or(deadline));
        let platform = platform.with_deadline(self.clock.instant() + ANSWERED_WITHIN);
        match finish(&self.database, &self.bus, &platform, marked.id).await {
            Ok(()) => Ok(None),
            Err(unfinished) => {
                self.deletions.later(marked.id, &unfinished);
                self.deletions.wake.notify_one();
                Ok(Some(marked))
            }
        }
    }
}

/// The deletions under way of this node.
pub(crate) struct Deletions {
    /// One can't be finished while its caller waits.
    wake: Notify,
    /// What they stand on is away: said once, however many of them wait for it.
    outage: Outage,
}

impl Default for Deletions {
    fn default() -> Self {
        Self { wake: Notify::new(), outage: Outage::new("the deletion of projects") }
    }
}

/// Why a deletion is not finished.
struct Unfinished {
    reason: String,
    /// Whether that is for something else, and the same for all of them.
    is_outage: bool,
}

impl Unfinished {
    fn of_app<E: DomainError>(error: &CallError<E>) -> Self {
        let is_outage = matches!(error, CallError::Failed(failure) if failure.is_outage());
        Self { reason: format!("its app can't be taken down: {error}"), is_outage }
    }
}

impl From<Error> for Unfinished {
    fn from(error: Error) -> Self {
        Self { reason: error.to_string(), is_outage: error.outside_outage().is_none() }
    }
}

impl Deletions {
    /// Says why a deletion is finished later.
    fn later(&self, project_id: ProjectId, unfinished: &Unfinished) {
        let Unfinished { reason, is_outage } = unfinished;
        if *is_outage {
            self.outage.failed(reason);
        } else {
            tracing::warn!(%project_id, %reason, "a project is deleted later");
        }
    }
}

/// What remains once the project is marked.
async fn finish(database: &Database, bus: &Bus, caller: &Caller, project_id: ProjectId) -> Result<(), Unfinished> {
    if let Err(error) = bus.ask(caller, CleanupEnvironment { project_id }).await {
        return Err(Unfinished::of_app(&error));
    }
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

impl Stored for Projects {
    fn database(&self) -> &Database {
        &self.database
    }
}

impl React<OrganizationDeleted> for Projects {
    /// Marks what was created while the organization was being deleted, also if that is not finished: the last step of a
    /// creation finds its project gone.
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
            transaction.on_commit(move || deletions.wake.notify_one());
        }
        Ok(())
    }
}

/// Finishes the deletions that are under way and that nobody waits for.
pub(crate) fn reconciler(databases: Databases, deletions: Arc<Deletions>) -> ChildSpec {
    ChildSpec::with_database("deletions", databases, crate::DOMAIN, move |context, database| {
        reconcile(context, database, deletions.clone())
    })
}

async fn reconcile(context: ChildContext, database: Database, deletions: Arc<Deletions>) -> Exit {
    let mut tried = 0;
    loop {
        let left = tokio::select! {
            () = context.stopping() => return Exit::Shutdown,
            left = pass(&database, &context.bus, &deletions) => left,
        };
        // As long as one of them waits for what is away, it is away.
        if left != Left::ForOutage {
            deletions.outage.works();
        }
        let pause = if left == Left::Nothing { EVERY } else { AGAIN.delay(tried) };
        tried += 1;
        tokio::select! {
            () = context.stopping() => return Exit::Shutdown,
            () = deletions.wake.notified() => tried = 0,
            () = context.clock.sleep(pause) => {}
        }
    }
}

/// What a pass has left, the gravest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    Nothing,
    Some,
    ForOutage,
}

impl From<&Unfinished> for Left {
    fn from(unfinished: &Unfinished) -> Self {
        if unfinished.is_outage { Self::ForOutage } else { Self::Some }
    }
}

async fn pass(database: &Database, bus: &Bus, deletions: &Arc<Deletions>) -> Left {
    let marked: Result<Vec<(ProjectId, OrganizationId)>, _> = database
        .query("SELECT id, organization_id FROM projects WHERE deleting_at IS NOT NULL ORDER BY deleting_at LIMIT $1")
        .bind(PAGE)
        .fetch_all()
        .await;
    let marked = match marked {
        Ok(marked) => marked,
        Err(error) => {
            let unfinished = Unfinished::from(error);
            if unfinished.is_outage {
                deletions.outage.failed(&unfinished.reason);
            } else {
                tracing::warn!(reason = unfinished.reason, "the deletions under way could not be read");
            }
            return Left::from(&unfinished);
        }
    };
    let (mut finishing, mut left) = (TaskSet::default(), Left::Nothing);
    for (project_id, organization_id) in marked {
        if finishing.len() == AT_ONCE {
            left = left.max(finishing.next().await.unwrap_or(Left::Some));
        }
        let (database, bus, deletions) = (database.clone(), bus.clone(), deletions.clone());
        let caller = Caller { organization_id: Some(organization_id), ..Caller::system() };
        finishing.spawn(async move {
            match finish(&database, &bus, &caller, project_id).await {
                Ok(()) => {
                    tracing::info!(%project_id, "a deletion under way is finished");
                    Left::Nothing
                }
                Err(unfinished) => {
                    deletions.later(project_id, &unfinished);
                    Left::from(&unfinished)
                }
            }
        });
    }
    while let Some(finished) = finishing.next().await {
        left = left.max(finished);
    }
    left
}
