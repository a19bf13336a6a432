//! Deployments, as they are read and begin.

use callboard_messages::{
    Caller, DeploymentId, OrganizationId, ProjectId, ReleaseId,
    deploy::{
        Deployment, DeploymentFact, DeploymentKind, DeploymentQueued, DeploymentSource, DeploymentStarted,
        DeploymentStatus,
    },
};
use callboard_supervisors::{
    db::{Database, Error, Transaction},
    events::emit,
};
use chrono::{DateTime, Utc};
use indexmap::IndexMap;
use sqlx::types::Json;
use uuid::Uuid;

use crate::{apps::formation::DesiredFormation, build::detect::Command};

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
    pub(super) allow_missing: bool,
    /// The node that builds it, or has built it.
    pub(crate) builder_node: Option<Uuid>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) finished_at: Option<DateTime<Utc>>,
}

impl DeploymentRow {
    /// Why it must not bring a release with these process types into service, where this is wanted now. One that served
    /// before may always come back.
    pub(crate) fn refuse(&self, desired: &DesiredFormation, processes: &IndexMap<String, Command>) -> Option<String> {
        let may_lack = self.allow_missing || self.kind != DeploymentKind::Deploy;
        if may_lack { None } else { desired.refuse(processes) }
    }

    /// The fact for its events.
    pub(crate) fn fact(self) -> DeploymentFact {
        DeploymentFact {
            deployment_id: self.id,
            project_id: self.project_id,
            organization_id: self.organization_id,
            app: self.name,
            kind: self.kind,
            release_id: self.release_id,
            release_version: self.release_version,
            reason: self.error,
        }
    }

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
    allow_missing: bool,
    builder_node: Option<Uuid>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

/// Every reader's columns and tables.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT d.id, d.project_id, d.organization_id, a.name, d.kind, d.status, d.error, d.source, d.release_id, ",
            "r.version AS release_version, d.environment_version, d.commit_hash, d.allow_missing, d.builder_node, ",
            "d.created_at, d.finished_at FROM deployments AS d JOIN apps AS a ON a.project_id = d.project_id ",
            "LEFT JOIN releases AS r ON r.id = d.release_id ",
            $rest
        )
    };
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
            allow_missing: row.allow_missing,
            builder_node: row.builder_node,
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
    pub(crate) allow_missing: bool,
    pub(crate) created_at: DateTime<Utc>,
}

/// Stores a deployment that begins; not while another one of the project runs.
pub(crate) async fn insert(transaction: &mut Transaction, new: &NewDeployment) -> Result<bool, Error> {
    let inserted = transaction
        .query(
            "INSERT INTO deployments (id, project_id, organization_id, kind, status, source, release_id,
                                      environment_version, commit_hash, attempts, created_at, allow_missing)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10, $11)
             ON CONFLICT DO NOTHING",
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
        .bind(new.allow_missing)
        .execute()
        .await?;
    Ok(inserted == 1)
}

/// Publishes a deployment that begins, and returns its row.
pub(crate) async fn tell_begun(
    transaction: &mut Transaction,
    caller: &Caller,
    id: DeploymentId,
) -> Result<Option<DeploymentRow>, Error> {
    let Some(row) = get_in(transaction, id).await? else { return Ok(None) };
    let fact = row.clone().fact();
    match row.status {
        DeploymentStatus::Queued => emit(transaction, caller, &DeploymentQueued(fact)).await?,
        // Nothing has to be built.
        _ => emit(transaction, caller, &DeploymentStarted(fact)).await?,
    }
    Ok(Some(row))
}

/// One deployment of any tenant.
pub(crate) async fn get(database: &Database, id: DeploymentId) -> Result<Option<DeploymentRow>, Error> {
    let row: Option<Row> = database.query(select!("WHERE d.id = $1")).bind(id.0).fetch_optional().await?;
    Ok(row.map(DeploymentRow::from))
}

/// One deployment, as a transaction has left it.
pub(super) async fn get_in(transaction: &mut Transaction, id: DeploymentId) -> Result<Option<DeploymentRow>, Error> {
    let row: Option<Row> = transaction.query(select!("WHERE d.id = $1")).bind(id.0).fetch_optional().await?;
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
        .query(select!("WHERE d.project_id = $1 AND d.id < $2 ORDER BY d.id DESC LIMIT $3"))
        .bind(project_id.0)
        .bind(before)
        .bind(i64::from(limit) + 1)
        .fetch_all()
        .await?;
    Ok(rows.into_iter().map(DeploymentRow::from).collect())
}

const RUNNING: &str =
    "SELECT id, status FROM deployments WHERE project_id = $1 AND status IN ('queued', 'building', 'rolling')";

/// The project's deployment that runs now, with its status.
pub(crate) async fn running(
    database: &Database,
    project_id: ProjectId,
) -> Result<Option<(DeploymentId, DeploymentStatus)>, Error> {
    let row: Option<(Uuid, String)> = database.query(RUNNING).bind(project_id.0).fetch_optional().await?;
    Ok(row.map(|(id, status)| (DeploymentId(id), status_of(&status))))
}

/// The same, as a transaction finds it.
pub(crate) async fn running_in(
    transaction: &mut Transaction,
    project_id: ProjectId,
) -> Result<Option<DeploymentId>, Error> {
    let row: Option<(Uuid, String)> = transaction.query(RUNNING).bind(project_id.0).fetch_optional().await?;
    Ok(row.map(|(id, _)| DeploymentId(id)))
}

/// The upload that a deployment of the project waits to be built of, or is built of.
pub(crate) async fn source_in_use(transaction: &mut Transaction, project_id: ProjectId) -> Result<Option<Uuid>, Error> {
    let row: Option<(Option<Json<DeploymentSource>>,)> = transaction
        .query("SELECT source FROM deployments WHERE project_id = $1 AND status IN ('queued', 'building')")
        .bind(project_id.0)
        .fetch_optional()
        .await?;
    Ok(match row {
        Some((Some(Json(DeploymentSource::Archive { source_id })),)) => Some(source_id),
        _ => None,
    })
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

/// Whether it is among the newest `keep` of its project, whose logs are kept.
pub(crate) async fn keeps_log(database: &Database, id: DeploymentId, keep: u32) -> Result<bool, Error> {
    let newer: Option<(i64,)> = database
        .query(
            "SELECT (SELECT COUNT(*) FROM deployments AS newer
                     WHERE newer.project_id = d.project_id AND newer.id > d.id) AS newer
             FROM deployments AS d WHERE d.id = $1",
        )
        .bind(id.0)
        .fetch_optional()
        .await?;
    Ok(newer.is_some_and(|(newer,)| newer < i64::from(keep)))
}

/// Removes these rows; answers how many there were.
pub(crate) async fn erase(database: &Database, ids: &[DeploymentId]) -> Result<u64, Error> {
    let mut erased = 0;
    for id in ids {
        erased += database.query("DELETE FROM deployments WHERE id = $1").bind(id.0).execute().await?;
    }
    Ok(erased)
}
