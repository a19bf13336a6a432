//! The watcher scans the store for apps and builds without an owner or whose owner is gone, cancels work that this node has
//! lost, and offers this node's apps to standbys when it drains.
//!
//! A nudge and a change of the membership only make the next scan sooner: a lost nudge costs a second.

use std::time::Duration;

use callboard_messages::{DeploymentId, Failure, deploy::DeploymentStatus};
use callboard_supervisors::{LiveEvent, warn_unless_outage};
use futures_util::StreamExt;

use crate::{
    build::requeue,
    context::{Context, NUDGES, Nudge},
    ownership::work::Work,
    store::{
        apps::{self, AppRow},
        deployments,
        owners::{self, Owner},
        steps,
    },
};

const SCAN_INTERVAL: Duration = Duration::from_secs(1);
/// Interval while other nodes take over.
const SCAN_INTERVAL_DRAINING: Duration = Duration::from_millis(200);

/// Scans for as long as the node runs.
pub(crate) async fn run(context: &Context) {
    let (mut members, lifecycle) = (context.nodes.watch(), context.lifecycle());
    let mut nudges = context.live.subscribe(NUDGES, None);
    loop {
        if let Err(failure) = scan(context).await {
            warn_unless_outage!(failure.is_outage(), %failure, "scanning for apps without an owner failed; retrying");
        }
        let draining = context.is_draining();
        let tick = context.clock.sleep(if draining { SCAN_INTERVAL_DRAINING } else { SCAN_INTERVAL });
        tokio::pin!(tick);
        loop {
            tokio::select! {
                () = &mut tick => break,
                () = members.changed() => break,
                () = lifecycle.draining.cancelled(), if !draining => break,
                nudge = nudges.next() => match nudge {
                    Some(Ok(event)) => follow(context, &event).await,
                    Some(Err(_)) => break,
                    None => {
                        nudges = context.live.subscribe(NUDGES, None);
                        break;
                    }
                },
            }
        }
    }
}

/// A nudge of another node.
async fn follow(context: &Context, event: &LiveEvent) {
    let Ok(nudge) = serde_json::from_value::<Nudge>(event.data.clone()) else { return };
    if nudge.node == context.nodes.me() {
        return;
    }
    match nudge.project_id {
        Some(project_id) => {
            context.apps.wake(project_id);
            if let Err(failure) = cancel_lost_work(context).await {
                tracing::debug!(%failure, "cancelling lost builds and rollouts failed; the next scan retries");
            }
        }
        None => context.queued.notify_one(),
    }
}

async fn scan(context: &Context) -> Result<(), Failure> {
    let mut known = Vec::new();
    for (row, rolling) in owners::candidates(&context.database).await? {
        known.push(row.project_id);
        if needs_wake(context, &row, rolling) {
            context.apps.wake(row.project_id);
        }
        if context.is_draining() && row.owner_node == Some(context.nodes.me()) && !row.offered {
            offer(context, &row).await?;
        }
    }
    let is_last = context.is_draining() && !context.nodes.can_hand_over();
    for app in context.apps.all() {
        if is_last {
            app.release_hold();
        }
        if !known.contains(&app.project_id) {
            app.wake();
        }
    }
    requeue::of_gone_nodes(context).await?;
    cancel_lost_work(context).await?;
    if steps::is_queued(&context.database).await? || requeue::has_orphaned(context).await? {
        context.queued.notify_one();
    }
    Ok(())
}

/// Whether the app's actor on this node must be woken or started.
fn needs_wake(context: &Context, row: &AppRow, rolling: Option<DeploymentId>) -> bool {
    let me = context.nodes.me();
    if let Some(app) = context.apps.get(row.project_id) {
        let Some(owner) = app.owner() else { return true };
        if !row.is_owned_by(owner) {
            app.lose(owner);
        }
        return !app.has_seen(row.revision, rolling);
    }
    match row.owner_node {
        Some(node) if node == me => true,
        Some(node) => row.offered || context.nodes.is_gone(node, context.clock.instant()),
        None => row.is_wanted() || rolling.is_some(),
    }
}

/// Offers an app of this draining node to a standby.
async fn offer(context: &Context, row: &AppRow) -> Result<(), Failure> {
    let owner = Owner { node: context.nodes.me(), token: row.owner_token };
    if context.nodes.can_hand_over() && owners::offer(&context.database, row.project_id, owner).await? {
        context.wake(row.project_id);
    }
    Ok(())
}

/// Cancels the builds and rollouts here that were cancelled on another node, or are another node's by now.
async fn cancel_lost_work(context: &Context) -> Result<(), Failure> {
    for (id, work) in context.work.all() {
        if !is_ours(context, id, work).await? {
            context.work.cancel_work(id, work);
        }
    }
    Ok(())
}

async fn is_ours(context: &Context, id: DeploymentId, work: Work) -> Result<bool, Failure> {
    let Some(deployment) = deployments::get(&context.database, id).await? else { return Ok(false) };
    let me = Some(context.nodes.me());
    let Some(app) = apps::get(&context.database, deployment.project_id).await? else { return Ok(false) };
    Ok(!app.is_removed()
        && match deployment.status {
            DeploymentStatus::Building => work == Work::Build && deployment.builder_node == me,
            DeploymentStatus::Rolling | DeploymentStatus::Completed => match work {
                // The builder itself has just completed the build.
                Work::Build => deployment.builder_node == me,
                Work::Rollout => app.owner_node == me,
            },
            DeploymentStatus::Queued | DeploymentStatus::Failed | DeploymentStatus::Cancelled => false,
        })
}
