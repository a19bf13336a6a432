//! The generation of an app's build caches: one number for all nodes, each of which has caches of its own.

use callboard_messages::ProjectId;
use callboard_supervisors::db::{Database, Error};

/// The generation whose caches may be used.
pub(crate) async fn generation(database: &Database, project_id: ProjectId) -> Result<i64, Error> {
    let row: Option<(i64,)> = database
        .query("SELECT cache_generation FROM apps WHERE project_id = $1")
        .bind(project_id)
        .fetch_optional()
        .await?;
    Ok(row.map_or(0, |(generation,)| generation))
}

/// Begins the next generation: no build uses the caches of those before.
pub(crate) async fn clear(database: &Database, project_id: ProjectId) -> Result<(), Error> {
    database
        .query("UPDATE apps SET cache_generation = cache_generation + 1 WHERE project_id = $1")
        .bind(project_id)
        .execute()
        .await?;
    Ok(())
}
