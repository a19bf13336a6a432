//! What can be followed, by whom, and what its store still knows.

use callboard_messages::{
    CallError, Caller, Code, DeploymentId, DomainError, ProjectId,
    deploy::{Deployment, GetBuildLog, GetDeployment, GetLogs, LogLines},
    project::GetProject,
};

use crate::{problem::Problem, worker::Worker};

/// Lines asked for at once when a log is caught up with.
pub(super) const LINES: u32 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    Project(ProjectId),
    Deployment(DeploymentId),
    Logs(ProjectId),
}

impl Topic {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let unknown =
            || Problem::invalid(format!("{text:?} is no topic: they are project:<id>, deployment:<id> and logs:<id>"));
        let (kind, id) = text.trim().split_once(':').ok_or_else(unknown)?;
        match kind {
            "project" => id.parse().map(Self::Project).map_err(|_| unknown()),
            "deployment" => id.parse().map(Self::Deployment).map_err(|_| unknown()),
            "logs" => id.parse().map(Self::Logs).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }

    /// As the hub knows it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Project(id) => format!("project:{id}"),
            Self::Deployment(id) => format!("deployment:{id}"),
            Self::Logs(id) => format!("logs:{id}"),
        }
    }

    /// Whether lines are kept in a store, under ids of their own.
    pub(super) const fn has_lines(&self) -> bool {
        matches!(self, Self::Deployment(_) | Self::Logs(_))
    }

    /// Asks the domain, in the caller's name. A deployment is also where its stream begins.
    pub(super) async fn authorize(&self, worker: &Worker, caller: &Caller) -> Result<Option<Deployment>, Problem> {
        let bus = worker.bus();
        match *self {
            Self::Project(project_id) | Self::Logs(project_id) => {
                bus.ask(caller, GetProject { project_id }).await?;
                if caller.scopes.allows("deploy:read") {
                    return Ok(None);
                }
                Err(Problem::of(Code::Forbidden, "this needs the permission deploy:read"))
            }
            Self::Deployment(deployment_id) => Ok(Some(bus.ask(caller, GetDeployment { deployment_id }).await?)),
        }
    }

    /// The lines after `after`, oldest first.
    pub(super) async fn lines(&self, worker: &Worker, caller: &Caller, after: u64) -> Result<LogLines, Problem> {
        let bus = worker.bus();
        let (after, limit) = (Some(after), Some(LINES));
        match *self {
            Self::Logs(project_id) => known(bus.ask(caller, GetLogs { project_id, after, limit }).await),
            Self::Deployment(deployment_id) => {
                known(bus.ask(caller, GetBuildLog { deployment_id, after, limit }).await)
            }
            Self::Project(_) => Ok(LogLines { items: Vec::new() }),
        }
    }
}

/// A project that was never deployed has no log yet.
fn known<E: DomainError>(lines: Result<LogLines, CallError<E>>) -> Result<LogLines, Problem> {
    match lines {
        Err(CallError::Refused(refusal)) if refusal.code() == Code::NotFound => Ok(LogLines { items: Vec::new() }),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_told_by_name_and_id() {
        let id = ProjectId::new();
        for topic in [Topic::Project(id), Topic::Deployment(DeploymentId(id.0)), Topic::Logs(id)] {
            assert_eq!(Topic::parse(&topic.name()).unwrap(), topic);
        }
        for bad in ["", "project", "project:", "project:7", "user:0190b0a0-0000-7000-8000-000000000000", "*"] {
            assert!(Topic::parse(bad).is_err(), "{bad}");
        }
    }
}
