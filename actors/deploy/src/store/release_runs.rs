//! Runs of the release command of a deployment: begun and ended in the name of the app's owner, so that one that has lost the
//! app to another node begins none and ends none.

use callboard_messages::{DeploymentId, ProjectId};
use callboard_supervisors::db::{Database, Error};

use super::owners::{self, Owner};

/// What is left to do of the release command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReleaseRun {
    /// It has succeeded before, for this deployment.
    Done,
    /// It runs now, for the so manieth time: more than once only when its node went down or stopped.
    Begun(i64),
    /// The deployment has ended, or the app is another node's.
    Lost,
}

/// Begins a run, unless the command has succeeded already.
pub(crate) async fn begin(
    database: &Database,
    (project_id, owner): (ProjectId, Owner),
    id: DeploymentId,
) -> Result<ReleaseRun, Error> {
    let mut transaction = database.begin().await?;
    if !owners::fence(&mut transaction, project_id, owner).await? {
        return Ok(ReleaseRun::Lost);
    }
    let row: Option<(bool, i64)> = transaction
        .query(
            "UPDATE deployments SET release_runs = CASE WHEN released THEN release_runs ELSE release_runs + 1 END
             WHERE id = $1 AND status = 'rolling' RETURNING released, release_runs",
        )
        .bind(id)
        .fetch_optional()
        .await?;
    transaction.commit().await?;
    Ok(match row {
        None => ReleaseRun::Lost,
        Some((true, _)) => ReleaseRun::Done,
        Some((false, runs)) => ReleaseRun::Begun(runs),
    })
}

/// The command has succeeded. False when the deployment has ended meanwhile, or the app is another node's.
pub(crate) async fn succeeded(
    database: &Database,
    (project_id, owner): (ProjectId, Owner),
    id: DeploymentId,
) -> Result<bool, Error> {
    let mut transaction = database.begin().await?;
    if !owners::fence(&mut transaction, project_id, owner).await? {
        return Ok(false);
    }
    let changed = transaction
        .query("UPDATE deployments SET released = TRUE WHERE id = $1 AND status = 'rolling'")
        .bind(id)
        .execute()
        .await?;
    transaction.commit().await?;
    Ok(changed > 0)
}
