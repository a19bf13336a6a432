//! The end of an app, when its project is deleted.

use std::time::Duration;

use callboard_messages::{Caller, deploy::CleanupEnvironment};
use callboard_supervisors::{Handle, Outcome};

use super::Deploys;
use crate::{
    prune,
    store::{apps, deployments},
};

const LOOKED_EVERY: Duration = Duration::from_millis(20);

impl Handle<CleanupEnvironment> for Deploys {
    /// Every step can be repeated: the rows go last, so a second try finds what the first one has left.
    async fn handle(&self, _: &Caller, message: CleanupEnvironment) -> Outcome<CleanupEnvironment> {
        let context = &self.context;
        let project_id = message.project_id;
        apps::condemn(&context.database, project_id, context.clock.now()).await?;
        if let Some((id, _)) = deployments::running(&context.database, project_id).await?
            && let Some(row) = deployments::get(&context.database, id).await?
        {
            self.cancel(&row).await?;
            // Its builder or rollout takes its token away last.
            while context.cancels.lock().contains_key(&id) {
                context.clock.sleep(LOOKED_EVERY).await;
            }
        }
        context.stage.wake(project_id);
        while let Some(app) = context.stage.get(project_id) {
            let mut changes = app.changes();
            if app.instances().is_empty() {
                break;
            }
            if changes.changed().await.is_err() {
                break;
            }
        }
        prune::everything(context, project_id).await?;
        if let Some(app) = apps::get(&context.database, project_id).await? {
            context.routes.remove(&app.name);
        }
        let mut transaction = context.database.begin().await?;
        apps::erase(&mut transaction, project_id).await?;
        transaction.commit().await?;
        Ok(())
    }
}
