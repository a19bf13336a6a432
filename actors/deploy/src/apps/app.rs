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
    instance::AppInstance,
    target::{Target, TargetError},
};
use crate::{
    context::Context,
    logs::log::Log,
    ownership::claim::{Acquired, Ownership},
    store::{apps::AppRow, owners::Owner},
    world::idle_state,
};

/// An app that has an actor on this node.
pub(crate) struct App {
    pub(crate) project_id: ProjectId,
    pub(crate) organization_id: OrganizationId,
    pub(crate) name: String,
    pub(crate) log: Log,
    ownership: Mutex<Ownership>,
    /// Written to the app's log by its actor: why this node took the app over.
    notice: Mutex<Option<String>>,
    /// Keeps a draining node up until another one owns the app.
    hold: Mutex<Option<Hold>>,
    /// What the last pass has read: the row's revision, and the deployment that rolled.
    pub(super) seen: Mutex<(i64, Option<DeploymentId>)>,
    /// The number of wakes.
    wakes: AtomicU64,
    pub(crate) woken: Notify,
    /// Interrupts the pass: the app is another node's by now.
    pub(super) lost: Notify,
    /// The ownership that this node has lost and the actor knows of.
    pub(crate) relinquished: Mutex<Option<Owner>>,
    instances: Mutex<Vec<Arc<AppInstance>>>,
    /// Names of ended instances, for the supervisor to forget.
    ended: Mutex<Vec<String>>,
    /// State of the route while no instance is healthy.
    idle: Mutex<RouteState>,
    /// The target of the serving release, cached.
    serving: Mutex<Option<Arc<Target>>>,
}

impl App {
    pub(crate) fn new(context: &Context, row: &AppRow, acquired: Acquired) -> Self {
        Self {
            project_id: row.project_id,
            organization_id: row.organization_id,
            ownership: Mutex::new(acquired.ownership),
            notice: Mutex::new(acquired.notice),
            hold: Mutex::new(Some(context.nodes.hold())),
            seen: Mutex::new((row.revision, None)),
            name: row.name.clone(),
            log: context.app_log(row.project_id),
            wakes: AtomicU64::new(0),
            woken: Notify::new(),
            lost: Notify::new(),
            relinquished: Mutex::default(),
            instances: Mutex::default(),
            ended: Mutex::default(),
            idle: Mutex::new(idle_state(row, false)),
            serving: Mutex::default(),
        }
    }

    /// Changes in which role this node runs the app.
    pub(crate) fn set_ownership(&self, acquired: Acquired) {
        *self.ownership.lock() = acquired.ownership;
        *self.notice.lock() = acquired.notice;
    }

    /// Writes the takeover notice, after the lines of the node before.
    pub(super) async fn log_notice(&self) {
        let notice = self.notice.lock().clone();
        if let Some(sentence) = notice {
            self.log.follow_on().await;
            self.log.line("platform", sentence);
            self.notice.lock().take();
        }
    }

    /// In which role this node runs the app.
    pub(crate) fn ownership(&self) -> Ownership {
        *self.ownership.lock()
    }

    /// This node's ownership with its fencing token; `None` for a standby.
    pub(crate) fn owner(&self) -> Option<Owner> {
        match self.ownership() {
            Ownership::Owner(owner) => Some(owner),
            Ownership::Standby(_) => None,
        }
    }

    /// Lets the node end without a successor for this app.
    pub(crate) fn release_hold(&self) {
        self.hold.lock().take();
    }

    /// Whether the last pass has read this revision and deployment.
    pub(crate) fn has_seen(&self, revision: i64, rolling: Option<DeploymentId>) -> bool {
        *self.seen.lock() == (revision, rolling)
    }

