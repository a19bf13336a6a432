//! Building the source of an earlier deployment again.

use callboard_messages::{
    Caller,
    deploy::{CreateDeployment, DeployError, Redeploy},
};
use callboard_supervisors::{Handle, Outcome};

use super::Deploys;

impl Handle<Redeploy> for Deploys {
    async fn handle(&self, caller: &Caller, message: Redeploy) -> Outcome<Redeploy> {
        let row = self.deployment(caller, message.deployment_id).await?;
        let source = row.source.ok_or_else(|| {
            DeployError::Invalid(
                "a restart and a rollback build nothing, so there is no source to build again".to_owned(),
            )
        })?;
        let again = CreateDeployment {
            project_id: row.project_id,
            source,
            allow_missing: false,
            rebuild: true,
            config: row.config,
        };
        Handle::<CreateDeployment>::handle(self, caller, again).await
    }
}
