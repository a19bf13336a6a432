//! What every actor of the domain needs: the world, which is one per node, and its own thread's ways to it.

use std::{ops::Deref, path::PathBuf, sync::Arc};

use callboard_messages::{
    Caller, DeploymentId, Failure, ProjectId,
    deploy::{Deployment, DeploymentStatus, Instance},
};
use callboard_platform::{
    cluster::Members,
    routing::{Route, RouteState, RoutingTable},
};
use callboard_supervisors::{
    BlockingPool, Bus, ChildContext, Clock, Live, LiveEvent, ShardContext, StartError,
    db::{Database, Databases, Error},
    disk::Disk,
};
use object_store::ObjectStore;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use crate::{
    chunks::Chunks,
    journal::{Journal, Journals},
    life::Life,
    log::{Log, deployment_topic, project_topic},
    nodes::Nodes,
    objects::Objects,
    pools::Pools,
    runtime::Runtime,
    settings::DeploySettings,
    stage::Stage,
    store::{
        apps::{self, AppRow},
        deployments::{self, DeploymentRow},
        steps::{self, Author},
    },
    telling::Telling,
    trash::Trash,
    under_way::{Errand, UnderWay, Work},
};

/// One per node; outlives the shards and children that are rebuilt after a fault.
pub(crate) struct World {
    pub(crate) settings: DeploySettings,
    pub(crate) databases: Databases,
    pub(crate) objects: Objects,
    pub(crate) routes: RoutingTable,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) pools: Pools,
    pub(crate) trash: Trash,
    pub(crate) journals: Journals,
    pub(crate) nodes: Nodes,
    pub(crate) telling: Telling,
    /// The apps that run.
    pub(crate) stage: Stage,
    /// Tells the builders that there is something in the queue.
    pub(crate) queued: Notify,
    /// One for each build that may run.
    pub(crate) places: Arc<Semaphore>,
    /// The builds and rollouts of this node.
    pub(crate) under_way: UnderWay,
    life: Mutex<Arc<Life>>,
}

/// Where nodes that run apps tell each other that it is worth a look. Lossy: all of them look by themselves too.
pub(crate) const NUDGES: &str = "internal:deploy";
/// Where the routers of all nodes are told that routes have changed. Lossy too.
pub(crate) const ROUTE_NUDGES: &str = "internal:routes";

/// What a nudge says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Nudge {
    /// Who says it.
    pub(crate) node: Uuid,
    /// The project that something happened to; absent when there is something in the queue of builds.
    #[serde(default)]
    pub(crate) project_id: Option<ProjectId>,
}

impl World {
    /// The folder of the logs of apps.
    pub(crate) const APP_LOGS: &str = "apps";
    /// The folder of the logs of deployments.
    pub(crate) const DEPLOYMENT_LOGS: &str = "deployments";

    pub(crate) fn new(
        settings: DeploySettings,
        databases: Databases,
        objects: Arc<dyn ObjectStore>,
        routes: RoutingTable,
        runtime: Arc<dyn Runtime>,
        members: Members,
    ) -> Self {
        let objects = Objects::new(objects);
        let chunks = Chunks::new(objects.clone(), members.me().0);
        let journals = Journals::new(settings.folder.join("logs"), BlockingPool::new("deploy-logs", 1, 1024), chunks);
        Self {
            databases,
            objects,
            routes,
            runtime,
            trash: Trash::new(settings.trash_folder(), settings.build.launcher.pools.clone()),
            pools: settings.build.launcher.pools.clone(),
            journals,
            nodes: Nodes::new(members),
            telling: Telling::default(),
            stage: Stage::default(),
            queued: Notify::new(),
            places: Arc::new(Semaphore::new(settings.builders)),
            under_way: UnderWay::default(),
            life: Mutex::default(),
            settings,
        }
    }

    /// The domain's life on this node. Whoever waits for its end asks for it anew in each life.
    pub(crate) fn life(&self) -> Arc<Life> {
        self.life.lock().clone()
    }

