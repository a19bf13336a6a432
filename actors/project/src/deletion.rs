//! Deletion of a project: mark it, have its app removed, remove it.
//!
//! The mark can't be taken back, and every later step is idempotent: a deletion that is interrupted by a crash, by an
//! app that ends slowly or by an unreachable deploy domain is accepted, and finished by the reconciler, which runs at
//! the start, when it is nudged, and every minute.

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

/// How long a caller waits for the end: longer than an app may take to end.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
/// Part of the caller's deadline that is kept for the answer.
const TO_ANSWER: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_secs(60);
/// Pauses while a deletion can't be finished.
const AGAIN: Backoff = Backoff { first: Duration::from_secs(1), at_most: EVERY, factor: 2.0, jitter: 0.2 };
/// Deletions in one pass.
const PAGE: i64 = 100;
/// Apps awaited at a time, so that a slow one delays no other.
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

/// Deletions in progress on this node.
pub(crate) struct Deletions {
    /// Notified when one is not finished while its caller waits.
    wake: Notify,
    /// The outage that keeps them from their end, logged once.
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
    /// Whether an outage is the reason, which affects all of them.
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
    /// Logs that a deletion is finished later, and why.
    fn later(&self, project_id: ProjectId, unfinished: &Unfinished) {
        let Unfinished { reason, is_outage } = unfinished;
        if *is_outage {
            self.outage.failed(reason);
        } else {
            tracing::warn!(%project_id, %reason, "deleting a project failed; retrying");
        }
    }
}

/// The steps after the mark.
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
        // Of two that finish it, one emits the event.
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
            transaction.on_commit(move || deletions.wake.notify_one());
        }
        Ok(())
    }
}

/// The child that finishes deletions in progress without a waiting caller.
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
        // The outage lasts as long as one of them waits for it.
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

/// What a pass has left, in order of severity.
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
                tracing::warn!(reason = unfinished.reason, "reading the deletions in progress failed; retrying");
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
                    tracing::info!(%project_id, "finished a deletion in progress");
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
