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
    apps::{AppRegistry, events::InstanceEvents},
    build::{cache::Caches, tools::Tools},
    folder::trash::Trash,
    logs::{
        chunks::Chunks,
        journal::{Journal, Journals},
    },
    objects::Objects,
    ownership::{
        lifecycle::Lifecycle,
        nodes::Nodes,
        work::{Work, WorkGuard, WorkRegistry},
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
    /// The programs of this node that builds and apps need.
    pub(crate) tools: Tools,
    pub(crate) trash: Trash,
    pub(crate) caches: Caches,
    pub(crate) journals: Journals,
    pub(crate) nodes: Nodes,
    pub(crate) instance_events: InstanceEvents,
    pub(crate) apps: AppRegistry,
    /// Wakes the dispatcher of builds.
    pub(crate) queued: Notify,
    /// One permit for each build that may run at a time.
    pub(crate) build_permits: Arc<Semaphore>,
    pub(crate) work: WorkRegistry,
    lifecycle: Mutex<Arc<Lifecycle>>,
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
        let pools = settings.build.launcher.pools.clone();
        let trash = Trash::new(settings.trash_folder(), pools.clone());
        let caches = Caches::new(settings.folder.join("caches"), settings.caches.clone(), trash.clone(), pools.clone());
        Self {
            databases,
            objects,
            routes,
            runtime,
            tools: Tools::of_path(settings.build.launcher.path.clone()),
            trash,
            caches,
            pools,
            journals,
            nodes: Nodes::new(members),
            instance_events: InstanceEvents::default(),
            apps: AppRegistry::default(),
            queued: Notify::new(),
            build_permits: Arc::new(Semaphore::new(settings.builders)),
            work: WorkRegistry::default(),
            lifecycle: Mutex::default(),
            settings,
        }
    }

    /// The domain's current lifecycle on this node; a revived domain has a new one.
    pub(crate) fn lifecycle(&self) -> Arc<Lifecycle> {
        self.lifecycle.lock().clone()
    }

    /// Begins a lifecycle; the one before has ended.
    pub(crate) fn begin_lifecycle(&self) {
        *self.lifecycle.lock() = Arc::default();
    }

    /// Whether this node claims nothing new.
    pub(crate) fn is_draining(&self) -> bool {
        let lifecycle = self.lifecycle();
        lifecycle.draining.is_cancelled() || lifecycle.closing.is_cancelled() || self.nodes.is_draining()
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

    /// Registers a build or rollout, which a cancel of the deployment or the node's stop ends.
    pub(crate) fn begin(&self, id: DeploymentId, work: Work) -> WorkGuard {
        self.work.begin(id, work, self.lifecycle().closing.child_token())
    }

    /// Sets the route of an app that has no instance, so that visitors learn why.
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
