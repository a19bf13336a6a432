//! Deployments and the steps they take.

use std::collections::BTreeMap;

use callboard_messages::{
    DeploymentId, OrganizationId, ProjectId, ReleaseId,
    deploy::{Deployment, DeploymentKind, DeploymentSource, DeploymentStatus},
};
use callboard_supervisors::db::{Database, Error, Transaction};
use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::{
    apps::{self, Serving},
    releases,
};

/// The longest sentence that is kept of a failure, in characters.
const ERROR_MAXIMUM: usize = 4_000;

/// A row of `deployments`, with its app's name and its release's number.
#[derive(Debug, Clone)]
pub(crate) struct DeploymentRow {
    pub(crate) id: DeploymentId,
    pub(crate) project_id: ProjectId,
    pub(crate) organization_id: OrganizationId,
    pub(crate) name: String,
    pub(crate) kind: DeploymentKind,
    pub(crate) status: DeploymentStatus,
    pub(crate) error: Option<String>,
    pub(crate) source: Option<DeploymentSource>,
    pub(crate) release_id: Option<ReleaseId>,
    pub(crate) release_version: Option<i64>,
    pub(crate) environment_version: Option<i64>,
    pub(crate) commit: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) finished_at: Option<DateTime<Utc>>,
}

impl DeploymentRow {
    /// As clients see it.
    pub(crate) fn view(self, url: String) -> Deployment {
        Deployment {
            id: self.id,
            project_id: self.project_id,
            organization_id: self.organization_id,
            kind: self.kind,
            status: self.status,
            error: self.error,
            release_id: self.release_id,
            release_version: self.release_version,
            commit: self.commit,
            url,
            created_at: self.created_at,
            finished_at: self.finished_at,
        }
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    project_id: Uuid,
    organization_id: Uuid,
    name: String,
    kind: String,
    status: String,
    error: Option<String>,
    source: Option<Json<DeploymentSource>>,
    release_id: Option<Uuid>,
    release_version: Option<i64>,
    environment_version: Option<i64>,
    commit_hash: Option<String>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

impl From<Row> for DeploymentRow {
    fn from(row: Row) -> Self {
        Self {
            id: DeploymentId(row.id),
            project_id: ProjectId(row.project_id),
            organization_id: OrganizationId(row.organization_id),
            name: row.name,
            kind: kind_of(&row.kind),
            status: status_of(&row.status),
            error: row.error,
            source: row.source.map(|Json(source)| source),
            release_id: row.release_id.map(ReleaseId),
            release_version: row.release_version,
            environment_version: row.environment_version,
            commit: row.commit_hash,
            created_at: row.created_at,
            finished_at: row.finished_at,
        }
    }
}

const fn kind_text(kind: DeploymentKind) -> &'static str {
    match kind {
        DeploymentKind::Deploy => "deploy",
        DeploymentKind::Rollback => "rollback",
        DeploymentKind::Restart => "restart",
    }
}

fn kind_of(text: &str) -> DeploymentKind {
    match text {
        "rollback" => DeploymentKind::Rollback,
        "restart" => DeploymentKind::Restart,
        _ => DeploymentKind::Deploy,
    }
}

fn status_of(text: &str) -> DeploymentStatus {
    use DeploymentStatus::{Building, Cancelled, Completed, Failed, Queued, Rolling};
    [Queued, Building, Rolling, Completed, Cancelled]
        .into_iter()
        .find(|status| status.as_str() == text)
        .unwrap_or(Failed)
}

/// A deployment that begins.
pub(crate) struct NewDeployment {
    pub(crate) id: DeploymentId,
    pub(crate) project_id: ProjectId,
    pub(crate) organization_id: OrganizationId,
    pub(crate) kind: DeploymentKind,
    /// Queued, or rolling when nothing has to be built.
    pub(crate) status: DeploymentStatus,
    pub(crate) source: Option<DeploymentSource>,
    pub(crate) release_id: Option<ReleaseId>,
    pub(crate) environment_version: Option<i64>,
    pub(crate) commit: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
}

/// Whether the insert met a deployment of the same project that runs.
pub(crate) fn is_in_progress(error: &Error) -> bool {
    error.violates("deployments_running_key", "deployments.project_id")
}

/// Stores a deployment that begins.
pub(crate) async fn insert(transaction: &mut Transaction, new: &NewDeployment) -> Result<(), Error> {
    transaction
        .query(
            "INSERT INTO deployments (id, project_id, organization_id, kind, status, source, release_id,
                                      environment_version, commit_hash, attempts, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10)",
        )
        .bind(new.id.0)
        .bind(new.project_id.0)
        .bind(new.organization_id.0)
        .bind(kind_text(new.kind).to_owned())
        .bind(new.status.as_str().to_owned())
        .bind(new.source.clone().map(Json))
        .bind(new.release_id.map(|id| id.0))
        .bind(new.environment_version)
        .bind(new.commit.clone())
        .bind(new.created_at)
        .execute()
        .await?;
    Ok(())
}

