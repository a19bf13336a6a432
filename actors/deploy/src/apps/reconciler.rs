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
        claim::{self, Standing},
        handover::{give_up, succeed},
    },
    store::{
        apps::{self, AppState},
        deployments,
    },
    world::idle_state,
};

/// How long the actor waits after the store or another domain could not be asked.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The app's actor.
pub(super) fn actor(context: Context, app: Arc<App>) -> ChildSpec {
    ChildSpec::new("app", move |child: ChildContext| run(context.clone(), app.clone(), child))
        .restart(Restart::Transient)
}

async fn run(context: Context, app: Arc<App>, child: ChildContext) -> Exit {
    let life = context.life();
    tokio::select! {
        biased;
        () = child.stopping() => {}
        // What runs ends by itself, and nothing is to take its place.
        () = life.closing.cancelled() => child.stopping().await,
        () = look_after(&context, &app, &child.supervisor) => {}
    }
    Exit::Shutdown
}

/// Pass after pass, for as long as it is polled.
async fn look_after(context: &Context, app: &Arc<App>, supervisor: &SupervisorRef) {
    loop {
        let outcome = tokio::select! {
            biased;
            () = app.lost.notified() => continue,
            outcome = pass(context, app, supervisor) => outcome,
        };
        let retry = async {
            match &outcome {
                Ok(()) => std::future::pending().await,
                Err(failure) => {
                    warn_unless_outage!(failure.is_outage(), app = %app.name, %failure, "an app could not be looked after; trying again");
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

/// Brings what runs and what is wanted one step closer; whatever changes on the way wakes the actor again.
async fn pass(context: &Context, app: &Arc<App>, supervisor: &SupervisorRef) -> Result<(), Failure> {
    let wakes = app.wakes();
    app.forget_ended(supervisor).await;
    app.tell_news().await;
    let Some(row) = apps::get(&context.database, app.project_id).await? else {
        return give_up(context, app, None, wakes).await;
    };
    let running = deployments::running(&context.database, app.project_id).await?;
    let rolling = running.filter(|(_, status)| *status == DeploymentStatus::Rolling).map(|(id, _)| id);
    *app.seen.lock() = (row.revision, rolling);
    let owner = match app.standing() {
        Standing::Owner(owner) if row.is_owned_by(owner) => owner,
        Standing::Heir(from) if row.is_owned_by(from) && row.heir_node == Some(context.nodes.me()) => {
            return succeed(context, app, supervisor, &row, from).await;
        }
        _ => match claim::take_on(context, &row, rolling.is_some()).await? {
            Some(taken) => {
                app.take(taken);
                app.wake();
                return Ok(());
            }
            None => return give_up(context, app, Some(&row), wakes).await,
        },
    };
    if row.state == AppState::Removed {
        app.retire_at_once(context);
        if app.instances().is_empty() && removal::finish(context, app.project_id, owner).await? {
            context.routes.remove(&app.name);
            context.nudge_routers();
            context.stage.rest(app, wakes);
        }
        return Ok(());
    }
    app.set_idle(context, idle_state(&row, running.is_some()));
    let target = if row.state == AppState::Running { app.serving(context, &row).await? } else { None };

    if let Some(id) = rolling {
        // After a start of the node nothing of the app runs: what served comes back first.
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
        context.stage.rest(app, wakes);
    }
    Ok(())
}
