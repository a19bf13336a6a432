//! The world as an actor sees it on its own thread: with the thread's database, bus and clock.

use std::{ops::Deref, sync::Arc};

use callboard_messages::{
    Caller, DeploymentId, Failure, ProjectId,
    deploy::{Deployment, DeploymentStatus, Instance},
};
use callboard_platform::routing::{Route, RouteState};
use callboard_supervisors::{
    Bus, ChildContext, Clock, Live, LiveEvent, ShardContext, StartError,
    db::{Database, Error},
    disk::Disk,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    logs::log::{Log, deployment_topic, project_topic},
    store::{
        apps,
        deployments::{self, DeploymentRow},
        steps::{self, Author},
    },
    world::World,
};

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
