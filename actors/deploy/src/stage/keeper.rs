//! Who starts an app's actor when it is needed, and ends it when it is not.
//!
//! Each app is a supervisor of its own below this one, so that an app whose actor fails again and again takes nobody
//! along: its supervisor gives up alone, and the next wake starts it anew.

use std::{sync::Arc, time::Duration};

use callboard_messages::{Failure, ProjectId, deploy::DeploymentStatus};
use callboard_supervisors::{ChildContext, ChildSpec, Exit, Restart, Supervisor};

use super::{App, Request, app, claim, watch};
use crate::{
    context::{Context, World},
    disk, recovery,
    store::{apps, deployments, owners},
};

/// How often it is looked whether an app's supervisor has given up.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// The supervisor of all apps.
pub(crate) fn supervisor(world: Arc<World>) -> ChildSpec {
    let keeper = ChildSpec::new("keeper", move |child: ChildContext| keep(world.clone(), child));
    Supervisor::new("apps").child(keeper).into_child(Restart::Permanent)
}

async fn keep(world: Arc<World>, child: ChildContext) -> Exit {
    let context = match Context::of_child(world, &child).await {
        Ok(context) => context,
        Err(error) => return Exit::Abnormal(error.to_string()),
    };
    tokio::select! {
        () = child.stopping() => Exit::Shutdown,
        () = serve(&context, &child) => Exit::Normal,
        () = look_around(&context) => Exit::Normal,
    }
}

/// Beside the keeper's own work.
async fn look_around(context: &Context) {
    let mut recovered = context.life().recovered.subscribe();
    if recovered.wait_for(|recovered| *recovered).await.is_ok() {
        tokio::join!(recovery::look_again(context), watch::watch(context), disk::look_after(context));
    }
    std::future::pending().await
}

async fn serve(context: &Context, child: &ChildContext) {
    recovery::run(context).await;
    let mut requests = context.stage.received.lock().await;
    // Apps of an earlier life of their supervisor: nobody looks after them any more.
    sweep(context, child);
    let mut due = context.clock.instant() + SWEEP_EVERY;
    loop {
        let request = tokio::select! {
            biased;
            () = context.clock.sleep_until(due) => {
                sweep(context, child);
                due = context.clock.instant() + SWEEP_EVERY;
                continue;
            }
            request = requests.recv() => request,
        };
        match request {
            Some(Request::Wake(project_id)) => wake(context, child, project_id).await,
            Some(Request::Rest(app, wakes)) => rest(context, child, &app, wakes).await,
            None => return,
        }
    }
}

async fn wake(context: &Context, child: &ChildContext, project_id: ProjectId) {
    if let Some(app) = context.stage.get(project_id) {
        return app.wake();
    }
    match take_on(context, project_id).await {
        Ok(Some(app)) => start(context, child, Arc::new(app)).await,
        Ok(None) => {}
        Err(failure) => {
            tracing::warn!(%project_id, %failure, "an app could not be looked at; trying again");
            again(context, Request::Wake(project_id));
        }
    }
}

async fn take_on(context: &Context, project_id: ProjectId) -> Result<Option<App>, Failure> {
    let Some(row) = apps::get(&context.database, project_id).await? else { return Ok(None) };
    let running = deployments::running(&context.database, project_id).await?;
    let rolls = running.is_some_and(|(_, status)| status == DeploymentStatus::Rolling);
    Ok(claim::take_on(context, &row, rolls).await?.map(|standing| App::new(context, &row, standing)))
}

/// Starts the apps anew whose supervisor has given up.
fn sweep(context: &Context, child: &ChildContext) {
    let running: Vec<_> = child.supervisor.children().into_iter().map(|child| child.name).collect();
    let mut given_up = Vec::new();
    context.stage.apps.lock().retain(|project_id, app| {
        let runs = running.iter().any(|name| *name == app.name);
        if !runs {
            given_up.push(*project_id);
        }
        runs
    });
    for project_id in given_up {
        tracing::warn!(%project_id, "the supervisor of an app had given up; starting it anew");
        drop(context.stage.requests.send(Request::Wake(project_id)));
    }
}

/// Asks once more, a little later.
fn again(context: &Context, request: Request) {
    let context = context.clone();
    actix_rt::spawn(async move {
        context.clock.sleep(Duration::from_secs(1)).await;
        drop(context.stage.requests.send(request));
    });
}

async fn start(context: &Context, child: &ChildContext, app: Arc<App>) {
    let name = app.name.clone();
    context.stage.apps.lock().insert(app.project_id, app.clone());
    // What was left by a life of this app whose supervisor gave up.
    child.supervisor.stop_child(&name).await;
    let spec = Supervisor::new(name.clone())
        .child(app::actor(context.clone(), app.clone()))
        .into_child(Restart::Temporary)
        .stop_within(context.settings.instances.stop_grace * 2);
    if let Err(reason) = child.supervisor.start_child(spec).await {
        tracing::error!(app = %name, reason, "the actor of an app could not be started");
        context.stage.apps.lock().remove(&app.project_id);
    }
}

async fn rest(context: &Context, child: &ChildContext, app: &Arc<App>, wakes: u64) {
    {
        let mut apps = context.stage.apps.lock();
        let is_this = apps.get(&app.project_id).is_some_and(|other| Arc::ptr_eq(other, app));
        // Under the lock that every wake takes: what came meanwhile is not lost.
        if !is_this || app.wakes() != wakes || !app.instances().is_empty() {
            return;
        }
        apps.remove(&app.project_id);
    }
    child.supervisor.stop_child(&app.name).await;
    if let Some(owner) = app.owner()
        && let Err(error) = owners::release(&context.database, app.project_id, owner).await
    {
        // The next look finds an app of this node without an actor.
        tracing::warn!(app = app.name, %error, "an app of which nothing runs could not be released");
    }
}
