//! The steps of a deployment. Each is a conditional update together with its event, so that an event is published exactly
//! when its step happened.
//!
//! Each write names its author ([`Author`]): a builder that lost its build, or an owner that lost its app, to another node
//! changes nothing.

use callboard_messages::{
    Caller, DeploymentId, OrganizationId, ProjectId, ReleaseId,
    deploy::{
        DeploymentBuilding, DeploymentCompleted, DeploymentFailed, DeploymentKind, DeploymentRolledBack,
        DeploymentStarted, DeploymentStatus,
    },
};
use callboard_supervisors::{
    db::{Database, Error, Transaction},
    events::emit,
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    apps::{self, Serving},
    archives,
    deployments::{self, DeploymentRow},
    owners::{self, Owner},
    releases,
};
use crate::apps::formation::DesiredFormation;

/// The longest sentence that is kept of a failure, in characters.
const ERROR_MAXIMUM: usize = 4_000;

/// A node that builds a deployment, and which attempt at it this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Builder {
    pub(crate) node: Uuid,
    pub(crate) attempt: i64,
}

/// In whose name a deployment is ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Author {
    /// Its tenant, or the platform: builder and owner find it ended.
    Anyone,
    /// The builder that has it, as long as it is being built: one that does not know whether what it made was taken must
    /// not end what rolls.
    Builder(Builder),
    /// The owner of its app.
    Owner(Owner),
}

/// Takes the oldest queued deployment for a builder.
pub(crate) async fn claim(
    database: &Database,
    caller: &Caller,
    node: Uuid,
) -> Result<Option<(DeploymentId, Builder)>, Error> {
    let mut transaction = database.begin().await?;
    let row: Option<(DeploymentId, i64)> = transaction
        .query(
            "UPDATE deployments SET status = 'building', attempts = attempts + 1, builder_node = $1
             WHERE status = 'queued'
               AND id = (SELECT id FROM deployments WHERE status = 'queued' ORDER BY id LIMIT 1)
             RETURNING id, attempts",
        )
        .bind(node)
        .fetch_optional()
        .await?;
    let Some((id, attempt)) = row else { return Ok(None) };
    if let Some(row) = deployments::get_in(&mut transaction, id).await? {
        emit(&mut transaction, caller, &DeploymentBuilding(row.fact())).await?;
    }
    transaction.commit().await?;
    Ok(Some((id, Builder { node, attempt })))
}

/// Whether anything waits for a builder.
pub(crate) async fn is_queued(database: &Database) -> Result<bool, Error> {
    let row: Option<(DeploymentId,)> =
        database.query("SELECT id FROM deployments WHERE status = 'queued' LIMIT 1").fetch_optional().await?;
    Ok(row.is_some())
}

/// A build that has begun, or waits, before another one.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Ahead {
    pub(crate) name: String,
    pub(crate) organization_id: OrganizationId,
    pub(crate) builder_node: Option<Uuid>,
    /// Whether it has begun.
    pub(crate) building: bool,
}

/// The builds that come before a deployment, those that have begun first; at most so many.
pub(crate) async fn ahead(database: &Database, id: DeploymentId, limit: i64) -> Result<Vec<Ahead>, Error> {
    database
        .query(
            "SELECT a.name, d.organization_id, d.builder_node, d.status = 'building' AS building
             FROM deployments AS d JOIN apps AS a ON a.project_id = d.project_id
             WHERE d.status = 'building' OR (d.status = 'queued' AND d.id < $1)
             ORDER BY d.status, d.id LIMIT $2",
        )
        .bind(id)
        .bind(limit)
        .fetch_all()
        .await
}

/// A deployment that is being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Build {
    pub(crate) id: DeploymentId,
    pub(crate) project_id: ProjectId,
    /// Absent when a program of an earlier version has it.
    #[sqlx(rename = "builder_node")]
    pub(crate) node: Option<Uuid>,
    #[sqlx(rename = "attempts")]
    pub(crate) attempt: i64,
    /// How often a node went down during it.
    pub(crate) crashes: i64,
}

