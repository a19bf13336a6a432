//! An app on its way from one node to another, when the one that has it stops.

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

/// How long instances serve on once another node has taken the app over: until every router knows.
const LINGER: Duration = Duration::from_secs(3);

/// The owner stops: what serves is started here first, and only then is the app this node's.
pub(crate) async fn succeed(
    context: &Context,
    app: &Arc<App>,
    supervisor: &SupervisorRef,
    row: &AppRow,
    from: Owner,
) -> Result<(), Failure> {
    let target = if row.state == AppState::Running { app.serving(context, row).await? } else { None };
    if let Some(target) = target {
        rollout::start_missing(context, app, supervisor, &target, &row.shown_formation().processes).await?;
        // Nobody serves on when the owner is gone before it has stopped as it should.
        if !context.nodes.is_gone(from.node, context.clock.instant()) && !are_settled(app).await {
            app.wake();
            return Ok(());
        }
    }
    let why = format!("{} stops", context.nodes.name(from.node));
    if let Some(taken) = claim::claim(context, row, Some((from.node, why))).await? {
        app.take(taken);
        // The node before ends its own as soon as it knows.
        context.wake(app.project_id);
    } else {
        app.wake();
    }
    Ok(())
}

/// Waits until each instance is healthy or has failed. False when the actor is woken before: what it waits for may be in
/// vain, and it looks at the store first.
async fn are_settled(app: &App) -> bool {
    let settled = async {
        for member in app.instances() {
            member.settled().await;
        }
    };
    tokio::select! {
        biased;
        () = settled => true,
        () = app.woken.notified() => false,
    }
}

/// The app is another node's, or there is none any more: what runs of it here ends. One that was handed over serves on
/// until the routers know its successor.
pub(crate) async fn give_up(
    context: &Context,
    app: &Arc<App>,
    row: Option<&AppRow>,
    wakes: u64,
) -> Result<(), Failure> {
    *app.given_up.lock() = app.owner();
    if app.instances().iter().any(|member| !member.is_leaving()) {
        if row.is_some_and(|row| row.owner_node.is_some()) && context.is_leaving() {
            context.clock.sleep(LINGER).await;
            app.retire(context, |_| true);
        } else {
            app.retire_at_once(context);
        }
    }
    if app.instances().is_empty() {
        context.routes.remove(&app.name);
        context.stage.rest(app, wakes);
    }
    Ok(())
}
