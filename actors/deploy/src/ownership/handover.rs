//! Handover of an app from an owner that drains to its standby.

use std::{sync::Arc, time::Duration};

use callboard_messages::Failure;
use callboard_supervisors::SupervisorRef;

use super::claim;
use crate::{
    apps::{App, rollout},
    context::Context,
    store::{
        apps::{AppRow, AppState},
        owners::Owner,
    },
};

/// How long instances serve on after the handover: until every router knows the new owner.
const LINGER: Duration = Duration::from_secs(3);

/// The standby's part: starts what serves, and claims the app once that is healthy.
pub(crate) async fn take_over(
    context: &Context,
    app: &Arc<App>,
    supervisor: &SupervisorRef,
    row: &AppRow,
    from: Owner,
) -> Result<(), Failure> {
    let target = if row.state == AppState::Running { app.serving(context, row).await? } else { None };
    if let Some(target) = target {
        rollout::start_missing(context, app, supervisor, &target, &row.shown_formation().processes).await?;
        // An owner that is gone serves no more: the claim need not wait.
        if !context.nodes.is_gone(from.node, context.clock.instant()) && !are_settled(app).await {
            app.wake();
            return Ok(());
        }
    }
    let why = format!("{} stops", context.nodes.name(from.node));
    if let Some(acquired) = claim::claim(context, row, Some((from.node, why))).await? {
        app.set_ownership(acquired);
        // The former owner stops its instances when it is woken.
        context.wake(app.project_id);
    } else {
        app.wake();
    }
    Ok(())
}

/// Waits until each instance is healthy or has failed. False when the actor is woken before: the row may have changed.
async fn are_settled(app: &App) -> bool {
    let settled = async {
        for instance in app.instances() {
            instance.settled().await;
        }
    };
    tokio::select! {
        biased;
        () = settled => true,
        () = app.woken.notified() => false,
    }
}

/// The app is another node's, or is gone: stops its instances here. After a handover they serve on until the routers know
/// the new owner.
pub(crate) async fn relinquish(
    context: &Context,
    app: &Arc<App>,
    row: Option<&AppRow>,
    wakes: u64,
) -> Result<(), Failure> {
    *app.relinquished.lock() = app.owner();
    if app.instances().iter().any(|instance| !instance.is_stopping()) {
        if row.is_some_and(|row| row.owner_node.is_some()) && context.is_draining() {
            context.clock.sleep(LINGER).await;
            app.retire(context, |_| true);
        } else {
            app.retire_at_once(context);
        }
    }
    if app.instances().is_empty() {
        context.routes.remove(&app.name);
        context.apps.idle(app, wakes);
    }
    Ok(())
}
