//! Releases: what was built, and what is kept of it.

use callboard_messages::{Cursor, DeploymentId, Limit, ProjectId, ReleaseId, deploy::Release, project::BuildConfig};
use callboard_supervisors::db::{Database, Error, Transaction};
use chrono::{DateTime, Utc};
use indexmap::IndexMap;
use sqlx::types::Json;

use crate::{
    apps::formation::Counts,
    build::detect::{Command, RunEnvironment},
};

/// A row of `releases`.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct ReleaseRow {
    pub(crate) id: ReleaseId,
    pub(crate) project_id: ProjectId,
    pub(crate) version: i64,
    pub(crate) digest: String,
    /// Of the archive, while it is kept.
    pub(crate) generation: i64,
    pub(crate) language: String,
    #[sqlx(json)]
    pub(crate) processes: IndexMap<String, Command>,
    #[sqlx(json)]
    pub(crate) environment: RunEnvironment,
    #[sqlx(json)]
    pub(crate) build: BuildConfig,
    pub(crate) environment_version: i64,
    pub(crate) deployment_id: DeploymentId,
    #[sqlx(rename = "commit_hash")]
    pub(crate) commit: Option<String>,
    /// What was wanted of it when another release took its place.
    #[sqlx(json(nullable))]
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
    database.query(select!("WHERE r.id = $1")).bind(id).fetch_optional().await
}

/// A project's release by its number.
pub(crate) async fn by_version(
    database: &Database,
    project_id: ProjectId,
    version: i64,
) -> Result<Option<ReleaseRow>, Error> {
    database
        .query(select!("WHERE r.project_id = $1 AND r.version = $2"))
        .bind(project_id)
        .bind(version)
        .fetch_optional()
        .await
}

/// The newest release before this one that has served.
pub(crate) async fn before(
    database: &Database,
    project_id: ProjectId,
    version: i64,
) -> Result<Option<ReleaseRow>, Error> {
    database
        .query(select!(
            "WHERE r.project_id = $1 AND r.version < $2
               AND EXISTS (SELECT 1 FROM deployments AS d WHERE d.release_id = r.id AND d.status = 'completed')
             ORDER BY r.version DESC LIMIT 1"
        ))
        .bind(project_id)
        .bind(version)
        .fetch_optional()
        .await
}

/// A page of a project's releases, newest first.
pub(crate) async fn page(
    database: &Database,
    project_id: ProjectId,
    cursor: Option<Cursor>,
    limit: Limit,
) -> Result<Vec<ReleaseRow>, Error> {
    database
        .query(select!("WHERE r.project_id = $1 AND r.id < $2 ORDER BY r.id DESC LIMIT $3"))
        .bind(project_id)
        .bind(Cursor::below(cursor))
        .bind(limit.rows())
        .fetch_all()
        .await
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
        .bind(release.id)
        .bind(release.project_id)
        .bind(release.digest.clone())
        .bind(release.language.clone())
        .bind(Json(release.processes.clone()))
        .bind(Json(release.environment.clone()))
        .bind(Json(release.build.clone()))
        .bind(release.environment_version)
        .bind(release.deployment_id)
        .bind(release.commit.clone())
        .bind(release.kept)
        .bind(release.created_at)
        .fetch_scalar()
        .await
}

/// Whether the archive is still kept of a release that a deployment is to bring back. The transaction holds its app.
pub(crate) async fn is_kept(transaction: &mut Transaction, id: ReleaseId) -> Result<bool, Error> {
    let found: Option<(i64,)> =
        transaction.query("SELECT version FROM releases WHERE id = $1 AND kept").bind(id).fetch_optional().await?;
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
        .bind(project_id)
        .bind(i64::from(keep))
        .fetch_all()
        .await?;
    Ok(rows.into_iter().map(|(digest,)| digest).collect())
}

/// Marks all releases of a project that is on its way out as no longer kept; answers their digests.
pub(crate) async fn let_go_all(transaction: &mut Transaction, project_id: ProjectId) -> Result<Vec<String>, Error> {
    let rows: Vec<(String,)> = transaction
        .query("UPDATE releases SET kept = FALSE WHERE project_id = $1 AND kept RETURNING digest")
        .bind(project_id)
        .fetch_all()
        .await?;
    Ok(rows.into_iter().map(|(digest,)| digest).collect())
}