/// One deployment, whoever owns it.
pub(crate) async fn get(database: &Database, id: DeploymentId) -> Result<Option<DeploymentRow>, Error> {
    let row: Option<Row> = database
        .query(
            "SELECT d.id, d.project_id, d.organization_id, a.name, d.kind, d.status, d.error, d.source, d.release_id,
                    r.version AS release_version, d.environment_version, d.commit_hash, d.created_at,
                    d.finished_at
             FROM deployments AS d JOIN apps AS a ON a.project_id = d.project_id
             LEFT JOIN releases AS r ON r.id = d.release_id
             WHERE d.id = $1",
        )
        .bind(id.0)
        .fetch_optional()
        .await?;
    Ok(row.map(DeploymentRow::from))
}

/// A tenant's deployment.
pub(crate) async fn owned(
    database: &Database,
    id: DeploymentId,
    organization_id: OrganizationId,
) -> Result<Option<DeploymentRow>, Error> {
    Ok(get(database, id).await?.filter(|row| row.organization_id == organization_id))
}

/// A page of a project's deployments, newest first.
pub(crate) async fn page(
    database: &Database,
    project_id: ProjectId,
    before: Uuid,
    limit: u32,
) -> Result<Vec<DeploymentRow>, Error> {
    let rows: Vec<Row> = database
        .query(
            "SELECT d.id, d.project_id, d.organization_id, a.name, d.kind, d.status, d.error, d.source, d.release_id,
                    r.version AS release_version, d.environment_version, d.commit_hash, d.created_at,
                    d.finished_at
             FROM deployments AS d JOIN apps AS a ON a.project_id = d.project_id
             LEFT JOIN releases AS r ON r.id = d.release_id
             WHERE d.project_id = $1 AND d.id < $2 ORDER BY d.id DESC LIMIT $3",
        )
        .bind(project_id.0)
        .bind(before)
        .bind(i64::from(limit) + 1)
        .fetch_all()
        .await?;
    Ok(rows.into_iter().map(DeploymentRow::from).collect())
}

/// The project's deployment that runs now, with its status.
pub(crate) async fn running(
    database: &Database,
    project_id: ProjectId,
) -> Result<Option<(DeploymentId, DeploymentStatus)>, Error> {
    let row: Option<(Uuid, String)> = database
        .query(
            "SELECT id, status FROM deployments
             WHERE project_id = $1 AND status IN ('queued', 'building', 'rolling')",
        )
        .bind(project_id.0)
        .fetch_optional()
        .await?;
    Ok(row.map(|(id, status)| (DeploymentId(id), status_of(&status))))
}

/// Takes the oldest queued deployment for a builder.
pub(crate) async fn claim(database: &Database) -> Result<Option<DeploymentId>, Error> {
    let row: Option<(Uuid,)> = database
        .query(
            "UPDATE deployments SET status = 'building', attempts = attempts + 1
             WHERE status = 'queued'
               AND id = (SELECT id FROM deployments WHERE status = 'queued' ORDER BY id LIMIT 1)
             RETURNING id",
        )
        .fetch_optional()
        .await?;
    Ok(row.map(|(id,)| DeploymentId(id)))
}

/// Puts a deployment whose build was interrupted by the node's stop back into the queue.
pub(crate) async fn requeue(database: &Database, id: DeploymentId) -> Result<bool, Error> {
    let changed = database
        .query("UPDATE deployments SET status = 'queued' WHERE id = $1 AND status = 'building'")
        .bind(id.0)
        .execute()
        .await?;
    Ok(changed > 0)
}

