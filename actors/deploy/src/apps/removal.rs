//! The removal of an app whose project is deleted. Every step is idempotent, and the row goes last: after a takeover the new
//! owner finds what is left to do.

use std::time::Duration;

use callboard_messages::{Caller, Failure, ProjectId, deploy::DeploymentStatus};

use crate::{
    apps::retention,
    context::Context,
    ownership::work::Work,
    store::{
        apps, deployments,
        owners::{self, Owner},
        steps::{self, Author},
    },
};

const LOOKED_EVERY: Duration = Duration::from_millis(20);

/// Removes all that is left of an app of which nothing runs any more. False when the app is no longer this node's.
pub(crate) async fn finish(context: &Context, project_id: ProjectId, owner: Owner) -> Result<bool, Failure> {
    if let Some((id, _)) = deployments::running(&context.database, project_id).await? {
        let (caller, cancelled, now) = (Caller::system(), DeploymentStatus::Cancelled, context.clock.now());
        steps::end(&context.database, &caller, Author::Anyone, id, cancelled, None, now).await?;
        context.work.cancel(id);
        // A builder elsewhere finds that nothing is its own any more.
        while context.work.has(id, Work::Build) {
            context.clock.sleep(LOOKED_EVERY).await;
        }
    }
    retention::everything(context, project_id).await?;
    context.caches.remove(project_id).await.map_err(|error| Failure::Internal(format!("the build caches: {error}")))?;
    let mut transaction = context.database.begin().await?;
    if !owners::fence(&mut transaction, project_id, owner).await? {
        return Ok(false);
    }
    apps::erase(&mut transaction, project_id).await?;
    transaction.commit().await?;
    Ok(true)
}
