//! What of deploy can be followed live.

use uuid::Uuid;

use super::{GetBuildLog, GetDeployment, GetLogs, LogLine, LogLines};
use crate::{
    DeploymentId, ProjectId,
    live::{Log, Topic},
    project::GetProject,
};

/// What a project's deployments and instances come to.
#[derive(Debug, Clone, Copy)]
pub enum ProjectTopic {}

impl Topic for ProjectTopic {
    const KIND: &'static str = "project";
    type Admission = GetProject;
    const PERMISSION: Option<&'static str> = Some("deploy:read");

    fn admission(id: Uuid) -> GetProject {
        GetProject { project_id: ProjectId(id) }
    }
}

/// A deployment, which is told as it is and then as it changes, and its build log.
#[derive(Debug, Clone, Copy)]
pub enum DeploymentTopic {}

impl Topic for DeploymentTopic {
    const KIND: &'static str = "deployment";
    type Admission = GetDeployment;
    const BEGINNING: Option<&'static str> = Some("deployment");

    fn admission(id: Uuid) -> GetDeployment {
        GetDeployment { deployment_id: DeploymentId(id) }
    }
}

impl Log for DeploymentTopic {
    type Lines = GetBuildLog;
    type Line = LogLine;

    fn lines(id: Uuid, after: u64, limit: u32) -> GetBuildLog {
        GetBuildLog { deployment_id: DeploymentId(id), after: Some(after), limit: Some(limit) }
    }

    fn kept(lines: LogLines) -> Vec<(u64, LogLine)> {
        lines.by_id()
    }
}

/// What the instances of a project write.
#[derive(Debug, Clone, Copy)]
pub enum LogTopic {}

impl Topic for LogTopic {
    const KIND: &'static str = "logs";
    type Admission = GetProject;
    const PERMISSION: Option<&'static str> = Some("deploy:read");

    fn admission(id: Uuid) -> GetProject {
        GetProject { project_id: ProjectId(id) }
    }
}

impl Log for LogTopic {
    type Lines = GetLogs;
    type Line = LogLine;

    fn lines(id: Uuid, after: u64, limit: u32) -> GetLogs {
        GetLogs { project_id: ProjectId(id), after: Some(after), limit: Some(limit) }
    }

    fn kept(lines: LogLines) -> Vec<(u64, LogLine)> {
        lines.by_id()
    }
}

impl LogLines {
    fn by_id(self) -> Vec<(u64, LogLine)> {
        self.items.into_iter().map(|line| (line.id, line)).collect()
    }
}
