//! Stored logs. New lines are on the live topics.
//!
//! What a node wrote last is on its own disk only, for a second or so: it is asked for it while it is there. What other
//! nodes have stored is read from the object store, also when they are gone.

use callboard_messages::{
    Caller,
    deploy::{DeployError, GetBuildLog, GetLogs, LogLine, LogLines, LogName, ReadLog},
};
use callboard_supervisors::{Handle, Outcome};
use futures_util::future::join_all;
use uuid::Uuid;

use super::{Deploys, Refusable};
use crate::{
    logs::journal::{Journal, Range, merge},
    store::{apps, deployments},
};

const LIMIT_MAXIMUM: u32 = 10_000;
const BUILD_LIMIT: u32 = 1_000;
const RUN_LIMIT: u32 = 100;

fn limit(asked: Option<u32>, default: u32) -> Result<usize, DeployError> {
    let limit = asked.unwrap_or(default);
    if !(1..=LIMIT_MAXIMUM).contains(&limit) {
        return Err(DeployError::Invalid(format!("limit must be 1 to {LIMIT_MAXIMUM}")));
    }
    Ok(limit as usize)
}

impl Handle<GetBuildLog> for Deploys {
    async fn handle(&self, caller: &Caller, message: GetBuildLog) -> Outcome<GetBuildLog> {
        let limit = limit(message.limit, BUILD_LIMIT)?;
        let deployment = deployments::owned(&self.context.database, message.deployment_id, caller.tenant()?).await?;
        let deployment = deployment.ok_or_else(|| DeployError::NotFound("deployment".to_owned()))?;
        let app = apps::get(&self.context.database, deployment.project_id).await?;
        let writers = [deployment.builder_node, app.and_then(|app| app.owner_node)];
        let range = Range::After(message.after.unwrap_or(0));
        Ok(LogLines { items: self.lines(caller, LogName::Deployment(deployment.id), &writers, range, limit).await? })
    }
}

impl Handle<GetLogs> for Deploys {
    async fn handle(&self, caller: &Caller, message: GetLogs) -> Outcome<GetLogs> {
        let limit = limit(message.limit, RUN_LIMIT)?;
        let Some(app) = self.app(caller, message.project_id).await? else {
            return Ok(LogLines { items: Vec::new() });
        };
        let range = message.after.map_or(Range::Last, Range::After);
        Ok(LogLines { items: self.lines(caller, LogName::App(app.project_id), &[app.owner_node], range, limit).await? })
    }
}

impl Handle<ReadLog> for Deploys {
    async fn handle(&self, _: &Caller, message: ReadLog) -> Outcome<ReadLog> {
        let range = message.after.map_or(Range::Last, Range::After);
        let limit = limit(Some(message.limit), RUN_LIMIT)?;
        Ok(LogLines { items: self.journal(message.log).read_here(range, limit).await? })
    }
}

impl Deploys {
    fn journal(&self, log: LogName) -> Journal {
        match log {
            LogName::Deployment(id) => self.context.deployment_journal(id),
            LogName::App(id) => self.context.app_journal(id),
        }
    }

    /// What is kept of a log, and what those who may be writing it have not stored yet. One that can't be asked is left
    /// out: all but its last second is stored.
    async fn lines(
        &self,
        caller: &Caller,
        log: LogName,
        writers: &[Option<Uuid>],
        range: Range,
        limit: usize,
    ) -> Refusable<Vec<LogLine>> {
        let context = &self.context;
        let kept = self.journal(log).read(range, limit).await?;
        let mut others: Vec<Uuid> = writers.iter().flatten().copied().collect();
        others.retain(|node| *node != context.nodes.me() && context.nodes.is_present(*node));
        others.dedup();
        let after = match range {
            Range::After(after) => Some(after),
            Range::Last => None,
        };
        let caller = caller.as_system();
        let asked = others.into_iter().map(|node| {
            let message = ReadLog { log, after, limit: u32::try_from(limit).unwrap_or(LIMIT_MAXIMUM) };
            let caller = caller.clone();
            async move { (node, context.bus.ask_at(node, &caller, message).await) }
        });
        let mut parts = vec![kept];
        for (node, answer) in join_all(asked).await {
            match answer {
                Ok(lines) => parts.push(lines.items),
                Err(error) => tracing::debug!(%node, %error, "reading a log from the node that writes it failed"),
            }
        }
        Ok(merge(parts, range, limit))
    }
}
