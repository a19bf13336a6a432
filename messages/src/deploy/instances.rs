//! Running copies of an app's process types.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DeployError, Formation};
use crate::{Access, Operation, ProjectId, ids::id, shapes::ProcessType};

id!(
    /// One running copy of a process type.
    InstanceId
);

/// One running copy of a process type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// The instance.
    pub id: InstanceId,
    /// `web`, `worker`, ….
    #[schema(value_type = ProcessType)]
    pub process: String,
    /// 1, 2, 3, … within the process type: `web.1`.
    #[schema(minimum = 1)]
    pub index: u32,
    /// The release it runs.
    #[schema(minimum = 1)]
    pub release_version: i64,
    /// Where it stands.
    pub status: InstanceStatus,
    /// The operating system's process.
    pub pid: Option<u32>,
    /// Where it listens, on the node's loopback address.
    pub port: Option<u16>,
    /// How often it was started again after it ended by itself.
    pub restarts: u32,
    /// How it last ended by itself, in a sentence.
    #[schema(max_length = 16_384)]
    pub last_exit: Option<String>,
    /// UTC.
    pub started_at: DateTime<Utc>,
}

/// Where an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceStatus {
    /// Started, not yet healthy.
    Starting,
    /// Serves.
    Healthy,
    /// Runs, but its health check fails.
    Unhealthy,
    /// Ended by itself; waits for its next start.
    Crashed,
    /// Finishes its last requests.
    Stopping,
}

/// What runs, and what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Instances {
    /// What runs, by process type and index.
    #[schema(max_items = 2_000)]
    pub items: Vec<Instance>,
    /// What is wanted.
    pub formation: Formation,
    /// Where the app answers.
    #[schema(format = "uri", max_length = 2_048)]
    pub url: String,
}

/// A project's instances.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListInstances {
    /// Which project.
    pub project_id: ProjectId,
}

impl Operation for ListInstances {
    const NAME: &'static str = "deploy.list_instances";
    const ACCESS: Access = Access::Permission("deploy:read");
    const IDEMPOTENT: bool = true;
    type Reply = Instances;
    type Error = DeployError;
}

/// The instances that the asked node runs of an app: only their node knows them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunningInstances {
    /// Of which project.
    pub project_id: ProjectId,
}

impl Operation for RunningInstances {
    const NAME: &'static str = "deploy.running_instances";
    const ACCESS: Access = Access::Internal;
    const IDEMPOTENT: bool = true;
    type Reply = Vec<Instance>;
    type Error = DeployError;
}
