//! Deleting an organization: close it, have its projects deleted, remove it.
//!
//! From the moment it is closed nobody acts for it any more, and it can't be opened again. Every step after that can be
//! repeated: what a crash, an app that ends slowly or a project domain out of reach keeps from its end is accepted, and
//! finished by the reconciler, which looks at the start, when it is told of such a deletion, and every minute. What other
//! domains keep for the organization goes when they hear [`OrganizationDeleted`].

use std::{sync::Arc, time::Duration};

use callboard_messages::{
    CallError, Caller, DomainError, Limit, OrganizationId, Page, UserId,
    organization::{
        DeleteOrganization, Organization, OrganizationClosed, OrganizationDeleted, OrganizationError, Role,
    },
    project::{DeleteProject, ListProjects, Project, ProjectError},
};
use callboard_supervisors::{
    Backoff, Bus, ChildContext, ChildSpec, Exit, Handle, Outage, Outcome, TaskSet,
    db::{Database, Databases, Error, Transaction},
    events::emit,
};
use tokio::sync::Notify;

use crate::{
    Organizations,
    organizations::{confined_to, memberships},
};

/// How long a caller waits for the end.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
/// What is left of a caller's own time for the answer.
const TO_ANSWER: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_secs(60);
/// The pauses while a deletion can't be finished.
const AGAIN: Backoff = Backoff { first: Duration::from_secs(1), at_most: EVERY, factor: 2.0, jitter: 0.2 };
/// How many are looked at in one pass.
const PAGE: i64 = 100;
/// How many projects are deleted at a time: one whose app ends slowly keeps no other.
const AT_ONCE: usize = 8;

impl Handle<DeleteOrganization> for Organizations {
    async fn handle(&self, caller: &Caller, message: DeleteOrganization) -> Outcome<DeleteOrganization> {
        let (user_id, organization_id) = (caller.person()?, message.organization_id);
        if confined_to(caller)?.is_some_and(|only| only != organization_id) {
            return Err(OrganizationError::NotFound.into());
        }
        let now = self.clock.now();
        let close = async |transaction: &mut Transaction| -> Result<(), CallError<OrganizationError>> {
            // Of two that close it, one tells. A person always has an organization to act for: none is closed that is anyone's
            // own, or the one it acts for unless told otherwise.
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
        let mut platform = Caller { organization_id: Some(organization_id), ..caller.as_system() };
        platform.deadline = platform.deadline.map(|deadline| deadline.checked_sub(TO_ANSWER).unwrap_or(deadline));
        let platform = platform.with_deadline(self.clock.instant() + ANSWERED_WITHIN);
        match finish(&self.database, &self.bus, &platform, organization_id).await {
            Ok(()) => Ok(None),
            Err(unfinished) => {
                self.deletions.later(organization_id, &unfinished);
                self.deletions.wake.notify_one();
                Ok(Some(closed))
            }
        }
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

/// The deletions under way of this node.
pub(crate) struct Deletions {
    /// One can't be finished while its caller waits.
    wake: Notify,
    /// What they stand on is away: said once, however many of them wait for it.
    outage: Outage,
}

impl Default for Deletions {
    fn default() -> Self {
        Self { wake: Notify::new(), outage: Outage::new("the deletion of organizations") }
    }
}

impl Deletions {
    /// Says why a deletion is finished later.
    fn later(&self, organization_id: OrganizationId, unfinished: &Unfinished) {
        match unfinished {
            Unfinished::UnderWay => {}
            Unfinished::Outage(reason) => {
                self.outage.failed(reason);
            }
            Unfinished::Trouble(reason) => {
                tracing::warn!(%organization_id, %reason, "an organization is deleted later")
            }
        }
    }
}

/// Why a deletion is not finished, the gravest last.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unfinished {
    /// The project domain is at it.
    UnderWay,
    /// Something of this deletion alone.
    Trouble(String),
    /// What all of them stand on is away.
    Outage(String),
}

impl Unfinished {
    fn of_projects<E: DomainError>(error: &CallError<E>) -> Self {
        let reason = format!("its projects can't be deleted: {error}");
        match error {
            CallError::Failed(failure) if failure.is_outage() => Self::Outage(reason),
            _ => Self::Trouble(reason),
        }
    }
}

impl From<Error> for Unfinished {
    fn from(error: Error) -> Self {
        match error.outside_outage() {
            None => Self::Outage(error.to_string()),
            Some(_) => Self::Trouble(error.to_string()),
        }
    }
}

/// What remains once the organization is closed. The caller acts for it.
async fn finish(
    database: &Database,
    bus: &Bus,
    caller: &Caller,
    organization_id: OrganizationId,
) -> Result<(), Unfinished> {
    loop {
        let list = ListProjects { name: None, limit: Limit::of(100), cursor: None };
        let page: Page<Project> = bus.ask(caller, list).await.map_err(|error| Unfinished::of_projects(&error))?;
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

/// Has these projects deleted. An error when one of them is still there.
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
                Err(error) => Some(Unfinished::of_projects(&error)),
            }
        });
    }
    while let Some(unfinished) = deleting.next().await {
        worst = worst.max(unfinished);
    }
    worst.map_or(Ok(()), Err)
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
            left = pass(&database, &context, &deletions) => left,
        };
        // As long as one of them waits for what is away, it is away.
        if !matches!(left, Some(Unfinished::Outage(_))) {
            deletions.outage.works();
        }
        let pause = if left.is_none() { EVERY } else { AGAIN.delay(tried) };
        tried += 1;
        tokio::select! {
            () = context.stopping() => return Exit::Shutdown,
            () = deletions.wake.notified() => tried = 0,
            () = context.clock.sleep(pause) => {}
        }
    }
}

/// The gravest reason why one is left.
async fn pass(database: &Database, context: &ChildContext, deletions: &Deletions) -> Option<Unfinished> {
    let closed: Result<Vec<(OrganizationId,)>, _> = database
        .query("SELECT id FROM organizations WHERE deleting_at IS NOT NULL ORDER BY deleting_at LIMIT $1")
        .bind(PAGE)
        .fetch_all()
        .await;
    let closed = match closed {
        Ok(closed) => closed,
        Err(error) => {
            let unfinished = Unfinished::from(error);
            match &unfinished {
                Unfinished::Outage(reason) => {
                    deletions.outage.failed(reason);
                }
                other => tracing::warn!(reason = ?other, "the deletions under way could not be read"),
            }
            return Some(unfinished);
        }
    };
    let mut worst: Option<Unfinished> = None;
    for (organization_id,) in closed {
        let caller = Caller { organization_id: Some(organization_id), ..Caller::system() };
        let caller = caller.with_deadline(context.clock.instant() + ANSWERED_WITHIN);
        match finish(database, &context.bus, &caller, organization_id).await {
            Ok(()) => tracing::info!(%organization_id, "a deletion under way is finished"),
            Err(unfinished) => {
                deletions.later(organization_id, &unfinished);
                worst = worst.max(Some(unfinished));
            }
        }
    }
    worst
}
