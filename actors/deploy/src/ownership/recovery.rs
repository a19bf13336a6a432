//! Recovery at the start of a node, and of each lifecycle of the domain on it.
//!
//! Orphaned processes are ended. Interrupted builds of this node are requeued, unless a node crashed during them before:
//! then the build may be the cause. Builds and apps of other nodes stay theirs, until those are gone. Rollouts and desired
//! instances are taken up by the apps' actors, which read the store.

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
const LATE_ORPHANS_AFTER: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(1_000), Duration::from_millis(5_000)];
const PAGE: u32 = 500;

/// Recovers, with retries. A second call within a lifecycle does nothing.
pub(crate) async fn run(context: &Context) {
    let lifecycle = context.lifecycle();
    if *lifecycle.recovered.borrow() {
        return;
    }
    let orphans = context.runtime.end_orphans().await;
    if !orphans.is_empty() {
        let processes: usize = orphans.iter().map(|orphan| orphan.processes).sum();
        tracing::warn!(processes, "ended orphaned processes of an earlier run of this node");
    }
    let attempt = async || recover(context).await;
    retry_forever(&context.clock, Backoff::constant(RETRY_AFTER), attempt, |failure, _| {
        warn_unless_outage!(failure.is_outage(), %failure, "recovering builds and apps failed; retrying");
    })
    .await;
    lifecycle.recovered.send_replace(true);
    context.queued.notify_one();
}

/// Ends orphans that show up after the start: a process that was being started when the node ended carries its marks only
/// once it runs.
pub(crate) async fn end_late_orphans(context: &Context) {
    for wait in LATE_ORPHANS_AFTER {
        context.clock.sleep(wait).await;
        context.runtime.end_orphans().await;
    }
}

async fn recover(context: &Context) -> Result<(), Failure> {
    let emptied = empty(context).await;
    emptied.map_err(|error| Failure::Internal(format!("the folder of work in progress: {error}")))?;

    let me = context.nodes.me();
    for build in steps::builds(&context.database).await? {
        // Claimed by an earlier run of this node, or by a version that knew of no other nodes.
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

/// Empties the folders of work in progress and of instances.
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
