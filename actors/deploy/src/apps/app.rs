//! An app that has an actor, as the actor, its instances and the domain's handlers share it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use callboard_messages::{DeploymentId, Failure, OrganizationId, ProjectId, deploy::InstanceStatus};
use callboard_platform::{
    cluster::Hold,
    routing::{Backend, Route, RouteState},
};
use callboard_supervisors::SupervisorRef;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    replica::Member,
    target::{Target, TargetError},
};
use crate::{
    context::Context,
    logs::log::Log,
    ownership::claim::{Standing, Taken},
    store::{apps::AppRow, owners::Owner},
    world::idle_state,
};

/// What is known of an app while it has an actor. Shared by its actor, its instances and the domain's handlers.
pub(crate) struct App {
    pub(crate) project_id: ProjectId,
    pub(crate) organization_id: OrganizationId,
    pub(crate) name: String,
    pub(crate) log: Log,
    standing: Mutex<Standing>,
    /// What its log shall say of how it came here.
    news: Mutex<Option<String>>,
    /// Keeps the node from ending before another one runs the app.
    hold: Mutex<Option<Hold>>,
    /// What the actor has seen last of the store: the row's revision, and the deployment that rolled.
    pub(super) seen: Mutex<(i64, Option<DeploymentId>)>,
    /// How often it was woken.
    wakes: AtomicU64,
    pub(crate) woken: Notify,
    /// What the actor is about is in vain.
    pub(super) lost: Notify,
    /// The ownership that the actor knows it has lost.
    pub(crate) given_up: Mutex<Option<Owner>>,
    members: Mutex<Vec<Arc<Member>>>,
    /// Names of instances that have ended and that their supervisor may forget.
    ended: Mutex<Vec<String>>,
    /// What a visitor is told while no instance is healthy.
    idle: Mutex<RouteState>,
    /// The target of what serves, so that it is read once.
    serving: Mutex<Option<Arc<Target>>>,
}

impl App {
    pub(crate) fn new(context: &Context, row: &AppRow, taken: Taken) -> Self {
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
    pub(crate) fn take(&self, taken: Taken) {
        *self.standing.lock() = taken.standing;
        *self.news.lock() = taken.news;
    }

    /// Says in the log how the app came here, after what the node before has written.
    pub(super) async fn tell_news(&self) {
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
    pub(crate) fn owner(&self) -> Option<Owner> {
        match self.standing() {
            Standing::Owner(owner) => Some(owner),
            Standing::Heir(_) => None,
        }
    }

    /// The node need not wait for it: nobody would take it over.
    pub(crate) fn hold_no_more(&self) {
        self.hold.lock().take();
    }

    /// Whether the actor has acted on this.
    pub(crate) fn has_seen(&self, revision: i64, rolling: Option<DeploymentId>) -> bool {
        *self.seen.lock() == (revision, rolling)
    }

    /// Has the actor look at the store.
    pub(crate) fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.woken.notify_one();
    }

    /// The store says that the app is no longer this owner's: whatever its actor waits for, it begins anew.
    pub(crate) fn lose(&self, owner: Owner) {
        if self.given_up.lock().replace(owner) != Some(owner) {
            self.lost.notify_one();
        }
        self.wake();
    }

    pub(crate) fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::SeqCst)
    }

    /// The instances, by process type and index; an older one first where both are the same.
    pub(crate) fn instances(&self) -> Vec<Arc<Member>> {
        let mut members = self.members.lock().clone();
        members.sort_by(|a, b| (&a.process, a.index, a.id).cmp(&(&b.process, b.index, b.id)));
        members
    }

    /// Those of this process type that are not on their way out: what the deployment started, and the others.
    pub(crate) fn split(&self, process: &str, of: DeploymentId) -> (Vec<Arc<Member>>, Vec<Arc<Member>>) {
        let stays = |member: &Arc<Member>| member.process == process && !member.is_leaving();
        self.instances().into_iter().filter(stays).partition(|member| member.target.serving.deployment_id == of)
    }

    /// Starts a new instance with the lowest free index.
    pub(crate) async fn start(
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
        let spec = super::runner::actor(context.clone(), self.clone(), member.clone());
        if let Err(reason) = supervisor.start_child(spec).await {
            self.leave(context, &member);
            return Err(Failure::Internal(format!("{}: {reason}", member.name)));
        }
        Ok(member)
    }

    /// An instance has changed: the route follows, and so does everyone who looks.
    pub(crate) fn changed(&self, context: &Context, member: &Member) {
        self.publish_route(context);
        context.publish_instance(self.project_id, "instance", &member.view());
    }

    /// An instance is gone.
    pub(crate) fn leave(&self, context: &Context, member: &Member) {
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

    pub(super) fn set_idle(&self, context: &Context, state: RouteState) {
        let before = std::mem::replace(&mut *self.idle.lock(), state);
        self.publish_route(context);
        if before != state {
            context.nudge_routers();
        }
    }

    /// Asks every instance of which `leaves` is true to end. They get no more requests from now on.
    pub(crate) fn retire(&self, context: &Context, leaves: impl Fn(&Member) -> bool) {
        for member in self.instances().into_iter().filter(|member| !member.is_leaving() && leaves(member)) {
            member.begin_to_leave(false);
            self.changed(context, &member);
        }
    }

    /// Asks all instances to end, and to take no time for their last requests.
    pub(crate) fn retire_at_once(&self, context: &Context) {
        for member in self.instances().into_iter().filter(|member| !member.is_leaving()) {
            member.begin_to_leave(true);
            self.changed(context, &member);
        }
    }

    pub(super) async fn forget_ended(&self, supervisor: &SupervisorRef) {
        let ended = std::mem::take(&mut *self.ended.lock());
        for name in ended {
            supervisor.stop_child(&name).await;
        }
    }

    pub(crate) async fn serving(&self, context: &Context, row: &AppRow) -> Result<Option<Arc<Target>>, Failure> {
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
    pub(crate) fn serving_deployment(&self) -> Option<DeploymentId> {
        self.serving.lock().as_ref().map(|target| target.serving.deployment_id)
    }

    pub(crate) fn now_serves(&self, target: &Arc<Target>) {
        *self.serving.lock() = Some(target.clone());
    }
}