    /// The life before, if there was one, has ended.
    pub(crate) fn begin_life(&self) {
        *self.life.lock() = Arc::default();
    }

    /// Whether the node takes on nothing new.
    pub(crate) fn is_leaving(&self) -> bool {
        let life = self.life();
        life.leaving.is_cancelled() || life.closing.is_cancelled() || self.nodes.is_draining()
    }

    pub(crate) fn deployment_journal(&self, id: DeploymentId) -> Journal {
        self.journals.open(Self::deployment_log(id), self.settings.build_log_bytes)
    }

    pub(crate) fn app_journal(&self, id: ProjectId) -> Journal {
        self.journals.open(Self::app_log(id), self.settings.app_log_bytes)
    }

    pub(crate) fn deployment_log(id: DeploymentId) -> PathBuf {
        PathBuf::from(Self::DEPLOYMENT_LOGS).join(id.to_string())
    }

    pub(crate) fn app_log(id: ProjectId) -> PathBuf {
        PathBuf::from(Self::APP_LOGS).join(id.to_string())
    }

    /// A folder for work in progress; whatever is in there belongs to nobody after a start.
    pub(crate) fn work_folder(&self) -> PathBuf {
        self.settings.folder.join("work")
    }

    /// The folders of instances, which end with them.
    pub(crate) fn instance_folder(&self) -> PathBuf {
        self.settings.folder.join("instances")
    }

    /// Begins a build or rollout, which a cancel of the deployment ends; the node's stop ends it too.
    pub(crate) fn begin(&self, id: DeploymentId, work: Work) -> Errand {
        self.under_way.begin(id, work, self.life().closing.child_token())
    }

    /// Tells a visitor why nobody answers, as long as nothing of the app runs.
    pub(crate) fn set_idle_route(&self, app: &AppRow, deploying: bool) {
        let state = idle_state(app, deploying);
        self.routes.set(&app.name, Route { backends: Vec::new(), state });
    }
}

/// The state of an app's route while it has no healthy instance and none that crashed.
pub(crate) fn idle_state(app: &AppRow, deploying: bool) -> RouteState {
    if app.serving.is_none() {
        return if deploying { RouteState::Deploying } else { RouteState::NoRelease };
    }
    let web = app.shown_formation().processes.get(crate::WEB).copied().unwrap_or(0);
    if web == 0 { RouteState::Stopped } else { RouteState::Serving }
}

/// The world as an actor on one thread sees it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    world: Arc<World>,
    pub(crate) database: Database,
    pub(crate) clock: Clock,
    pub(crate) bus: Bus,
    pub(crate) live: Live,
    /// The disk below the node's data folder, where everything is built.
    pub(crate) disk: Disk,
}

impl Deref for Context {
    type Target = World;
    fn deref(&self) -> &World {
        &self.world
    }
}

impl Context {
    pub(crate) async fn of_shard(world: Arc<World>, shard: ShardContext) -> Result<Self, StartError> {
        let database = world.databases.open(crate::DOMAIN).await.map_err(StartError::new)?;
        Ok(Self { world, database, clock: shard.clock, bus: shard.bus, live: shard.live, disk: shard.disk })
    }

    pub(crate) async fn of_child(world: Arc<World>, child: &ChildContext) -> Result<Self, Error> {
        let database = world.databases.open(crate::DOMAIN).await?;
        let (clock, bus, live, disk) = (child.clock.clone(), child.bus.clone(), child.live.clone(), child.disk.clone());
        Ok(Self { world, database, clock, bus, live, disk })
    }

    /// The log of a deployment.
    pub(crate) fn deployment_log(&self, id: DeploymentId) -> Log {
        Log::of_deployment(&self.world, id, &self.live, &self.clock)
    }

    /// The log of an app.
    pub(crate) fn app_log(&self, id: ProjectId) -> Log {
        Log::of_app(&self.world, id, &self.live, &self.clock)
    }

