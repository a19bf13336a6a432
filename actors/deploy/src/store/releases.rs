//! Releases: what was built, and what is kept of it.

use callboard_messages::{DeploymentId, ProjectId, ReleaseId, deploy::Release, project::BuildConfig};
use callboard_supervisors::db::{Database, Error, Transaction};
use chrono::{DateTime, Utc};
use indexmap::IndexMap;
use sqlx::types::Json;
use uuid::Uuid;

use crate::{
    apps::formation::Counts,
    build::detect::{Command, RunEnvironment},
};

/// A row of `releases`.
#[derive(Debug, Clone)]
pub(crate) struct ReleaseRow {
    pub(crate) id: ReleaseId,
    pub(crate) project_id: ProjectId,
    pub(crate) version: i64,
    pub(crate) digest: String,
    /// Of the archive, while it is kept.
    pub(crate) generation: i64,
    pub(crate) language: String,
    pub(crate) processes: IndexMap<String, Command>,
    pub(crate) environment: RunEnvironment,
    pub(crate) build: BuildConfig,
    pub(crate) environment_version: i64,
    pub(crate) deployment_id: DeploymentId,
    pub(crate) commit: Option<String>,
    /// What was wanted of it when another release took its place.
    pub(crate) formation: Option<Counts>,
    /// Whether its archive is still there.
    pub(crate) kept: bool,
    pub(crate) created_at: DateTime<Utc>,
}

impl ReleaseRow {
    /// As clients see it.
    pub(crate) fn view(&self, current: Option<ReleaseId>) -> Release {
        Release {
            id: self.id,
            project_id: self.project_id,
            version: self.version,
            digest: self.digest.clone(),
            language: self.language.clone(),
            processes: self.processes.iter().map(|(name, command)| (name.clone(), command.shown())).collect(),
            environment_version: self.environment_version,
            deployment_id: self.deployment_id,
            commit: self.commit.clone(),
            formation: self.formation.clone(),
            current: current == Some(self.id),
            created_at: self.created_at,
        }
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    project_id: Uuid,
    version: i64,
    digest: String,
    generation: i64,
    language: String,
    processes: Json<IndexMap<String, Command>>,
    environment: Json<RunEnvironment>,
    build: Json<BuildConfig>,
    environment_version: i64,
    deployment_id: Uuid,
    commit_hash: Option<String>,
    formation: Option<Json<Counts>>,
    kept: bool,
    created_at: DateTime<Utc>,
}

impl From<Row> for ReleaseRow {
    fn from(row: Row) -> Self {
        Self {
            id: ReleaseId(row.id),
            project_id: ProjectId(row.project_id),
            version: row.version,
            digest: row.digest,
            generation: row.generation,
            language: row.language,
            processes: row.processes.0,
            environment: row.environment.0,
            build: row.build.0,
            environment_version: row.environment_version,
            deployment_id: DeploymentId(row.deployment_id),
            commit: row.commit_hash,
            formation: row.formation.map(|Json(formation)| formation),
            kept: row.kept,
            created_at: row.created_at,
        }
    }
}

/// Every reader's columns and tables.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT r.id, r.project_id, r.version, r.digest, COALESCE(a.generation, 0) AS generation, r.language, ",
            "r.processes, r.environment, r.build, r.environment_version, r.deployment_id, r.commit_hash, r.formation, ",
            "r.kept, r.created_at FROM releases AS r LEFT JOIN archives AS a ON a.digest = r.digest ",
            $rest
        )
    };
}

/// One release.
pub(crate) async fn get(database: &Database, id: ReleaseId) -> Result<Option<ReleaseRow>, Error> {
    let row: Option<Row> = database.query(select!("WHERE r.id = $1")).bind(id.0).fetch_optional().await?;
    Ok(row.map(ReleaseRow::from))
}

/// A project's release by its number.
pub(crate) async fn by_version(
    database: &Database,
    project_id: ProjectId,
    version: i64,
) -> Result<Option<ReleaseRow>, Error> {
    let row: Option<Row> = database
        .query(select!("WHERE r.project_id = $1 AND r.version = $2"))
        .bind(project_id.0)
        .bind(version)
        .fetch_optional()
        .await?;
    Ok(row.map(ReleaseRow::from))
}

