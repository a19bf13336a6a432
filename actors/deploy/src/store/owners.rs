//! The owner of an app. Each change of owner raises the fencing token, and every write of an owner names it: a former owner
//! that is still running changes nothing any more.

use callboard_messages::{DeploymentId, ProjectId};
use callboard_supervisors::db::{Database, Error, Transaction};
use uuid::Uuid;

use super::apps::{self, AppRow};

/// The owner of an app, with its fencing token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) node: Uuid,
    pub(crate) token: i64,
}

impl AppRow {
    /// Whether the row still says so.
    pub(crate) fn is_owned_by(&self, owner: Owner) -> bool {
        self.owner_node == Some(owner.node) && self.owner_token == owner.token
    }
}

/// Makes `node` the owner, if owner and desired formation are still as they were read.
pub(crate) async fn claim(transaction: &mut Transaction, read: &AppRow, node: Uuid) -> Result<Option<Owner>, Error> {
    let row: Option<(i64,)> = transaction
        .query(
            "UPDATE apps SET owner_node = $4, owner_token = owner_token + 1, offered = FALSE, heir_node = NULL
             WHERE project_id = $1 AND owner_token = $2 AND revision = $3 RETURNING owner_token",
        )
        .bind(read.project_id)
        .bind(read.owner_token)
        .bind(read.revision)
        .bind(node)
        .fetch_optional()
        .await?;
    Ok(row.map(|(token,)| Owner { node, token }))
}

/// The owner has nothing more to run. The token grows here too, so that one who is about to claim the app of an owner
/// that it thinks dead reads the row again.
pub(crate) async fn release(database: &Database, project_id: ProjectId, owner: Owner) -> Result<bool, Error> {
    let changed = database
        .query(
            "UPDATE apps SET owner_node = NULL, owner_token = owner_token + 1, offered = FALSE, heir_node = NULL
             WHERE project_id = $1 AND owner_node = $2 AND owner_token = $3",
        )
        .bind(project_id)
        .bind(owner.node)
        .bind(owner.token)
        .execute()
        .await?;
    Ok(changed > 0)
}

/// Nothing runs on the node any more: whatever it owned is free.
pub(crate) async fn release_all(database: &Database, node: Uuid) -> Result<(), Error> {
    database
        .query(
            "UPDATE apps SET owner_node = NULL, owner_token = owner_token + 1, offered = FALSE, heir_node = NULL
             WHERE owner_node = $1",
        )
        .bind(node)
        .execute()
        .await?;
    Ok(())
}

/// The owner stops, and runs the app until another node is ready to.
pub(crate) async fn offer(database: &Database, project_id: ProjectId, owner: Owner) -> Result<bool, Error> {
    let changed = database
        .query("UPDATE apps SET offered = TRUE WHERE project_id = $1 AND owner_node = $2 AND owner_token = $3")
        .bind(project_id)
        .bind(owner.node)
        .bind(owner.token)
        .execute()
        .await?;
    Ok(changed > 0)
}

/// Makes `standby` the one node that prepares to take over an app that is offered.
pub(crate) async fn stand_by(database: &Database, read: &AppRow, standby: Uuid) -> Result<bool, Error> {
    let changed = database
        .query(
            "UPDATE apps SET heir_node = $3 WHERE project_id = $1 AND owner_token = $2 AND offered
               AND (heir_node IS NULL OR heir_node = $4)",
        )
        .bind(read.project_id)
        .bind(read.owner_token)
        .bind(standby)
        .bind(read.standby_node)
        .execute()
        .await?;
    Ok(changed > 0)
}

/// Holds the row for the rest of the transaction, if the owner still is the owner.
pub(crate) async fn fence(transaction: &mut Transaction, project_id: ProjectId, owner: Owner) -> Result<bool, Error> {
    let held = transaction
        .query(
            "UPDATE apps SET owner_token = owner_token
             WHERE project_id = $1 AND owner_node = $2 AND owner_token = $3",
        )
        .bind(project_id)
        .bind(owner.node)
        .bind(owner.token)
        .execute()
        .await?;
    Ok(held > 0)
}

#[derive(sqlx::FromRow)]
struct CandidateRow {
    #[sqlx(flatten)]
    app: apps::Row,
    rolling: Option<DeploymentId>,
}

/// The apps that have an owner or may need one, with the deployment that rolls.
pub(crate) async fn candidates(database: &Database) -> Result<Vec<(AppRow, Option<DeploymentId>)>, Error> {
    let rows: Vec<CandidateRow> = database
        .query(
            "SELECT a.project_id, a.organization_id, a.name, a.release_id, a.environment_version, a.deployment_id,
                    a.formation, a.missing, a.state, a.revision, a.owner_node, a.owner_token, a.offered, a.heir_node,
                    d.id AS rolling
             FROM apps AS a LEFT JOIN deployments AS d ON d.project_id = a.project_id AND d.status = 'rolling'
             WHERE a.owner_node IS NOT NULL OR d.id IS NOT NULL OR a.state = 'removed'
                OR (a.state = 'running' AND a.release_id IS NOT NULL)",
        )
        .fetch_all()
        .await?;
    Ok(rows.into_iter().map(|row| (AppRow::from(row.app), row.rolling)).collect())
}
