//! What a node does about the others: it looks for apps and builds that nobody looks after any more, takes note of what
//! is no longer its own, and passes on what it has when it stops.
//!
//! A nudge and a change of the membership only make it look sooner: whatever is lost on the way is found in a second.

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

const LOOKED_EVERY: Duration = Duration::from_secs(1);
/// While others take over what this node has.
const LOOKED_WHILE_LEAVING: Duration = Duration::from_millis(200);

/// Looks for as long as the node runs.
pub(crate) async fn watch(context: &Context) {
    let (mut members, life) = (context.nodes.watch(), context.life());
    let mut nudges = context.live.subscribe(NUDGES, None);
    loop {
        if let Err(failure) = look(context).await {
            warn_unless_outage!(failure.is_outage(), %failure, "the apps of all nodes could not be looked at; trying again");
        }
        let leaves = context.is_leaving();
        let tick = context.clock.sleep(if leaves { LOOKED_WHILE_LEAVING } else { LOOKED_EVERY });
        tokio::pin!(tick);
        loop {
            tokio::select! {
                () = &mut tick => break,
                () = members.changed() => break,
                () = life.leaving.cancelled(), if !leaves => break,
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

/// Another node says that it is worth a look.
async fn follow(context: &Context, event: &LiveEvent) {
    let Ok(nudge) = serde_json::from_value::<Nudge>(event.data.clone()) else { return };
    if nudge.node == context.nodes.me() {
        return;
    }
    match nudge.project_id {
        Some(project_id) => {
            context.stage.wake(project_id);
            if let Err(failure) = drop_lost_work(context).await {
                tracing::debug!(%failure, "what is no longer this node's is looked for again in a second");
            }
        }
        None => context.queued.notify_one(),
    }
}

async fn look(context: &Context) -> Result<(), Failure> {
    let mut known = Vec::new();
    for (row, rolling) in owners::charges(&context.database).await? {
        known.push(row.project_id);
        if needs_a_look(context, &row, rolling) {
            context.stage.wake(row.project_id);
        }
        if context.is_leaving() && row.owner_node == Some(context.nodes.me()) && !row.offered {
            offer(context, &row).await?;
        }
    }
    let is_last = context.is_leaving() && !context.nodes.has_heirs();
    for app in context.stage.all() {
        if is_last {
            app.hold_no_more();
        }
        if !known.contains(&app.project_id) {
            app.wake();
        }
    }
    requeue::of_gone_nodes(context).await?;
    drop_lost_work(context).await?;
    if steps::is_queued(&context.database).await? || requeue::has_orphaned(context).await? {
        context.queued.notify_one();
    }
    Ok(())
}

/// Whether this node has to do something about the app that it does not know of yet, or might have to.
fn needs_a_look(context: &Context, row: &AppRow, rolling: Option<DeploymentId>) -> bool {
    let me = context.nodes.me();
    if let Some(app) = context.stage.get(row.project_id) {
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

/// This node stops: another one may get ready to run the app.
async fn offer(context: &Context, row: &AppRow) -> Result<(), Failure> {
    let owner = Owner { node: context.nodes.me(), token: row.owner_token };
    if context.nodes.has_heirs() && owners::offer(&context.database, row.project_id, owner).await? {
        context.wake(row.project_id);
    }
    Ok(())
}

/// Ends the builds and rollouts here that were cancelled on another node, or are another node's by now.
async fn drop_lost_work(context: &Context) -> Result<(), Failure> {
    for (id, work) in context.under_way.all() {
        if !is_ours(context, id, work).await? {
            context.under_way.cancel_work(id, work);
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
                // Its builder has just told so.
                Work::Build => deployment.builder_node == me,
                Work::Rollout => app.owner_node == me,
            },
            DeploymentStatus::Queued | DeploymentStatus::Failed | DeploymentStatus::Cancelled => false,
        })
}
