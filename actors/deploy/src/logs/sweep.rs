//! The sweep of logs and build caches on a node's own disk. Each node sweeps its own: retention reaches the object store and one disk only,
//! and an app that another node owns by now leaves its lines here.

use std::path::Path;

use callboard_messages::{DeploymentId, Failure, ProjectId};
use callboard_supervisors::warn_unless_outage;

use crate::{
    context::Context,
    store::{apps, deployments},
    world::World,
};

/// Sweeps at an interval for as long as the node runs.
pub(crate) async fn run(context: &Context) {
    loop {
        if let Err(failure) = sweep(context).await {
            warn_unless_outage!(failure.is_outage(), %failure, "sweeping the logs on this node's disk failed; retrying");
        }
        context.clock.sleep(context.settings.disk_swept_every).await;
    }
}

/// Removes the lines of apps that are gone, or another node's by now, and of deployments whose log is no longer kept.
/// What is open here stays for now.
async fn sweep(context: &Context) -> Result<(), Failure> {
    let (settings, me) = (&context.settings, context.nodes.me());
    for id in context.journals.on_disk(Path::new(World::APP_LOGS)).await?.into_iter().map(ProjectId) {
        let app = apps::get(&context.database, id).await?;
        // Of an app that nobody runs the last owner keeps what it has.
        if app.as_ref().is_some_and(|app| app.owner_node.is_none_or(|owner| owner == me)) {
            continue;
        }
        let name = World::app_log(id);
        if app.is_some() && !context.journals.store_local(&name, settings.app_log_bytes).await? {
            continue;
        }
        context.journals.remove_local(&name, settings.app_log_bytes).await?;
    }
    for id in context.journals.on_disk(Path::new(World::DEPLOYMENT_LOGS)).await?.into_iter().map(DeploymentId) {
        if !deployments::keeps_log(&context.database, id, settings.build_logs_kept).await? {
            context.journals.remove_local(&World::deployment_log(id), settings.build_log_bytes).await?;
        }
    }
    // An app that is gone may have been built here, and removed by another node.
    let cached = context.caches.projects().await.map_err(|error| Failure::Internal(error.to_string()))?;
    for id in cached {
        if apps::get(&context.database, id).await?.is_none() {
            context.caches.remove(id).await.map_err(|error| Failure::Internal(error.to_string()))?;
        }
    }
    Ok(())
}
