//! Uploaded archives.

use callboard_messages::{OrganizationId, ProjectId, deploy::Source};
use callboard_supervisors::db::{Database, Error, Transaction};
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
        .bind(project_id)
        .bind(organization_id)
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
        .query("SELECT size FROM sources WHERE id = $1 AND project_id = $2 AND NOT forgotten")
        .bind(id)
        .bind(project_id)
        .fetch_optional()
        .await?;
    Ok(found.is_some())
}

/// The same in a transaction that holds the app: then it stays for the deployment that begins with it.
pub(crate) async fn exists_in(transaction: &mut Transaction, project_id: ProjectId, id: Uuid) -> Result<bool, Error> {
    let found: Option<(i64,)> = transaction
        .query("SELECT size FROM sources WHERE id = $1 AND project_id = $2 AND NOT forgotten")
        .bind(id)
        .bind(project_id)
        .fetch_optional()
        .await?;
    Ok(found.is_some())
}

/// Takes all but the newest `keep` uploads of a project, and the one that a deployment is to be built of, out of use; answers
/// those whose objects may still be there. The transaction holds the app.
pub(crate) async fn forget_old(
    transaction: &mut Transaction,
    project_id: ProjectId,
    keep: u32,
    in_use: Option<Uuid>,
) -> Result<Vec<Uuid>, Error> {
    transaction
        .query(
            "UPDATE sources SET forgotten = TRUE WHERE project_id = $1 AND NOT forgotten AND id <> $3 AND id NOT IN
                (SELECT id FROM sources WHERE project_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2)",
        )
        .bind(project_id)
        .bind(i64::from(keep))
        .bind(in_use.unwrap_or_default())
        .execute()
        .await?;
    let rows: Vec<(Uuid,)> = transaction
        .query("SELECT id FROM sources WHERE project_id = $1 AND forgotten ORDER BY id")
        .bind(project_id)
        .fetch_all()
        .await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// The object of an upload that was taken out of use is gone.
pub(crate) async fn erase(database: &Database, id: Uuid) -> Result<(), Error> {
    database.query("DELETE FROM sources WHERE id = $1 AND forgotten").bind(id).execute().await?;
    Ok(())
}
