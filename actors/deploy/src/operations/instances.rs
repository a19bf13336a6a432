//! Instances of apps, on this node and on others.

use callboard_messages::{
    Caller, ProjectId,
    deploy::{Formation, Instance, Instances, ListInstances, RunningInstances},
};
use callboard_supervisors::{Handle, Outcome};
use uuid::Uuid;

use super::{Deploys, Refusable};

impl Handle<ListInstances> for Deploys {
    async fn handle(&self, caller: &Caller, message: ListInstances) -> Outcome<ListInstances> {
        let settings = &self.context.settings;
        let Some(app) = self.app(caller, message.project_id).await? else {
            let project = self.project(caller, message.project_id).await?;
            let url = settings.url(&project.name);
            return Ok(Instances { items: Vec::new(), formation: Formation::default(), url });
        };
        let items = match app.owner_node {
            Some(node) => self.running_at(caller, node, app.project_id).await?,
            None => self.running_here(app.project_id),
        };
        Ok(Instances { items, formation: app.shown_formation(), url: settings.url(&app.name) })
    }
}

impl Handle<RunningInstances> for Deploys {
    async fn handle(&self, _: &Caller, message: RunningInstances) -> Outcome<RunningInstances> {
        Ok(self.running_here(message.project_id))
    }
}

impl Deploys {
    fn running_here(&self, project_id: ProjectId) -> Vec<Instance> {
        let running = self.context.apps.get(project_id);
        let instances = running.map(|app| app.instances()).unwrap_or_default();
        instances.iter().map(|instance| instance.view()).collect()
    }

    /// Asks the app's owner, which alone knows. Nothing runs on an owner that is gone; one that can't be reached is an error.
    async fn running_at(&self, caller: &Caller, node: Uuid, project_id: ProjectId) -> Refusable<Vec<Instance>> {
        let context = &self.context;
        if node == context.nodes.me() {
            return Ok(self.running_here(project_id));
        }
        if context.nodes.is_gone(node, context.clock.instant()) {
            return Ok(Vec::new());
        }
        context.bus.ask_at(node, &caller.as_system(), RunningInstances { project_id }).await
    }
}