    /// Reads a deployment anew and tells everyone who follows it, or its project.
    pub(crate) async fn announce(&self, id: DeploymentId) -> Result<Option<Deployment>, Failure> {
        Ok(deployments::get(&self.database, id).await?.map(|row| self.show(row)))
    }

    /// The deployment as its followers see it.
    pub(crate) fn view(&self, row: DeploymentRow) -> Deployment {
        let url = self.settings.url(&row.name);
        row.view(url)
    }

    /// Tells everyone who follows the deployment, or its project.
    pub(crate) fn show(&self, row: DeploymentRow) -> Deployment {
        let deployment = self.view(row);
        self.publish(&deployment_topic(deployment.id), "deployment", &deployment);
        self.publish(&project_topic(deployment.project_id), "deployment", &deployment);
        deployment
    }

    /// Tells everyone who follows the project about one of its instances.
    pub(crate) fn publish_instance(&self, project_id: ProjectId, kind: &'static str, instance: &Instance) {
        self.publish(&project_topic(project_id), kind, instance);
    }

    /// Has whoever looks after the app, on whatever node, look at the store.
    pub(crate) fn wake(&self, project_id: ProjectId) {
        self.waker(project_id)();
    }

    /// The same for later.
    pub(crate) fn waker(&self, project_id: ProjectId) -> impl FnOnce() + Send + 'static {
        let (world, live) = (self.world.clone(), self.live.clone());
        move || {
            world.stage.wake(project_id);
            publish(&live, NUDGES, "nudge", &Nudge { node: world.nodes.me(), project_id: Some(project_id) });
        }
    }

    /// Has builders of all nodes look at the queue.
    pub(crate) fn wake_builders(&self) {
        self.queued.notify_one();
        self.publish(NUDGES, "nudge", &Nudge { node: self.nodes.me(), project_id: None });
    }

    /// Has the routers of all nodes ask for the routes.
    pub(crate) fn nudge_routers(&self) {
        self.publish(ROUTE_NUDGES, "nudge", &serde_json::Value::Null);
    }

    /// Tells visitors of an app that was just made: there is nothing to run yet.
    pub(crate) fn show_new(&self, name: &str) {
        self.routes.set(name, Route { backends: Vec::new(), state: RouteState::NoRelease });
        self.nudge_routers();
    }

    /// Tells visitors of an app without an actor what is so now; an actor does it itself, wherever it is.
    pub(crate) async fn refresh_route(&self, project_id: ProjectId) -> Result<(), Failure> {
        if self.stage.get(project_id).is_some() {
            self.stage.wake(project_id);
        } else if let Some(app) = apps::get(&self.database, project_id).await?.filter(|app| !app.is_removed()) {
            if app.owner_node.is_none() {
                let running = deployments::running(&self.database, project_id).await?;
                self.set_idle_route(&app, running.is_some());
            }
            self.wake(project_id);
        }
        self.nudge_routers();
        Ok(())
    }

    fn publish(&self, topic: &str, kind: &'static str, view: &impl Serialize) {
        publish(&self.live, topic, kind, view);
    }

    /// Ends a deployment that has not ended: its log, its row, and whoever follows it learn why. False when it had
    /// ended already, or is no longer the author's to end.
    pub(crate) async fn fail(&self, id: DeploymentId, author: Author, sentence: &str) -> Result<bool, Failure> {
        let (status, now) = (DeploymentStatus::Failed, self.clock.now());
        let ended = steps::end(&self.database, &Caller::system(), author, id, status, Some(sentence), now).await?;
        if ended {
            self.deployment_log(id).trouble(sentence);
            self.announce(id).await?;
        }
        Ok(ended)
    }
}

fn publish(live: &Live, topic: &str, kind: &'static str, view: &impl Serialize) {
    if let Ok(data) = serde_json::to_value(view) {
        live.publish(topic, LiveEvent::new(kind, data));
    }
}
