//! Who starts an app's actor when it is needed, and ends it when it is not.
//!
//! Each app is a supervisor of its own below this one, so that an app whose actor fails again and again takes nobody
//! along: its supervisor gives up alone, and the next wake starts it anew.

use std::{collections::HashMap, sync::Arc, time::Duration};

use callboard_messages::{Failure, ProjectId, deploy::DeploymentStatus};
use callboard_supervisors::{ChildContext, ChildSpec, Exit, Restart, Supervisor, TaskSet, warn_unless_outage};

use super::{App, Request, reconciler};
use crate::{
    context::Context,
    logs::sweep,
    ownership::{claim, recovery, watcher},
    store::{apps, deployments, owners},
    world::World,
};

/// How often it is looked whether an app's supervisor has given up.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Apps that are taken on at a time: those of a node that is gone must not wait for each other.
const AT_ONCE: usize = 8;

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
        tokio::join!(recovery::look_again(context), watcher::watch(context), sweep::look_after(context));
    }
    std::future::pending().await
}

async fn serve(context: &Context, child: &ChildContext) {
    recovery::run(context).await;
    let mut requests = context.stage.received.lock().await;
    // Apps of an earlier life of their supervisor: nobody looks after them any more.
    sweep(context, child);
    let mut due = context.clock.instant() + SWEEP_EVERY;
    let mut looks = Looks::default();
    loop {
        tokio::select! {
            biased;
            () = context.clock.sleep_until(due) => {
                sweep(context, child);
                due = context.clock.instant() + SWEEP_EVERY;
            }
            Some((project_id, looked)) = looks.under_way.next() => {
                let woken = looks.woken.remove(&project_id).unwrap_or_default();
                follow_up(context, child, project_id, looked, woken).await;
            }
            request = requests.recv(), if looks.under_way.len() < AT_ONCE => match request {
                Some(Request::Wake(project_id)) => wake(context, &mut looks, project_id),
                Some(Request::Rest(app, wakes)) => rest(context, child, &app, wakes).await,
                None => return,
            },
        }
    }
}

/// What came of a look at an app that has no actor.
type Looked = Result<Option<App>, Failure>;

/// The looks at apps that are under way.
#[derive(Default)]
struct Looks {
    under_way: TaskSet<(ProjectId, Looked)>,
    /// Whether the app was woken again meanwhile.
    woken: HashMap<ProjectId, bool>,
}

fn wake(context: &Context, looks: &mut Looks, project_id: ProjectId) {
    if let Some(app) = context.stage.get(project_id) {
        app.wake();
    } else if let Some(woken) = looks.woken.get_mut(&project_id) {
        *woken = true;
    } else {
        looks.woken.insert(project_id, false);
        let context = context.clone();
        looks.under_way.spawn(async move { (project_id, take_on(&context, project_id).await) });
    }
}

async fn follow_up(context: &Context, child: &ChildContext, project_id: ProjectId, looked: Looked, woken: bool) {
    match looked {
        Ok(Some(app)) => start(context, child, Arc::new(app)).await,
        // What was read may be older than what it was woken for.
        Ok(None) if woken => drop(context.stage.requests.send(Request::Wake(project_id))),
        Ok(None) => {}
        Err(failure) => {
            warn_unless_outage!(failure.is_outage(), %project_id, %failure, "an app could not be looked at; trying again");
            again(context, Request::Wake(project_id));
        }
    }
}

async fn take_on(context: &Context, project_id: ProjectId) -> Looked {
    let Some(row) = apps::get(&context.database, project_id).await? else { return Ok(None) };
    let running = deployments::running(&context.database, project_id).await?;
    let rolls = running.is_some_and(|(_, status)| status == DeploymentStatus::Rolling);
    Ok(claim::take_on(context, &row, rolls).await?.map(|taken| App::new(context, &row, taken)))
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
        .child(reconciler::actor(context.clone(), app.clone()))
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
        let is_outage = error.outside_outage().is_none();
        warn_unless_outage!(is_outage, app = app.name, %error, "an app of which nothing runs could not be released");
    }
}
