//! The world as an actor sees it on its own thread: with the thread's database, bus and clock.

use std::{ops::Deref, sync::Arc};

use callboard_messages::{
    Caller, DeploymentId, Failure, ProjectId,
    deploy::{Deployment, DeploymentStatus, DeploymentTopic, Instance, ProjectTopic},
    live::Topic,
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
    logs::log::Log,
    store::{
        apps,
        deployments::{self, DeploymentRow},
        releases,
        steps::{self, Author},
    },
    world::World,
};

/// Live topic of nudges between nodes that run apps. Lossy: all of them scan as well.
pub(crate) const NUDGES: &str = "internal:deploy";
/// Live topic of nudges to the routers of all nodes. Lossy: routers poll as well.
pub(crate) const ROUTE_NUDGES: &str = "internal:routes";

/// A nudge: something has changed in the store.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Nudge {
    /// The node that sends it.
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

    /// Reads a deployment and publishes it on its live topic and its project's.
    pub(crate) async fn announce(&self, id: DeploymentId) -> Result<Option<Deployment>, Failure> {
        Ok(deployments::get(&self.database, id).await?.map(|row| self.show(row)))
    }

    /// The deployment as its followers see it.
    pub(crate) fn view(&self, row: DeploymentRow) -> Deployment {
        let url = self.settings.url(&row.name);
        row.view(url)
    }

    /// Publishes the deployment on its live topic and its project's.
    pub(crate) fn show(&self, row: DeploymentRow) -> Deployment {
        let deployment = self.view(row);
        self.publish(&DeploymentTopic::name(deployment.id), "deployment", &deployment);
        self.publish(&ProjectTopic::name(deployment.project_id), "deployment", &deployment);
        deployment
    }

    /// Publishes an instance on the live topic of its project.
    pub(crate) fn publish_instance(&self, project_id: ProjectId, kind: &'static str, instance: &Instance) {
        self.publish(&ProjectTopic::name(project_id), kind, instance);
    }

    /// Wakes the app's actor, on whatever node it is.
    pub(crate) fn wake(&self, project_id: ProjectId) {
        self.waker(project_id)();
    }

    /// The same for later.
    pub(crate) fn waker(&self, project_id: ProjectId) -> impl FnOnce() + Send + 'static {
        let (world, live) = (self.world.clone(), self.live.clone());
        move || {
            world.apps.wake(project_id);
            publish(&live, NUDGES, "nudge", &Nudge { node: world.nodes.me(), project_id: Some(project_id) });
        }
    }

    /// Wakes the build dispatchers of all nodes.
    pub(crate) fn wake_builders(&self) {
        self.queued.notify_one();
        self.publish(NUDGES, "nudge", &Nudge { node: self.nodes.me(), project_id: None });
    }

    /// Makes the routers of all nodes poll the routes.
    pub(crate) fn nudge_routers(&self) {
        self.publish(ROUTE_NUDGES, "nudge", &serde_json::Value::Null);
    }

    /// Sets the route of a new app, which has no release yet.
    pub(crate) fn show_new(&self, name: &str) {
        self.routes.set(name, Route { backends: Vec::new(), state: RouteState::NoRelease });
        self.nudge_routers();
    }

    /// Sets the route of an app without an actor; an actor on any node sets it itself.
    pub(crate) async fn refresh_route(&self, project_id: ProjectId) -> Result<(), Failure> {
        if self.apps.get(project_id).is_some() {
            self.apps.wake(project_id);
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

    /// Ends a deployment that has not ended: writes why to its log and its row, and publishes it. False when it had
    /// ended already, or is no longer the author's to end.
    pub(crate) async fn fail(&self, id: DeploymentId, author: Author, sentence: &str) -> Result<bool, Failure> {
        let (status, now) = (DeploymentStatus::Failed, self.clock.now());
        // Before the end: whoever follows the deployment stops there.
        let serves = self.what_serves(id).await?;
        let ended = steps::end(&self.database, &Caller::system(), author, id, status, Some(sentence), now).await?;
        if ended {
            let log = self.deployment_log(id);
            log.trouble(sentence);
            log.detail(&serves);
            self.announce(id).await?;
        }
        Ok(ended)
    }
}

impl Context {
    /// What answers at the address of an app whose deployment has failed.
    async fn what_serves(&self, id: DeploymentId) -> Result<String, Failure> {
        let Some(deployment) = deployments::get(&self.database, id).await? else { return Ok(String::new()) };
        let app = apps::get(&self.database, deployment.project_id).await?;
        let release = match app.and_then(|app| app.serving) {
            Some(serving) => releases::get(&self.database, serving.release_id).await?,
            None => None,
        };
        Ok(match release {
            Some(release) => format!("v{} serves as before", release.version),
            None => "nothing serves: no deployment of this app has succeeded yet".to_owned(),
        })
    }
}

fn publish(live: &Live, topic: &str, kind: &'static str, view: &impl Serialize) {
    if let Ok(data) = serde_json::to_value(view) {
        live.publish(topic, LiveEvent::new(kind, data));
    }
}
