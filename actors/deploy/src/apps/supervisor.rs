//! The supervisor of all apps, and the registrar below it, which starts an app's actor when it is needed and ends it when
//! it is idle.
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

/// Interval of the sweep for apps whose supervisor has given up.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Acquisitions that run at a time: the apps of a node that is gone must not wait for each other.
const ACQUISITIONS_MAXIMUM: usize = 8;

/// The supervisor of all apps.
pub(crate) fn supervisor(world: Arc<World>) -> ChildSpec {
    let registrar = ChildSpec::new("registrar", move |child: ChildContext| run(world.clone(), child));
    Supervisor::new("apps").child(registrar).into_child(Restart::Permanent)
}

async fn run(world: Arc<World>, child: ChildContext) -> Exit {
    let context = match Context::of_child(world, &child).await {
        Ok(context) => context,
        Err(error) => return Exit::Abnormal(error.to_string()),
    };
    tokio::select! {
        () = child.stopping() => Exit::Shutdown,
        () = serve(&context, &child) => Exit::Normal,
        () = run_background_tasks(&context) => Exit::Normal,
    }
}

/// The node's background tasks: late orphans, the ownership watcher and the sweep of logs.
async fn run_background_tasks(context: &Context) {
    let mut recovered = context.lifecycle().recovered.subscribe();
    if recovered.wait_for(|recovered| *recovered).await.is_ok() {
        tokio::join!(recovery::end_late_orphans(context), watcher::run(context), sweep::run(context));
    }
    std::future::pending().await
}

async fn serve(context: &Context, child: &ChildContext) {
    recovery::run(context).await;
    let mut requests = context.apps.received.lock().await;
    // Apps that an earlier run of this supervisor has registered: their actors ended with it.
    sweep(context, child);
    let mut due = context.clock.instant() + SWEEP_EVERY;
    let mut acquisitions = Acquisitions::default();
    loop {
        tokio::select! {
            biased;
            () = context.clock.sleep_until(due) => {
                sweep(context, child);
                due = context.clock.instant() + SWEEP_EVERY;
            }
            Some((project_id, acquisition)) = acquisitions.tasks.next() => {
                let woken = acquisitions.woken.remove(&project_id).unwrap_or_default();
                follow_up(context, child, project_id, acquisition, woken).await;
            }
            request = requests.recv(), if acquisitions.tasks.len() < ACQUISITIONS_MAXIMUM => match request {
                Some(Request::Wake(project_id)) => wake(context, &mut acquisitions, project_id),
                Some(Request::Idle(app, wakes)) => retire(context, child, &app, wakes).await,
                None => return,
            },
        }
    }
}

/// What came of a look at an app that has no actor.
type Acquisition = Result<Option<App>, Failure>;

/// Acquisitions in progress.
#[derive(Default)]
struct Acquisitions {
    tasks: TaskSet<(ProjectId, Acquisition)>,
    /// Whether the app was woken again meanwhile.
    woken: HashMap<ProjectId, bool>,
}

fn wake(context: &Context, acquisitions: &mut Acquisitions, project_id: ProjectId) {
    if let Some(app) = context.apps.get(project_id) {
        app.wake();
    } else if let Some(woken) = acquisitions.woken.get_mut(&project_id) {
        *woken = true;
    } else {
        acquisitions.woken.insert(project_id, false);
        let context = context.clone();
        acquisitions.tasks.spawn(async move { (project_id, acquire(&context, project_id).await) });
    }
}

async fn follow_up(
    context: &Context,
    child: &ChildContext,
    project_id: ProjectId,
    acquisition: Acquisition,
    woken: bool,
) {
    match acquisition {
        Ok(Some(app)) => start(context, child, Arc::new(app)).await,
        // The row was read before the change that the wake was for.
        Ok(None) if woken => drop(context.apps.requests.send(Request::Wake(project_id))),
        Ok(None) => {}
        Err(failure) => {
            warn_unless_outage!(failure.is_outage(), %project_id, %failure, "claiming the app failed; retrying");
            again(context, Request::Wake(project_id));
        }
    }
}

async fn acquire(context: &Context, project_id: ProjectId) -> Acquisition {
    let Some(row) = apps::get(&context.database, project_id).await? else { return Ok(None) };
    let running = deployments::running(&context.database, project_id).await?;
    let rolls = running.is_some_and(|(_, status)| status == DeploymentStatus::Rolling);
    Ok(claim::acquire(context, &row, rolls).await?.map(|acquired| App::new(context, &row, acquired)))
}

/// Restarts the apps whose supervisor has given up.
fn sweep(context: &Context, child: &ChildContext) {
    let running: Vec<_> = child.supervisor.children().into_iter().map(|child| child.name).collect();
    let mut given_up = Vec::new();
    context.apps.actors.lock().retain(|project_id, app| {
        let runs = running.iter().any(|name| *name == app.name);
        if !runs {
            given_up.push(*project_id);
        }
        runs
    });
    for project_id in given_up {
        tracing::warn!(%project_id, "the supervisor of the app gave up; restarting it");
        drop(context.apps.requests.send(Request::Wake(project_id)));
    }
}

/// Repeats a request a second later.
fn again(context: &Context, request: Request) {
    let context = context.clone();
    actix_rt::spawn(async move {
        context.clock.sleep(Duration::from_secs(1)).await;
        drop(context.apps.requests.send(request));
    });
}

async fn start(context: &Context, child: &ChildContext, app: Arc<App>) {
    let name = app.name.clone();
    context.apps.actors.lock().insert(app.project_id, app.clone());
    // The app's supervisor that gave up is still registered under this name.
    child.supervisor.stop_child(&name).await;
    let spec = Supervisor::new(name.clone())
        .child(reconciler::actor(context.clone(), app.clone()))
        .into_child(Restart::Temporary)
        .stop_within(context.settings.instances.stop_grace * 2);
    if let Err(reason) = child.supervisor.start_child(spec).await {
        tracing::error!(app = %name, reason, "starting the actor of the app failed");
        context.apps.actors.lock().remove(&app.project_id);
    }
}

async fn retire(context: &Context, child: &ChildContext, app: &Arc<App>, wakes: u64) {
    {
        let mut apps = context.apps.actors.lock();
        let is_this = apps.get(&app.project_id).is_some_and(|other| Arc::ptr_eq(other, app));
        // Under the lock that every wake takes, so that no wake is lost.
        if !is_this || app.wakes() != wakes || !app.instances().is_empty() {
            return;
        }
        apps.remove(&app.project_id);
    }
    child.supervisor.stop_child(&app.name).await;
    if let Some(owner) = app.owner()
        && let Err(error) = owners::release(&context.database, app.project_id, owner).await
    {
        // The next scan finds an app of this node without an actor.
        let is_outage = error.outside_outage().is_none();
        warn_unless_outage!(is_outage, app = app.name, %error, "releasing the idle app failed");
    }
}