    /// Wakes the actor for another pass.
    pub(crate) fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.woken.notify_one();
    }

    /// The row names another owner: interrupts whatever the actor waits for.
    pub(crate) fn lose(&self, owner: Owner) {
        if self.relinquished.lock().replace(owner) != Some(owner) {
            self.lost.notify_one();
        }
        self.wake();
    }

    pub(crate) fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::SeqCst)
    }

    /// The instances, by process type and index; an older one first where both are the same.
    pub(crate) fn instances(&self) -> Vec<Arc<AppInstance>> {
        let mut instances = self.instances.lock().clone();
        instances.sort_by(|a, b| (&a.process, a.index, a.id).cmp(&(&b.process, b.index, b.id)));
        instances
    }

    /// The instances of a process type that are not stopping: those that the deployment started, and the others.
    pub(crate) fn split(&self, process: &str, of: DeploymentId) -> (Vec<Arc<AppInstance>>, Vec<Arc<AppInstance>>) {
        let stays = |instance: &Arc<AppInstance>| instance.process == process && !instance.is_stopping();
        self.instances().into_iter().filter(stays).partition(|instance| instance.target.serving.deployment_id == of)
    }

    /// Starts a new instance with the lowest free index.
    pub(crate) async fn start(
        self: &Arc<Self>,
        context: &Context,
        supervisor: &SupervisorRef,
        target: &Arc<Target>,
        process: &str,
    ) -> Result<Arc<AppInstance>, Failure> {
        let (ours, _) = self.split(process, target.serving.deployment_id);
        let index = (1..).find(|index| ours.iter().all(|instance| instance.index != *index)).unwrap_or(1);
        let instance = Arc::new(AppInstance::new(context, target.clone(), process, index));
        self.instances.lock().push(instance.clone());
        self.changed(context, &instance);
        let spec = super::runner::actor(context.clone(), self.clone(), instance.clone());
        if let Err(reason) = supervisor.start_child(spec).await {
            self.remove_instance(context, &instance);
            return Err(Failure::Internal(format!("{}: {reason}", instance.name)));
        }
        Ok(instance)
    }

    /// Publishes the route and the instance's new state.
    pub(crate) fn changed(&self, context: &Context, instance: &AppInstance) {
        self.publish_route(context);
        context.publish_instance(self.project_id, "instance", &instance.view());
    }

    /// Unregisters an instance that has ended, and publishes that.
    pub(crate) fn remove_instance(&self, context: &Context, instance: &AppInstance) {
        self.instances.lock().retain(|other| other.id != instance.id);
        self.ended.lock().push(instance.name.clone());
        self.publish_route(context);
        context.publish_instance(self.project_id, "instance_gone", &instance.view());
        self.wake();
    }

    fn publish_route(&self, context: &Context) {
        let instances = self.instances.lock();
        let web = || instances.iter().filter(|instance| instance.process == crate::WEB);
        let backends = web()
            .filter_map(|instance| {
                let state = instance.state();
                let address = state.address.filter(|_| state.status == InstanceStatus::Healthy)?;
                Some(Backend { instance_id: state.run, address })
            })
            .collect();
        let fails = |instance: &Arc<AppInstance>| {
            let state = instance.state();
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

    /// Stops every instance of which `leaves` is true. They get no more requests from now on.
    pub(crate) fn retire(&self, context: &Context, leaves: impl Fn(&AppInstance) -> bool) {
        for instance in self.instances().into_iter().filter(|instance| !instance.is_stopping() && leaves(instance)) {
            instance.begin_stop(false);
            self.changed(context, &instance);
        }
    }

    /// Stops all instances with the short drain time.
    pub(crate) fn retire_at_once(&self, context: &Context) {
        for instance in self.instances().into_iter().filter(|instance| !instance.is_stopping()) {
            instance.begin_stop(true);
            self.changed(context, &instance);
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

    /// The deployment that brought the serving release into service, as the last pass has read it.
    pub(crate) fn serving_deployment(&self) -> Option<DeploymentId> {
        self.serving.lock().as_ref().map(|target| target.serving.deployment_id)
    }

    pub(crate) fn now_serves(&self, target: &Arc<Target>) {
        *self.serving.lock() = Some(target.clone());
    }
}
