//! What runs.

use callboard_messages::{
    Caller,
    deploy::{Formation, Instances, ListInstances},
};
use callboard_supervisors::{Handle, Outcome};

use super::Deploys;

impl Handle<ListInstances> for Deploys {
    async fn handle(&self, caller: &Caller, message: ListInstances) -> Outcome<ListInstances> {
        let settings = &self.context.settings;
        let Some(app) = self.app(caller, message.project_id).await? else {
            let project = self.project(caller, message.project_id).await?;
            let url = settings.url(&project.name);
            return Ok(Instances { items: Vec::new(), formation: Formation::default(), url });
        };
        let running = self.context.stage.get(app.project_id);
        let items = running.map(|app| app.instances()).unwrap_or_default();
        Ok(Instances {
            items: items.iter().map(|member| member.view()).collect(),
            formation: app.shown_formation(),
            url: settings.url(&app.name),
        })
    }
}
