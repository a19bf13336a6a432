//! Build caches: clear them.

use callboard_messages::{Caller, deploy::ClearCache};
use callboard_supervisors::{Handle, Outcome};

use super::Deploys;
use crate::store::caches;

impl Handle<ClearCache> for Deploys {
    async fn handle(&self, caller: &Caller, message: ClearCache) -> Outcome<ClearCache> {
        let Some(app) = self.app(caller, message.project_id).await? else { return Ok(()) };
        caches::clear(&self.context.database, app.project_id).await?;
        // Other nodes find by the generation that theirs are not to be used, and remove them then. So does this one.
        if let Err(error) = self.context.caches.remove(app.project_id).await {
            tracing::warn!(project_id = %app.project_id, %error, "removing cleared build caches failed; no build uses them");
        }
        Ok(())
    }
}
