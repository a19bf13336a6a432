//! What builds and instances wrote.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::DeployError;
use crate::{Access, DeploymentId, Operation, ProjectId};

/// A line that a build or an instance wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Grows within a deployment's or a project's log; the live stream's event id.
    pub id: u64,
    /// UTC.
    pub at: DateTime<Utc>,
    /// `build`, `web.1`, `worker.2`, `platform`.
    #[schema(min_length = 1, max_length = 64)]
    pub from: String,
    /// Without its line feed; bounded, invalid UTF-8 replaced.
    #[schema(max_length = 65_536)]
    pub text: String,
}

/// Lines of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLines {
    /// Oldest first.
    #[schema(max_items = 10_000)]
    pub items: Vec<LogLine>,
}

/// Which log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogName {
    /// Of a deployment: build and rollout.
    Deployment(DeploymentId),
    /// Of an app: what its instances write.
    App(ProjectId),
}

/// The build log of a deployment.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GetBuildLog {
    /// Which.
    pub deployment_id: DeploymentId,
    /// Only lines after this id.
    #[serde(default)]
    pub after: Option<u64>,
    /// The most lines, 1 to 10,000; default: 1,000.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 10_000)]
    pub limit: Option<u32>,
}

impl Operation for GetBuildLog {
    const NAME: &'static str = "deploy.build_log";
    const ACCESS: Access = Access::Permission("deploy:read");
    const IDEMPOTENT: bool = true;
    type Reply = LogLines;
    type Error = DeployError;
}

/// What the project's instances wrote: the last lines, or those after an id.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GetLogs {
    /// Which project.
    pub project_id: ProjectId,
    /// Only lines after this id, oldest first; else the last ones.
    #[serde(default)]
    pub after: Option<u64>,
    /// The most lines, 1 to 10,000; default: 100.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 10_000)]
    pub limit: Option<u32>,
}

impl Operation for GetLogs {
    const NAME: &'static str = "deploy.logs";
    const ACCESS: Access = Access::Permission("deploy:read");
    const IDEMPOTENT: bool = true;
    type Reply = LogLines;
    type Error = DeployError;
}

/// Lines of a log as the asked node, which writes it, has them: the newest are not in the object store yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadLog {
    /// Which.
    pub log: LogName,
    /// Only lines after this id, oldest first; else the last ones.
    #[serde(default)]
    pub after: Option<u64>,
    /// The most lines.
    pub limit: u32,
}

impl Operation for ReadLog {
    const NAME: &'static str = "deploy.read_log";
    const ACCESS: Access = Access::Internal;
    const IDEMPOTENT: bool = true;
    // Far below that of `GetLogs`: what a node that stands still has is left out, and said to be.
    const TIMEOUT: Duration = Duration::from_secs(3);
    type Reply = LogLines;
    type Error = DeployError;
}