/// The ids and attempts of the deployments that stand as `status`.
pub(crate) async fn standing(
    database: &Database,
    status: DeploymentStatus,
) -> Result<Vec<(DeploymentId, ProjectId, i64)>, Error> {
    let rows: Vec<(Uuid, Uuid, i64)> = database
        .query("SELECT id, project_id, attempts FROM deployments WHERE status = $1 ORDER BY id")
        .bind(status.as_str().to_owned())
        .fetch_all()
        .await?;
    Ok(rows.into_iter().map(|(id, project_id, attempts)| (DeploymentId(id), ProjectId(project_id), attempts)).collect())
}

/// Remembers the commit that a git source has led to.
pub(crate) async fn set_commit(database: &Database, id: DeploymentId, commit: &str) -> Result<(), Error> {
    database
        .query("UPDATE deployments SET commit_hash = $2 WHERE id = $1")
        .bind(id.0)
        .bind(commit.to_owned())
        .execute()
        .await?;
    Ok(())
}

/// From building to rolling, with the release that was built. `None` when it was cancelled meanwhile.
pub(crate) async fn built(database: &Database, release: &releases::ReleaseRow) -> Result<Option<i64>, Error> {
    let mut transaction = database.begin().await?;
    let changed = transaction
        .query(
            "UPDATE deployments SET status = 'rolling', release_id = $2, environment_version = $3
             WHERE id = $1 AND status = 'building'",
        )
        .bind(release.deployment_id.0)
        .bind(release.id.0)
        .bind(release.environment_version)
        .execute()
        .await?;
    if changed == 0 {
        return Ok(None);
    }
    let version = releases::insert(&mut transaction, release).await?;
    transaction.commit().await?;
    Ok(Some(version))
}

/// From rolling to completed: from now on this is what serves. False when it was cancelled meanwhile.
pub(crate) async fn complete(
    database: &Database,
    project_id: ProjectId,
    serving: Serving,
    default: &BTreeMap<String, u32>,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let mut transaction = database.begin().await?;
    let changed = transaction
        .query("UPDATE deployments SET status = 'completed', finished_at = $2 WHERE id = $1 AND status = 'rolling'")
        .bind(serving.deployment_id.0)
        .bind(now)
        .execute()
        .await?;
    if changed == 0 {
        return Ok(false);
    }
    if !apps::serve(&mut transaction, project_id, serving, default, now).await? {
        return Ok(false);
    }
    transaction.commit().await?;
    Ok(true)
}

/// Ends a deployment that has not ended. False when it had.
pub(crate) async fn end(
    database: &Database,
    id: DeploymentId,
    status: DeploymentStatus,
    error: Option<&str>,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let changed = database
        .query(
            "UPDATE deployments SET status = $2, error = $3, finished_at = $4
             WHERE id = $1 AND status IN ('queued', 'building', 'rolling')",
        )
        .bind(id.0)
        .bind(status.as_str().to_owned())
        .bind(error.map(|error| error.chars().take(ERROR_MAXIMUM).collect::<String>()))
        .bind(now)
        .execute()
        .await?;
    Ok(changed > 0)
}

/// The ids of a project's deployments that are older than the newest `keep`, for what is kept beside the rows.
pub(crate) async fn older_than(
    database: &Database,
    project_id: ProjectId,
    keep: u32,
) -> Result<Vec<DeploymentId>, Error> {
    let rows: Vec<(Uuid,)> = database
        .query("SELECT id FROM deployments WHERE project_id = $1 ORDER BY id DESC LIMIT 20 OFFSET $2")
        .bind(project_id.0)
        .bind(i64::from(keep))
        .fetch_all()
        .await?;
    Ok(rows.into_iter().map(|(id,)| DeploymentId(id)).collect())
}

/// Removes these rows; answers how many there were.
pub(crate) async fn erase(database: &Database, ids: &[DeploymentId]) -> Result<u64, Error> {
    let mut erased = 0;
    for id in ids {
        erased += database.query("DELETE FROM deployments WHERE id = $1").bind(id.0).execute().await?;
    }
    Ok(erased)
}