/// All builds, of every node.
pub(crate) async fn builds(database: &Database) -> Result<Vec<Build>, Error> {
    database
        .query(
            "SELECT id, project_id, builder_node, attempts, crashes FROM deployments
             WHERE status = 'building' ORDER BY id",
        )
        .fetch_all()
        .await
}

/// Puts a deployment whose build was interrupted back into the queue, if it still is this attempt.
pub(crate) async fn requeue(database: &Database, id: DeploymentId, attempt: i64) -> Result<bool, Error> {
    put_back(database, id, attempt, 0).await
}

/// The same when its node went down.
pub(crate) async fn requeue_crashed(database: &Database, id: DeploymentId, attempt: i64) -> Result<bool, Error> {
    put_back(database, id, attempt, 1).await
}

async fn put_back(database: &Database, id: DeploymentId, attempt: i64, crashes: i64) -> Result<bool, Error> {
    let changed = database
        .query(
            "UPDATE deployments SET status = 'queued', crashes = crashes + $3
             WHERE id = $1 AND status = 'building' AND attempts = $2",
        )
        .bind(id)
        .bind(attempt)
        .bind(crashes)
        .execute()
        .await?;
    Ok(changed > 0)
}

/// Nothing is built on the node any more: puts back whatever it had.
pub(crate) async fn requeue_all(database: &Database, node: Uuid) -> Result<(), Error> {
    database
        .query("UPDATE deployments SET status = 'queued' WHERE status = 'building' AND builder_node = $1")
        .bind(node)
        .execute()
        .await?;
    Ok(())
}

/// Remembers the commit that a git source has led to.
pub(crate) async fn set_commit(
    database: &Database,
    id: DeploymentId,
    builder: Builder,
    commit: &str,
) -> Result<(), Error> {
    database
        .query(
            "UPDATE deployments SET commit_hash = $4
             WHERE id = $1 AND status = 'building' AND builder_node = $2 AND attempts = $3",
        )
        .bind(id)
        .bind(builder.node)
        .bind(builder.attempt)
        .bind(commit.to_owned())
        .execute()
        .await?;
    Ok(())
}

/// The outcome of recording a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuildOutcome {
    /// It rolls, with the release of this number.
    Rolls(i64),
    /// The archive that it was to use was removed meanwhile: nothing has changed.
    ArchiveGone,
    /// It was cancelled meanwhile, or given to another builder: nothing has changed.
    Lost,
}

/// From building to rolling, with the release that was built, whose archive is stored under its generation.
pub(crate) async fn built(
    database: &Database,
    caller: &Caller,
    builder: Builder,
    release: &releases::ReleaseRow,
) -> Result<BuildOutcome, Error> {
    let mut transaction = database.begin().await?;
    let changed = transaction
        .query(
            "UPDATE deployments SET status = 'rolling', release_id = $2, environment_version = $3
             WHERE id = $1 AND status = 'building' AND builder_node = $4 AND attempts = $5",
        )
        .bind(release.deployment_id)
        .bind(release.id)
        .bind(release.environment_version)
        .bind(builder.node)
        .bind(builder.attempt)
        .execute()
        .await?;
    if changed == 0 {
        return Ok(BuildOutcome::Lost);
    }
    if archives::hold(&mut transaction, &release.digest).await? != release.generation {
        return Ok(BuildOutcome::ArchiveGone);
    }
    let version = releases::insert(&mut transaction, release).await?;
    if let Some(row) = deployments::get_in(&mut transaction, release.deployment_id).await? {
        emit(&mut transaction, caller, &DeploymentStarted(row.fact())).await?;
    }
    transaction.commit().await?;
    Ok(BuildOutcome::Rolls(version))
}

