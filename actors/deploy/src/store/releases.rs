//! Releases: what was built, and what is kept of it.

use callboard_messages::{
    Cursor, DeploymentId, Limit, ProjectId, ReleaseId,
    deploy::{DeploymentStatus, Release, ReleaseStatus},
    project::BuildConfig,
};
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
    /// What runs once before its rollout.
    #[sqlx(json(nullable))]
    pub(crate) release_command: Option<Command>,
    #[sqlx(json)]
    pub(crate) environment: RunEnvironment,
    #[sqlx(json)]
    pub(crate) build: BuildConfig,
    pub(crate) environment_version: i64,
    pub(crate) deployment_id: DeploymentId,
    #[sqlx(rename = "commit_hash")]
    pub(crate) commit: Option<String>,
    /// Names what it was built from and how; absent for releases of earlier versions.
    pub(crate) build_key: Option<String>,
    /// What was wanted of it when another release took its place.
    #[sqlx(json(nullable))]
    pub(crate) formation: Option<Counts>,
    /// Whether its archive is still there.
    pub(crate) kept: bool,
    pub(crate) created_at: DateTime<Utc>,
}

/// A release with what came of it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct ListedRelease {
    #[sqlx(flatten)]
    pub(crate) release: ReleaseRow,
    /// Of the deployment that made it, while that is kept.
    made_status: Option<String>,
    made_error: Option<String>,
    /// Whether any deployment has brought it into service.
    served: bool,
}

impl ListedRelease {
    /// As clients see it.
    pub(crate) fn view(self, current: Option<ReleaseId>) -> Release {
        let made = self.made_status.map(DeploymentStatus::from);
        let status = match made {
            _ if current == Some(self.release.id) => ReleaseStatus::Serving,
            _ if self.served => ReleaseStatus::Served,
            Some(DeploymentStatus::Failed | DeploymentStatus::Cancelled) => ReleaseStatus::Failed,
            // Its deployment goes on.
            Some(_) => ReleaseStatus::Pending,
            None => ReleaseStatus::Served,
        };
        let release = self.release;
        Release {
            id: release.id,
            project_id: release.project_id,
            version: release.version,
            status,
            error: self.made_error.filter(|_| status == ReleaseStatus::Failed),
            digest: release.digest,
            language: release.language,
            processes: release.processes.iter().map(|(name, command)| (name.clone(), command.shown())).collect(),
            release_command: release.release_command.map(|command| command.shown()),
            environment_version: release.environment_version,
            deployment_id: release.deployment_id,
            commit: release.commit,
            formation: release.formation,
            current: current == Some(release.id),
            created_at: release.created_at,
        }
    }
}

/// Every reader's columns.
macro_rules! columns {
    () => {
        concat!(
            "r.id, r.project_id, r.version, r.digest, COALESCE(a.generation, 0) AS generation, r.language, ",
            "r.processes, r.release_command, r.environment, r.build, r.environment_version, r.deployment_id, ",
            "r.commit_hash, r.build_key, r.formation, r.kept, r.created_at"
        )
    };
}

/// Every reader's columns and tables.
macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT ", columns!(), " FROM releases AS r LEFT JOIN archives AS a ON a.digest = r.digest ", $rest)
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

/// The release that served before this one, which serves, and is still kept. Its number may be the greater one: a
/// deployment or a rollback may have brought back an older release.
pub(crate) async fn served_before(
    database: &Database,
    project_id: ProjectId,
    serving: ReleaseId,
) -> Result<Option<ReleaseRow>, Error> {
    database
        .query(select!(
            "JOIN deployments AS d ON d.release_id = r.id
             WHERE d.project_id = $1 AND d.status = 'completed' AND d.kind IN ('deploy', 'rollback')
               AND r.id <> $2 AND r.kept
             ORDER BY d.id DESC LIMIT 1"
        ))
        .bind(project_id)
        .bind(serving)
        .fetch_optional()
        .await
}

/// The newest release of the project that is kept and was built from the same in the same way.
pub(crate) async fn by_build_key(
    database: &Database,
    project_id: ProjectId,
    build_key: &str,
) -> Result<Option<ReleaseRow>, Error> {
    database
        .query(select!("WHERE r.project_id = $1 AND r.build_key = $2 AND r.kept ORDER BY r.version DESC LIMIT 1"))
        .bind(project_id)
        .bind(build_key.to_owned())
        .fetch_optional()
        .await
}

/// A page of a project's releases, newest first.
pub(crate) async fn page(
    database: &Database,
    project_id: ProjectId,
    cursor: Option<Cursor>,
    limit: Limit,
) -> Result<Vec<ListedRelease>, Error> {
    database
        .query(concat!(
            "SELECT ",
            columns!(),
            ", m.status AS made_status, m.error AS made_error,
               EXISTS (SELECT 1 FROM deployments AS s WHERE s.release_id = r.id AND s.status = 'completed') AS served
             FROM releases AS r LEFT JOIN archives AS a ON a.digest = r.digest
               LEFT JOIN deployments AS m ON m.id = r.deployment_id
             WHERE r.project_id = $1 AND r.id < $2 ORDER BY r.id DESC LIMIT $3"
        ))
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
                                   environment_version, deployment_id, commit_hash, kept, created_at, release_command,
                                   build_key)
             VALUES ($1, $2, (SELECT COALESCE(MAX(version), 0) + 1 FROM releases WHERE project_id = $2),
                     $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
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
        .bind(release.release_command.clone().map(Json))
        .bind(release.build_key.clone())
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