/// The newest release before this one that has served.
pub(crate) async fn before(
    database: &Database,
    project_id: ProjectId,
    version: i64,
) -> Result<Option<ReleaseRow>, Error> {
    let row: Option<Row> = database
        .query(select!(
            "WHERE r.project_id = $1 AND r.version < $2
               AND EXISTS (SELECT 1 FROM deployments AS d WHERE d.release_id = r.id AND d.status = 'completed')
             ORDER BY r.version DESC LIMIT 1"
        ))
        .bind(project_id.0)
        .bind(version)
        .fetch_optional()
        .await?;
    Ok(row.map(ReleaseRow::from))
}

/// A page of a project's releases, newest first.
pub(crate) async fn page(
    database: &Database,
    project_id: ProjectId,
    before: Uuid,
    limit: u32,
) -> Result<Vec<ReleaseRow>, Error> {
    let rows: Vec<Row> = database
        .query(select!("WHERE r.project_id = $1 AND r.id < $2 ORDER BY r.id DESC LIMIT $3"))
        .bind(project_id.0)
        .bind(before)
        .bind(i64::from(limit) + 1)
        .fetch_all()
        .await?;
    Ok(rows.into_iter().map(ReleaseRow::from).collect())
}

/// Stores a release with the project's next number, which it answers. Only one deployment of a project runs at a
/// time, so nobody else takes the number.
pub(crate) async fn insert(transaction: &mut Transaction, release: &ReleaseRow) -> Result<i64, Error> {
    transaction
        .query(
            "INSERT INTO releases (id, project_id, version, digest, language, processes, environment, build,
                                   environment_version, deployment_id, commit_hash, kept, created_at)
             VALUES ($1, $2, (SELECT COALESCE(MAX(version), 0) + 1 FROM releases WHERE project_id = $2),
                     $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             RETURNING version",
        )
        .bind(release.id.0)
        .bind(release.project_id.0)
        .bind(release.digest.clone())
        .bind(release.language.clone())
        .bind(Json(release.processes.clone()))
        .bind(Json(release.environment.clone()))
        .bind(Json(release.build.clone()))
        .bind(release.environment_version)
        .bind(release.deployment_id.0)
        .bind(release.commit.clone())
        .bind(release.kept)
        .bind(release.created_at)
        .fetch_scalar()
        .await
}

/// Whether the archive is still kept of a release that a deployment is to bring back. The transaction holds its app.
pub(crate) async fn is_kept(transaction: &mut Transaction, id: ReleaseId) -> Result<bool, Error> {
    let found: Option<(i64,)> =
        transaction.query("SELECT version FROM releases WHERE id = $1 AND kept").bind(id.0).fetch_optional().await?;
    Ok(found.is_some())
}

/// Marks all but the newest `keep` releases of a project, and what serves, as no longer kept; answers their digests. The
/// transaction holds the app, so that none of them is brought back meanwhile.
pub(crate) async fn let_go(
    transaction: &mut Transaction,
    project_id: ProjectId,
    keep: u32,
) -> Result<Vec<String>, Error> {
    let rows: Vec<(String,)> = transaction
        .query(
            "UPDATE releases SET kept = FALSE
             WHERE project_id = $1 AND kept
               AND id NOT IN (SELECT id FROM releases WHERE project_id = $1 ORDER BY version DESC LIMIT $2)
               AND id NOT IN (SELECT release_id FROM apps WHERE project_id = $1 AND release_id IS NOT NULL)
               AND id NOT IN (SELECT release_id FROM deployments WHERE project_id = $1 AND release_id IS NOT NULL
                                AND status IN ('queued', 'building', 'rolling'))
             RETURNING digest",
        )
        .bind(project_id.0)
        .bind(i64::from(keep))
        .fetch_all()
        .await?;
    Ok(rows.into_iter().map(|(digest,)| digest).collect())
}

/// Marks all releases of a project that is on its way out as no longer kept; answers their digests.
pub(crate) async fn let_go_all(transaction: &mut Transaction, project_id: ProjectId) -> Result<Vec<String>, Error> {
    let rows: Vec<(String,)> = transaction
        .query("UPDATE releases SET kept = FALSE WHERE project_id = $1 AND kept RETURNING digest")
        .bind(project_id.0)
        .fetch_all()
        .await?;
    Ok(rows.into_iter().map(|(digest,)| digest).collect())
}
