//! Deployments, as they are read and begin.

use std::ops::RangeInclusive;

use callboard_messages::{
    Caller, Cursor, DeploymentId, Limit, OrganizationId, ProjectId, ReleaseId,
    deploy::{
        Deployment, DeploymentFact, DeploymentKind, DeploymentQueued, DeploymentSource, DeploymentStarted,
        DeploymentStatus,
    },
    project::BuildConfig,
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
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct DeploymentRow {
    pub(crate) id: DeploymentId,
    pub(crate) project_id: ProjectId,
    pub(crate) organization_id: OrganizationId,
    pub(crate) name: String,
    #[sqlx(try_from = "String")]
    pub(crate) kind: DeploymentKind,
    #[sqlx(try_from = "String")]
    pub(crate) status: DeploymentStatus,
    pub(crate) error: Option<String>,
    #[sqlx(json(nullable))]
    pub(crate) source: Option<DeploymentSource>,
    pub(crate) release_id: Option<ReleaseId>,
    pub(crate) release_version: Option<i64>,
    pub(crate) environment_version: Option<i64>,
    #[sqlx(rename = "commit_hash")]
    pub(crate) commit: Option<String>,
    pub(super) allow_missing: bool,
    /// Whether it is built though the same was built before.
    pub(crate) rebuild: bool,
    /// What it is built and run by, before the project's build configuration.
    #[sqlx(json(nullable))]
    pub(crate) config: Option<BuildConfig>,
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

/// Every reader's columns and tables.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT d.id, d.project_id, d.organization_id, a.name, d.kind, d.status, d.error, d.source, d.release_id, ",
            "r.version AS release_version, d.environment_version, d.commit_hash, d.allow_missing, d.rebuild, ",
            "d.config, d.builder_node, d.created_at, d.finished_at FROM deployments AS d JOIN apps AS a ON a.project_id = d.project_id ",
            "LEFT JOIN releases AS r ON r.id = d.release_id ",
            $rest
        )
    };
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
    pub(crate) rebuild: bool,
    pub(crate) config: Option<BuildConfig>,
    pub(crate) created_at: DateTime<Utc>,
}

/// Stores a deployment that begins; not while another one of the project runs.
pub(crate) async fn insert(transaction: &mut Transaction, new: &NewDeployment) -> Result<bool, Error> {
    let inserted = transaction
        .query(
            "INSERT INTO deployments (id, project_id, organization_id, kind, status, source, release_id,
                                      environment_version, commit_hash, attempts, created_at, allow_missing,
                                      rebuild, config)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10, $11, $12, $13)
             ON CONFLICT DO NOTHING",
        )
        .bind(new.id)
        .bind(new.project_id)
        .bind(new.organization_id)
        .bind(new.kind.as_str())
        .bind(new.status.as_str())
        .bind(new.source.clone().map(Json))
        .bind(new.release_id)
        .bind(new.environment_version)
        .bind(new.commit.clone())
        .bind(new.created_at)
        .bind(new.allow_missing)
        .bind(new.rebuild)
        .bind(new.config.clone().map(Json))
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
    database.query(select!("WHERE d.id = $1")).bind(id).fetch_optional().await
}

/// One deployment, as a transaction has left it.
pub(super) async fn get_in(transaction: &mut Transaction, id: DeploymentId) -> Result<Option<DeploymentRow>, Error> {
    transaction.query(select!("WHERE d.id = $1")).bind(id).fetch_optional().await
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
    cursor: Option<Cursor>,
    limit: Limit,
) -> Result<Vec<DeploymentRow>, Error> {
    database
        .query(select!("WHERE d.project_id = $1 AND d.id < $2 ORDER BY d.id DESC LIMIT $3"))
        .bind(project_id)
        .bind(Cursor::below(cursor))
        .bind(limit.rows())
        .fetch_all()
        .await
}

/// The newest deployment of each of a tenant's projects whose id is in the range.
pub(crate) async fn newest_of_each(
    database: &Database,
    organization_id: OrganizationId,
    projects: RangeInclusive<ProjectId>,
) -> Result<Vec<DeploymentRow>, Error> {
    database
        .query(select!(
            "WHERE a.organization_id = $1 AND a.project_id >= $2 AND a.project_id <= $3
               AND d.id = (SELECT id FROM deployments AS newest WHERE newest.project_id = a.project_id
                           ORDER BY newest.id DESC LIMIT 1)"
        ))
        .bind(organization_id)
        .bind(*projects.start())
        .bind(*projects.end())
        .fetch_all()
        .await
}

const RUNNING: &str =
    "SELECT id, status FROM deployments WHERE project_id = $1 AND status IN ('queued', 'building', 'rolling')";

/// The project's deployment that runs now, with its status.
pub(crate) async fn running(
    database: &Database,
    project_id: ProjectId,
) -> Result<Option<(DeploymentId, DeploymentStatus)>, Error> {
    let row: Option<(DeploymentId, String)> = database.query(RUNNING).bind(project_id).fetch_optional().await?;
    Ok(row.map(|(id, status)| (id, status.into())))
}

/// The same, as a transaction finds it.
pub(crate) async fn running_in(
    transaction: &mut Transaction,
    project_id: ProjectId,
) -> Result<Option<DeploymentId>, Error> {
    let row: Option<(DeploymentId, String)> = transaction.query(RUNNING).bind(project_id).fetch_optional().await?;
    Ok(row.map(|(id, _)| id))
}

/// The upload that a deployment of the project waits to be built of, or is built of.
pub(crate) async fn source_in_use(transaction: &mut Transaction, project_id: ProjectId) -> Result<Option<Uuid>, Error> {
    let row: Option<(Option<Json<DeploymentSource>>,)> = transaction
        .query("SELECT source FROM deployments WHERE project_id = $1 AND status IN ('queued', 'building')")
        .bind(project_id)
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
    let rows: Vec<(DeploymentId,)> = database
        .query("SELECT id FROM deployments WHERE project_id = $1 ORDER BY id DESC LIMIT 20 OFFSET $2")
        .bind(project_id)
        .bind(i64::from(keep))
        .fetch_all()
        .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Whether it is among the newest `keep` of its project, whose logs are kept.
pub(crate) async fn keeps_log(database: &Database, id: DeploymentId, keep: u32) -> Result<bool, Error> {
    let newer: Option<(i64,)> = database
        .query(
            "SELECT (SELECT COUNT(*) FROM deployments AS newer
                     WHERE newer.project_id = d.project_id AND newer.id > d.id) AS newer
             FROM deployments AS d WHERE d.id = $1",
        )
        .bind(id)
        .fetch_optional()
        .await?;
    Ok(newer.is_some_and(|(newer,)| newer < i64::from(keep)))
}

/// Removes these rows; answers how many there were.
pub(crate) async fn erase(database: &Database, ids: &[DeploymentId]) -> Result<u64, Error> {
    let mut erased = 0;
    for id in ids {
        erased += database.query("DELETE FROM deployments WHERE id = $1").bind(id).execute().await?;
    }
    Ok(erased)
}
