//! What happens once at the start of a node, and of each life of the domain on it, whatever ended the one before.
//!
//! What was left running here is ended. Builds of this node that were interrupted are queued again, unless a node went
//! down during them before: then the build may be why. What other nodes have is theirs, until they are gone. Rollouts
//! and everything that shall run are taken up by the apps' actors, which read the store. So nothing stays in progress
//! for ever.

use std::time::Duration;

use callboard_messages::{Failure, ProjectId};
use callboard_supervisors::{Backoff, retry_forever, warn_unless_outage};
use uuid::Uuid;

use crate::{
    build::requeue,
    context::Context,
    folder, pools,
    store::{
        apps::{self, AppState},
        deployments, steps,
    },
};

const RETRY_AFTER: Duration = Duration::from_secs(1);
const LOOKED_AGAIN_AFTER: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(1_000), Duration::from_millis(5_000)];
const PAGE: u32 = 500;

/// Recovers, and tries again until it has. A second call does nothing.
pub(crate) async fn run(context: &Context) {
    let life = context.life();
    if *life.recovered.borrow() {
        return;
    }
    let orphans = context.runtime.end_orphans().await;
    if !orphans.is_empty() {
        let processes: usize = orphans.iter().map(|orphan| orphan.processes).sum();
        tracing::warn!(processes, "processes of an earlier life of this node were ended");
    }
    let attempt = async || recover(context).await;
    retry_forever(&context.clock, Backoff::constant(RETRY_AFTER), attempt, |failure, _| {
        warn_unless_outage!(failure.is_outage(), %failure, "the node's apps could not be recovered yet; trying again");
    })
    .await;
    life.recovered.send_replace(true);
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
    let emptied = empty(context).await;
    emptied.map_err(|error| Failure::Internal(format!("the folder of work in progress: {error}")))?;

    let me = context.nodes.me();
    for build in steps::builds(&context.database).await? {
        // Of an earlier life of this node, or of a program that knew of no other nodes.
        if build.node.is_none_or(|node| node == me) {
            requeue::after_crash(context, build, "The node was started anew; building again").await?;
        }
    }

    let mut after = ProjectId(Uuid::nil());
    loop {
        let page = apps::page(&context.database, after, PAGE).await?;
        for app in &page {
            let running = deployments::running(&context.database, app.project_id).await?;
            if app.state != AppState::Removed && app.owner_node.is_none_or(|node| node == me) {
                context.set_idle_route(app, running.is_some());
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE as usize => after = last.project_id,
            _ => return Ok(()),
        }
    }
}

/// Nothing that an earlier life was about is there any more.
async fn empty(context: &Context) -> std::io::Result<()> {
    let folders = [context.work_folder(), context.instance_folder()];
    for folder in &folders {
        context.trash.discard(folder).await?;
    }
    context.trash.empty();
    let all = context.settings.folder.clone();
    pools::io(&context.pools.prompt, move || {
        folder::make_passable(&all)?;
        folders.iter().try_for_each(|folder| folder::make_passable(folder))
    })
    .await
}
