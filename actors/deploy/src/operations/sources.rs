//! Uploads.

use callboard_messages::{
    Caller, Failure,
    deploy::{DeployError, RegisterSource},
};
use callboard_supervisors::{Handle, Outcome};

use super::Deploys;
use crate::{objects::Objects, store::sources};

impl Handle<RegisterSource> for Deploys {
    async fn handle(&self, caller: &Caller, message: RegisterSource) -> Outcome<RegisterSource> {
        let RegisterSource { project_id, source } = message;
        self.open_project(caller, project_id).await?;
        let path = Objects::source(source.id);
        if source.size > self.context.settings.source_bytes {
            return Err(DeployError::TooLarge(self.context.settings.source_bytes).into());
        }
        if !self.context.objects.has(&path).await? {
            return Err(DeployError::NotFound("uploaded source".to_owned()).into());
        }
        let now = self.context.clock.now();
        let ours = sources::insert(&self.context.database, project_id, caller.tenant()?, &source, now).await?;
        if !ours {
            return Err(Failure::Internal("the id of an upload was given twice".to_owned()).into());
        }
        Ok(source)
    }
}
