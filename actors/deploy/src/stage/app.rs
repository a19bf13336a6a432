//! One app that runs: its instances, its route, and the actor that makes what runs be what is wanted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use callboard_messages::{
    DeploymentId, Failure, OrganizationId, ProjectId,
    deploy::{DeploymentStatus, InstanceStatus},
};
use callboard_platform::{
    cluster::Hold,
    routing::{Backend, Route, RouteState},
};
use callboard_supervisors::{ChildContext, ChildSpec, Exit, Restart, SupervisorRef, warn_unless_outage};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    claim::{self, Standing, Taken},
    handover::{give_up, succeed},
    member::Member,
    removal, rollout,
    target::{Target, TargetError},
};
use crate::{
    context::{Context, idle_state},
    log::Log,
    store::{
        apps::{self, AppRow, AppState},
        deployments,
        owners::Owner,
    },
};

/// How long the actor waits after the store or another domain could not be asked.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is known of an app while it has an actor. Shared by its actor, its instances and the domain's handlers.
pub(crate) struct App {
    pub(crate) project_id: ProjectId,
    pub(crate) organization_id: OrganizationId,
    pub(crate) name: String,
    pub(super) log: Log,
    standing: Mutex<Standing>,
    /// What its log shall say of how it came here.
    news: Mutex<Option<String>>,
    /// Keeps the node from ending before another one runs the app.
    hold: Mutex<Option<Hold>>,
    /// What the actor has seen last of the store: the row's revision, and the deployment that rolled.
    seen: Mutex<(i64, Option<DeploymentId>)>,
    /// How often it was woken.
    wakes: AtomicU64,
    pub(super) woken: Notify,
    /// What the actor is about is in vain.
    lost: Notify,
    /// The ownership that the actor knows it has lost.
    pub(super) given_up: Mutex<Option<Owner>>,
    members: Mutex<Vec<Arc<Member>>>,
    /// Names of instances that have ended and that their supervisor may forget.
    ended: Mutex<Vec<String>>,
    /// What a visitor is told while no instance is healthy.
    idle: Mutex<RouteState>,
    /// The target of what serves, so that it is read once.
    serving: Mutex<Option<Arc<Target>>>,
}

impl App {
    pub(super) fn new(context: &Context, row: &AppRow, taken: Taken) -> Self {
        Self {
            project_id: row.project_id,
            organization_id: row.organization_id,
            standing: Mutex::new(taken.standing),
            news: Mutex::new(taken.news),
            hold: Mutex::new(Some(context.nodes.hold())),
            seen: Mutex::new((row.revision, None)),
            name: row.name.clone(),
            log: context.app_log(row.project_id),
            wakes: AtomicU64::new(0),
            woken: Notify::new(),
            lost: Notify::new(),
            given_up: Mutex::default(),
            members: Mutex::default(),
            ended: Mutex::default(),
            idle: Mutex::new(idle_state(row, false)),
            serving: Mutex::default(),
        }
    }

    /// This node runs it in another right from now on.
    pub(super) fn take(&self, taken: Taken) {
        *self.standing.lock() = taken.standing;
        *self.news.lock() = taken.news;
    }

    /// Says in the log how the app came here, after what the node before has written.
    async fn tell_news(&self) {
        let news = self.news.lock().clone();
        if let Some(sentence) = news {
            self.log.follow_on().await;
            self.log.line("platform", sentence);
            self.news.lock().take();
        }
    }

    /// In which right this node runs it.
    pub(crate) fn standing(&self) -> Standing {
        *self.standing.lock()
    }

    /// Whether this node is the owner, as far as it knows.
    pub(super) fn owner(&self) -> Option<Owner> {
        match self.standing() {
            Standing::Owner(owner) => Some(owner),
            Standing::Heir(_) => None,
        }
    }

    /// The node need not wait for it: nobody would take it over.
    pub(super) fn hold_no_more(&self) {
        self.hold.lock().take();
    }

    /// Whether the actor has acted on this.
    pub(super) fn has_seen(&self, revision: i64, rolling: Option<DeploymentId>) -> bool {
        *self.seen.lock() == (revision, rolling)
    }

