//! What every actor of the domain needs: the world, which is one per node, and its own thread's ways to it.

use std::{collections::HashMap, ops::Deref, path::PathBuf, sync::Arc};

use callboard_messages::{
    DeploymentId, Failure, ProjectId,
    deploy::{Deployment, DeploymentStatus, Instance},
};
use callboard_supervisors::{
    BlockingPool, Bus, ChildContext, Clock, Live, LiveEvent, ShardContext, StartError,
    db::{Database, Databases, Error},
    routing::{Route, RouteState, RoutingTable},
};
use object_store::ObjectStore;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    journal::{Journal, Journals},
    log::{Log, deployment_topic, project_topic},
    objects::Objects,
    runtime::Runtime,
    settings::DeploySettings,
    stage::Stage,
    store::{
        apps::{self, AppRow},
        deployments,
    },
};

/// Threads that unpack and pack.
const ARCHIVE_THREADS: usize = 2;
/// Archives that may wait for one.
const ARCHIVE_QUEUE: usize = 256;

/// One per node; outlives the shards and children that are rebuilt after a fault.
pub(crate) struct World {
    pub(crate) settings: DeploySettings,
    pub(crate) databases: Databases,
    pub(crate) objects: Objects,
    pub(crate) routes: RoutingTable,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) archives: BlockingPool,
    pub(crate) journals: Journals,
    /// The apps that run.
    pub(crate) stage: Stage,
    /// Tells the builders that there is something in the queue.
    pub(crate) queued: Notify,
    /// One for each build that may run.
    pub(crate) places: Arc<Semaphore>,
    /// Whether the start of the node is over: builders wait for it.
    pub(crate) recovered: watch::Sender<bool>,
    /// Ends the builds and rollouts that were cancelled.
    pub(crate) cancels: Mutex<HashMap<DeploymentId, CancellationToken>>,
    /// The node stops: everything ends, and is taken up again at the next start.
    pub(crate) closing: CancellationToken,
}

impl World {
    pub(crate) fn new(
        settings: DeploySettings,
        databases: Databases,
        objects: Arc<dyn ObjectStore>,
        routes: RoutingTable,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        let journals = Journals::new(settings.folder.join("logs"), BlockingPool::new("deploy-logs", 1, 1024));
        Self {
            databases,
            objects: Objects::new(objects),
            routes,
            runtime,
            archives: BlockingPool::new("deploy-archives", ARCHIVE_THREADS, ARCHIVE_QUEUE),
            journals,
            stage: Stage::default(),
            queued: Notify::new(),
            places: Arc::new(Semaphore::new(settings.builders)),
            recovered: watch::Sender::new(false),
            cancels: Mutex::default(),
            closing: CancellationToken::new(),
            settings,
        }
    }

    pub(crate) fn deployment_journal(&self, id: DeploymentId) -> Journal {
        self.journals.open(Self::deployment_log(id), self.settings.build_log_bytes)
    }

    pub(crate) fn app_journal(&self, id: ProjectId) -> Journal {
        self.journals.open(Self::app_log(id), self.settings.app_log_bytes)
    }

    pub(crate) fn deployment_log(id: DeploymentId) -> PathBuf {
        PathBuf::from("deployments").join(id.to_string())
    }

    pub(crate) fn app_log(id: ProjectId) -> PathBuf {
        PathBuf::from("apps").join(id.to_string())
    }

    /// A folder for work in progress; whatever is in there belongs to nobody after a start.
    pub(crate) fn work_folder(&self) -> PathBuf {
        self.settings.folder.join("work")
    }

    /// The folders of instances, which end with them.
    pub(crate) fn instance_folder(&self) -> PathBuf {
        self.settings.folder.join("instances")
    }

    /// What a cancel of this deployment cancels; the node's stop cancels it too.
    pub(crate) fn cancel_token(&self, id: DeploymentId) -> CancellationToken {
        self.cancels.lock().entry(id).or_insert_with(|| self.closing.child_token()).clone()
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
        Ok(Self { world, database, clock: shard.clock, bus: shard.bus, live: shard.live })
    }

    pub(crate) async fn of_child(world: Arc<World>, child: &ChildContext) -> Result<Self, Error> {
        let database = world.databases.open(crate::DOMAIN).await?;
        let (clock, bus, live) = (child.clock.clone(), child.bus.clone(), child.live.clone());
        Ok(Self { world, database, clock, bus, live })
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
        let Some(row) = deployments::get(&self.database, id).await? else { return Ok(None) };
        let url = self.settings.url(&row.name);
        let deployment = row.view(url);
        self.publish(&deployment_topic(id), "deployment", &deployment);
        self.publish(&project_topic(deployment.project_id), "deployment", &deployment);
        Ok(Some(deployment))
    }

    /// Tells everyone who follows the project about one of its instances.
    pub(crate) fn publish_instance(&self, project_id: ProjectId, kind: &'static str, instance: &Instance) {
        self.publish(&project_topic(project_id), kind, instance);
    }

    /// Tells visitors of an app without an actor what is so now; an actor does it itself.
    pub(crate) async fn refresh_route(&self, project_id: ProjectId) -> Result<(), Failure> {
        if self.stage.get(project_id).is_some() {
            self.stage.wake(project_id);
        } else if let Some(app) = apps::get(&self.database, project_id).await?.filter(|app| !app.is_removed()) {
            let running = deployments::running(&self.database, project_id).await?;
            self.set_idle_route(&app, running.is_some());
        }
        Ok(())
    }

    fn publish(&self, topic: &str, kind: &'static str, view: &impl Serialize) {
        if let Ok(data) = serde_json::to_value(view) {
            self.live.publish(topic, LiveEvent::new(kind, data));
        }
    }

    /// Ends a deployment that has not ended: its log, its row, and whoever follows it learn why. False when it had
    /// ended already.
    pub(crate) async fn fail(&self, id: DeploymentId, sentence: &str) -> Result<bool, Failure> {
        let status = DeploymentStatus::Failed;
        let ended = deployments::end(&self.database, id, status, Some(sentence), self.clock.now()).await?;
        if ended {
            self.deployment_log(id).trouble(sentence);
            self.announce(id).await?;
        }
        Ok(ended)
    }
}
