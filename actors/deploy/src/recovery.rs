//! What happens once at the start of a node, whatever ended its life before.
//!
//! What was left running is ended. Builds that were interrupted are queued again, unless the node went down during
//! them before: then the build may be why. Rollouts and everything that shall run are taken up by the apps' actors,
//! which read the store. So nothing stays in progress for ever.

use std::{fs, io, time::Duration};

use callboard_messages::{Failure, ProjectId, deploy::DeploymentStatus};
use uuid::Uuid;

use crate::{
    context::Context,
    store::{
        apps::{self, AppState},
        deployments,
    },
};

/// How often a build is begun that the node's end interrupts.
const ATTEMPTS_MAXIMUM: i64 = 2;
const RETRY_AFTER: Duration = Duration::from_secs(1);
const LOOKED_AGAIN_AFTER: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(1_000), Duration::from_millis(5_000)];
const PAGE: u32 = 500;

/// Recovers, and tries again until it has. A second call does nothing.
pub(crate) async fn run(context: &Context) {
    if *context.recovered.borrow() {
        return;
    }
    let orphans = context.runtime.end_orphans().await;
    if !orphans.is_empty() {
        let processes: usize = orphans.iter().map(|orphan| orphan.processes).sum();
        tracing::warn!(processes, "processes of an earlier life of this node were ended");
    }
    while let Err(failure) = recover(context).await {
        tracing::warn!(%failure, "the node's apps could not be recovered yet; trying again");
        context.clock.sleep(RETRY_AFTER).await;
    }
    context.recovered.send_replace(true);
    context.queued.notify_one();
}

/// Looks for orphans again for a while after the start: a process that was just being started when the node ended shows
/// what it is only once it runs.
pub(crate) async fn look_again(context: &Context) {
    for wait in LOOKED_AGAIN_AFTER {
        context.clock.sleep(wait).await;
        context.runtime.end_orphans().await;
    }
}

async fn recover(context: &Context) -> Result<(), Failure> {
    let folders = [context.work_folder(), context.instance_folder()];
    let emptied = context.archives.run(None, move || folders.iter().try_for_each(|folder| empty(folder)));
    emptied.await?.map_err(|error| Failure::Internal(format!("the folder of work in progress: {error}")))?;

    for (id, _, attempts) in deployments::standing(&context.database, DeploymentStatus::Building).await? {
        if attempts >= ATTEMPTS_MAXIMUM {
            let sentence = "the node went down twice while it built this app, so it does not try again; \
                            deploy again, or look at what the build needs";
            context.fail(id, sentence).await?;
        } else if deployments::requeue(&context.database, id).await? {
            context.deployment_log(id).heading("The node was started anew; building again");
        }
    }

    let mut after = ProjectId(Uuid::nil());
    loop {
        let page = apps::page(&context.database, after, PAGE).await?;
        for app in &page {
            let running = deployments::running(&context.database, app.project_id).await?;
            if app.state != AppState::Removed {
                context.set_idle_route(app, running.is_some());
            }
            let rolling = running.is_some_and(|(_, status)| status == DeploymentStatus::Rolling);
            if rolling || (app.state == AppState::Running && app.serving.is_some()) {
                context.stage.wake(app.project_id);
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE as usize => after = last.project_id,
            _ => return Ok(()),
        }
    }
}

fn empty(folder: &std::path::Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(folder)
}
