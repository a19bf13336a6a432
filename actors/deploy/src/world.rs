//! The state that the domain keeps on a node, one per process. It outlives the shards and children that are rebuilt after a
//! fault.

use std::{path::PathBuf, sync::Arc};

use callboard_messages::{DeploymentId, ProjectId};
use callboard_platform::{
    cluster::Members,
    routing::{Route, RouteState, RoutingTable},
};
use callboard_supervisors::{BlockingPool, db::Databases};
use object_store::ObjectStore;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::{
    apps::{Stage, events::Telling},
    folder::trash::Trash,
    logs::{
        chunks::Chunks,
        journal::{Journal, Journals},
    },
    objects::Objects,
    ownership::{
        lifecycle::Life,
        nodes::Nodes,
        work::{Errand, UnderWay, Work},
    },
    pools::Pools,
    runtime::Runtime,
    settings::DeploySettings,
    store::apps::AppRow,
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
