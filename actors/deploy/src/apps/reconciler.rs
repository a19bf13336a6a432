//! The actor of an app: makes what runs be what the store wants.
//!
//! It takes no input: a wake only says that it is worth a look, and each pass reads the store anew.

use std::{sync::Arc, time::Duration};

use callboard_messages::{Failure, deploy::DeploymentStatus};
use callboard_supervisors::{ChildContext, ChildSpec, Exit, Restart, SupervisorRef, warn_unless_outage};

use super::{App, removal, rollout};
use crate::{
    context::Context,
    ownership::{
        claim::{self, Ownership},
        handover::{relinquish, take_over},
    },
    store::{
        apps::{self, AppState},
        deployments,
    },
    world::idle_state,
};

/// Pause after a failed pass.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The app's actor.
pub(super) fn actor(context: Context, app: Arc<App>) -> ChildSpec {
    ChildSpec::new("app", move |child: ChildContext| run(context.clone(), app.clone(), child))
        .restart(Restart::Transient)
}

async fn run(context: Context, app: Arc<App>, child: ChildContext) -> Exit {
    let lifecycle = context.lifecycle();
    tokio::select! {
        biased;
        () = child.stopping() => {}
        // Instances stop by themselves at the node's stop, and nothing replaces them.
        () = lifecycle.closing.cancelled() => child.stopping().await,
        () = reconcile_forever(&context, &app, &child.supervisor) => {}
    }
    Exit::Shutdown
}

/// One pass after each wake, and after a pause when a pass failed.
async fn reconcile_forever(context: &Context, app: &Arc<App>, supervisor: &SupervisorRef) {
    loop {
        let outcome = tokio::select! {
            biased;
            () = app.lost.notified() => continue,
            outcome = reconcile(context, app, supervisor) => outcome,
        };
        let retry = async {
            match &outcome {
                Ok(()) => std::future::pending().await,
                Err(failure) => {
                    warn_unless_outage!(failure.is_outage(), app = %app.name, %failure, "reconciling the app failed; retrying");
                    context.clock.sleep(RETRY_AFTER).await;
                }
            }
        };
        tokio::select! {
            () = app.woken.notified() => {}
            () = retry => {}
        }
    }
}

/// One pass: brings what runs one step closer to what is desired. Whatever changes on the way wakes the actor again.
async fn reconcile(context: &Context, app: &Arc<App>, supervisor: &SupervisorRef) -> Result<(), Failure> {
    let wakes = app.wakes();
    app.forget_ended(supervisor).await;
    app.log_notice().await;
    let Some(row) = apps::get(&context.database, app.project_id).await? else {
        return relinquish(context, app, None, wakes).await;
    };
    let running = deployments::running(&context.database, app.project_id).await?;
    let rolling = running.filter(|(_, status)| *status == DeploymentStatus::Rolling).map(|(id, _)| id);
    *app.seen.lock() = (row.revision, rolling);
    let owner = match app.ownership() {
        Ownership::Owner(owner) if row.is_owned_by(owner) => owner,
        Ownership::Standby(from) if row.is_owned_by(from) && row.standby_node == Some(context.nodes.me()) => {
            return take_over(context, app, supervisor, &row, from).await;
        }
        _ => match claim::acquire(context, &row, rolling.is_some()).await? {
            Some(acquired) => {
                app.set_ownership(acquired);
                app.wake();
                return Ok(());
            }
            None => return relinquish(context, app, Some(&row), wakes).await,
        },
    };
    if row.state == AppState::Removed {
        app.retire_at_once(context);
        if app.instances().is_empty() && removal::finish(context, app.project_id, owner).await? {
            context.routes.remove(&app.name);
            context.nudge_routers();
            context.apps.idle(app, wakes);
        }
        return Ok(());
    }
    app.set_idle(context, idle_state(&row, running.is_some()));
    let target = if row.state == AppState::Running { app.serving(context, &row).await? } else { None };

    if let Some(id) = rolling {
        // After a start of the node no instance runs: the serving release comes back first.
        if let Some(target) = target.as_ref().filter(|_| app.instances().is_empty()) {
            rollout::start_missing(context, app, supervisor, target, &row.shown_formation().processes).await?;
        }
        rollout::roll(context, app, supervisor, (&row, owner), id).await?;
        app.wake();
        return Ok(());
    }
    match target {
        Some(target) => {
            rollout::converge(context, app, supervisor, &target, &row.shown_formation().processes).await?;
        }
        None => app.retire(context, |_| true),
    }
    if app.instances().is_empty() && !row.is_wanted() {
        context.apps.idle(app, wakes);
    }
    Ok(())
}
