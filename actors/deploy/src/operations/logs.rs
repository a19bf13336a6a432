//! Logs, as far as they are kept. What comes next is on the live topics.

use callboard_messages::{
    Caller,
    deploy::{DeployError, GetBuildLog, GetLogs, LogLines},
};
use callboard_supervisors::{Handle, Outcome};

use super::{Deploys, tenant};
use crate::{journal::Range, store::deployments};

const LIMIT_MAXIMUM: u32 = 10_000;
const BUILD_LIMIT: u32 = 1_000;
const RUN_LIMIT: u32 = 100;

fn limit(asked: Option<u32>, default: u32) -> usize {
    asked.unwrap_or(default).clamp(1, LIMIT_MAXIMUM) as usize
}

impl Handle<GetBuildLog> for Deploys {
    async fn handle(&self, caller: &Caller, message: GetBuildLog) -> Outcome<GetBuildLog> {
        let deployment = deployments::owned(&self.context.database, message.deployment_id, tenant(caller)?).await?;
        let deployment = deployment.ok_or_else(|| DeployError::NotFound("deployment".to_owned()))?;
        let range = Range::After(message.after.unwrap_or(0));
        let journal = self.context.deployment_journal(deployment.id);
        Ok(LogLines { items: journal.read(range, limit(message.limit, BUILD_LIMIT)).await? })
    }
}

impl Handle<GetLogs> for Deploys {
    async fn handle(&self, caller: &Caller, message: GetLogs) -> Outcome<GetLogs> {
        let Some(app) = self.app(caller, message.project_id).await? else {
            return Ok(LogLines { items: Vec::new() });
        };
        let range = message.after.map_or(Range::Last, Range::After);
        let journal = self.context.app_journal(app.project_id);
        Ok(LogLines { items: journal.read(range, limit(message.limit, RUN_LIMIT)).await? })
    }
}