/// From building to rolling, with a release that was built before from the same in the same way.
pub(crate) async fn reused(
    database: &Database,
    caller: &Caller,
    builder: Builder,
    (project_id, id): (ProjectId, DeploymentId),
    (release_id, environment_version): (ReleaseId, i64),
) -> Result<BuildOutcome, Error> {
    let mut transaction = database.begin().await?;
    // First, as all do who hold both; retention does, and then finds that the release is in use.
    apps::hold(&mut transaction, project_id).await?;
    let changed = transaction
        .query(
            "UPDATE deployments SET status = 'rolling', release_id = $2, environment_version = $3
             WHERE id = $1 AND status = 'building' AND builder_node = $4 AND attempts = $5",
        )
        .bind(id)
        .bind(release_id)
        .bind(environment_version)
        .bind(builder.node)
        .bind(builder.attempt)
        .execute()
        .await?;
    if changed == 0 {
        return Ok(BuildOutcome::Lost);
    }
    let Some(row) = deployments::get_in(&mut transaction, id).await? else { return Ok(BuildOutcome::Lost) };
    if !releases::is_kept(&mut transaction, release_id).await? {
        return Ok(BuildOutcome::ArchiveGone);
    }
    let version = row.release_version.unwrap_or_default();
    emit(&mut transaction, caller, &DeploymentStarted(row.fact())).await?;
    transaction.commit().await?;
    Ok(BuildOutcome::Rolls(version))
}

/// From rolling to completed: from now on this is what serves. False when it was cancelled meanwhile, or another node
/// has taken the app over.
pub(crate) async fn complete(
    database: &Database,
    caller: &Caller,
    (project_id, owner): (ProjectId, Owner),
    serving: Serving,
    desired: impl FnOnce(&DesiredFormation) -> DesiredFormation,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let mut transaction = database.begin().await?;
    if !owners::fence(&mut transaction, project_id, owner).await? {
        return Ok(false);
    }
    let changed = transaction
        .query("UPDATE deployments SET status = 'completed', finished_at = $2 WHERE id = $1 AND status = 'rolling'")
        .bind(serving.deployment_id)
        .bind(now)
        .execute()
        .await?;
    if changed == 0 {
        return Ok(false);
    }
    if !apps::serve(&mut transaction, project_id, serving, desired, now).await? {
        return Ok(false);
    }
    if let Some(row) = deployments::get_in(&mut transaction, serving.deployment_id).await? {
        let kind = row.kind;
        let fact = row.fact();
        emit(&mut transaction, caller, &DeploymentCompleted(fact.clone())).await?;
        if kind == DeploymentKind::Rollback {
            emit(&mut transaction, caller, &DeploymentRolledBack(fact)).await?;
        }
    }
    transaction.commit().await?;
    Ok(true)
}

/// Ends a deployment that has not ended. False when it had, or the author has lost it.
pub(crate) async fn end(
    database: &Database,
    caller: &Caller,
    author: Author,
    id: DeploymentId,
    status: DeploymentStatus,
    error: Option<&str>,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let mut transaction = database.begin().await?;
    let Some(row) = deployments::get_in(&mut transaction, id).await? else { return Ok(false) };
    if let Author::Owner(owner) = author
        && !owners::fence(&mut transaction, row.project_id, owner).await?
    {
        return Ok(false);
    }
    let builder = match author {
        Author::Builder(builder) => Some(builder),
        Author::Anyone | Author::Owner(_) => None,
    };
    if !set_end(&mut transaction, id, builder, status, error, now).await? {
        return Ok(false);
    }
    let reason = error.map_or_else(|| "it was cancelled".to_owned(), str::to_owned);
    let row = DeploymentRow { error: Some(reason), ..row };
    emit(&mut transaction, caller, &DeploymentFailed(row.fact())).await?;
    transaction.commit().await?;
    Ok(true)
}

async fn set_end(
    transaction: &mut Transaction,
    id: DeploymentId,
    builder: Option<Builder>,
    status: DeploymentStatus,
    error: Option<&str>,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let changed = transaction
        .query(
            "UPDATE deployments SET status = $2, error = $3, finished_at = $4
             WHERE id = $1
               AND ((status = 'building' AND attempts = $5)
                    OR ($5 IS NULL AND status IN ('queued', 'building', 'rolling')))",
        )
        .bind(id)
        .bind(status.as_str())
        .bind(error.map(|error| error.chars().take(ERROR_MAXIMUM).collect::<String>()))
        .bind(now)
        .bind(builder.map(|builder| builder.attempt))
        .execute()
        .await?;
    Ok(changed > 0)
}
