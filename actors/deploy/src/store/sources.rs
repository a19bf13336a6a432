//! Uploaded archives.

use callboard_messages::{OrganizationId, ProjectId, deploy::Source};
use callboard_supervisors::db::{Database, Error};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Records an upload; a second time changes nothing. False when the id is another project's.
pub(crate) async fn insert(
    database: &Database,
    project_id: ProjectId,
    organization_id: OrganizationId,
    source: &Source,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    database
        .query(
            "INSERT INTO sources (id, project_id, organization_id, size, sha256, created_at)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING",
        )
        .bind(source.id)
        .bind(project_id.0)
        .bind(organization_id.0)
        .bind(i64::try_from(source.size).unwrap_or(i64::MAX))
        .bind(source.sha256.clone())
        .bind(now)
        .execute()
        .await?;
    exists(database, project_id, source.id).await
}

/// Whether the project has this upload.
pub(crate) async fn exists(database: &Database, project_id: ProjectId, id: Uuid) -> Result<bool, Error> {
    let found: Option<(i64,)> = database
        .query("SELECT size FROM sources WHERE id = $1 AND project_id = $2")
        .bind(id)
        .bind(project_id.0)
        .fetch_optional()
        .await?;
    Ok(found.is_some())
}

/// Forgets all but the newest `keep` uploads of a project and answers their ids.
pub(crate) async fn forget_old(database: &Database, project_id: ProjectId, keep: u32) -> Result<Vec<Uuid>, Error> {
    let rows: Vec<(Uuid,)> = database
        .query(
            "DELETE FROM sources WHERE project_id = $1 AND id NOT IN
                (SELECT id FROM sources WHERE project_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2)
             RETURNING id",
        )
        .bind(project_id.0)
        .bind(i64::from(keep))
        .fetch_all()
        .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}