    /// Has the actor look at the store.
    pub(super) fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.woken.notify_one();
    }

    /// The store says that the app is no longer this owner's: whatever its actor waits for, it begins anew.
    pub(super) fn lose(&self, owner: Owner) {
        if self.given_up.lock().replace(owner) != Some(owner) {
            self.lost.notify_one();
        }
        self.wake();
    }

    pub(super) fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::SeqCst)
    }

    /// The instances, by process type and index; an older one first where both are the same.
    pub(crate) fn instances(&self) -> Vec<Arc<Member>> {
        let mut members = self.members.lock().clone();
        members.sort_by(|a, b| (&a.process, a.index, a.id).cmp(&(&b.process, b.index, b.id)));
        members
    }

    /// Those of this process type that are not on their way out: what the deployment started, and the others.
    pub(super) fn split(&self, process: &str, of: DeploymentId) -> (Vec<Arc<Member>>, Vec<Arc<Member>>) {
        let stays = |member: &Arc<Member>| member.process == process && !member.is_leaving();
        self.instances().into_iter().filter(stays).partition(|member| member.target.serving.deployment_id == of)
    }

    /// Starts a new instance with the lowest free index.
    pub(super) async fn start(
        self: &Arc<Self>,
        context: &Context,
        supervisor: &SupervisorRef,
        target: &Arc<Target>,
        process: &str,
    ) -> Result<Arc<Member>, Failure> {
        let (ours, _) = self.split(process, target.serving.deployment_id);
        let index = (1..).find(|index| ours.iter().all(|member| member.index != *index)).unwrap_or(1);
        let member = Arc::new(Member::new(context, target.clone(), process, index));
        self.members.lock().push(member.clone());
        self.changed(context, &member);
        let spec = super::instance::actor(context.clone(), self.clone(), member.clone());
        if let Err(reason) = supervisor.start_child(spec).await {
            self.leave(context, &member);
            return Err(Failure::Internal(format!("{}: {reason}", member.name)));
        }
        Ok(member)
    }

    /// An instance has changed: the route follows, and so does everyone who looks.
    pub(super) fn changed(&self, context: &Context, member: &Member) {
        self.publish_route(context);
        context.publish_instance(self.project_id, "instance", &member.view());
    }

    /// An instance is gone.
    pub(super) fn leave(&self, context: &Context, member: &Member) {
        self.members.lock().retain(|other| other.id != member.id);
        self.ended.lock().push(member.name.clone());
        self.publish_route(context);
        context.publish_instance(self.project_id, "instance_gone", &member.view());
        self.wake();
    }

    fn publish_route(&self, context: &Context) {
        let members = self.members.lock();
        let web = || members.iter().filter(|member| member.process == crate::WEB);
        let backends = web()
            .filter_map(|member| {
                let state = member.state();
                let address = state.address.filter(|_| state.status == InstanceStatus::Healthy)?;
                Some(Backend { instance_id: state.run, address })
            })
            .collect();
        let fails = |member: &Arc<Member>| {
            let state = member.state();
            state.last_exit.is_some() || matches!(state.status, InstanceStatus::Unhealthy | InstanceStatus::Crashed)
        };
        let idle = *self.idle.lock();
        let state = if idle == RouteState::Serving && web().any(fails) { RouteState::Unhealthy } else { idle };
        context.routes.set(&self.name, Route { backends, state });
    }

    fn set_idle(&self, context: &Context, state: RouteState) {
        let before = std::mem::replace(&mut *self.idle.lock(), state);
        self.publish_route(context);
        if before != state {
            context.nudge_routers();
        }
    }

    /// Asks every instance of which `leaves` is true to end. They get no more requests from now on.
    pub(super) fn retire(&self, context: &Context, leaves: impl Fn(&Member) -> bool) {
        for member in self.instances().into_iter().filter(|member| !member.is_leaving() && leaves(member)) {
            member.begin_to_leave(false);
            self.changed(context, &member);
        }
    }

    /// Asks all instances to end, and to take no time for their last requests.
    pub(super) fn retire_at_once(&self, context: &Context) {
        for member in self.instances().into_iter().filter(|member| !member.is_leaving()) {
            member.begin_to_leave(true);
            self.changed(context, &member);
        }
    }

    async fn forget_ended(&self, supervisor: &SupervisorRef) {
        let ended = std::mem::take(&mut *self.ended.lock());
        for name in ended {
            supervisor.stop_child(&name).await;
        }
    }

    pub(super) async fn serving(&self, context: &Context, row: &AppRow) -> Result<Option<Arc<Target>>, Failure> {
        let Some(serving) = row.serving else { return Ok(None) };
        if let Some(target) = self.serving.lock().clone().filter(|target| target.serving == serving) {
            return Ok(Some(target));
        }
        match Target::load(context, self.project_id, serving).await {
            Ok(target) => {
                let target = Arc::new(target);
                self.now_serves(&target);
                Ok(Some(target))
            }
            Err(TargetError::Later(failure)) => Err(failure),
            Err(TargetError::Impossible(sentence)) => {
                self.log.line("platform", format!("the app can't be started: {sentence}"));
                Ok(None)
            }
        }
    }

    /// The deployment that brought what serves into service, as far as this actor knows.
    pub(super) fn serving_deployment(&self) -> Option<DeploymentId> {
        self.serving.lock().as_ref().map(|target| target.serving.deployment_id)
    }

    pub(super) fn now_serves(&self, target: &Arc<Target>) {
        *self.serving.lock() = Some(target.clone());
    }
}

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
