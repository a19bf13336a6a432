//! `deploy`: from source to a running, routed app.

mod environment;
mod events;
mod inside;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    Access, Code, Cursor, DeploymentId, DomainError, InstanceId, Operation, OrganizationId, Page, ProjectId, ReleaseId,
};

pub use environment::{CleanupEnvironment, SetupEnvironment};
pub use events::{
    AppTakenOver, DeploymentBuilding, DeploymentCompleted, DeploymentFact, DeploymentFailed, DeploymentQueued,
    DeploymentRolledBack, DeploymentStarted, InstanceCrashed, InstanceFact, InstanceStarted, InstanceStopped,
    TakeoverFact,
};
pub use inside::{AppRoute, AppRoutes, ListRoutes, LogName, ReadLog, RouteState, RunningInstances};

/// What deploy refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeployError {
    /// Not there, or another tenant's.
    #[error("there is no such {0}")]
    NotFound(String),
    /// Another deployment of the project runs, and only one may.
    #[error("deployment {0} of this project is still running; wait for it or cancel it")]
    InProgress(DeploymentId),
    /// The deployment has ended, so it can't be cancelled.
    #[error("the deployment has ended already")]
    AlreadyEnded,
    /// The project has never been deployed.
    #[error("the project has no release yet; deploy it first")]
    NoRelease,
    /// The app has no process of this type.
    #[error("the app has no process type {0}")]
    NoSuchProcess(String),
    /// A field breaks its rule.
    #[error("{0}")]
    Invalid(String),
    /// An upload over the limit.
    #[error("the source is larger than {0} bytes")]
    TooLarge(u64),
    /// The rollout of a scale, restart or rollback failed; what served before serves still.
    #[error("{0}")]
    RolloutFailed(String),
}

impl DomainError for DeployError {
    fn code(&self) -> Code {
        match self {
            Self::NotFound(_) | Self::NoSuchProcess(_) => Code::NotFound,
            Self::InProgress(_) | Self::AlreadyEnded | Self::NoRelease | Self::RolloutFailed(_) => Code::Conflict,
            Self::Invalid(_) => Code::Invalid,
            Self::TooLarge(_) => Code::TooLarge,
        }
    }
}

/// An uploaded archive that deployments can be made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Source {
    /// The upload.
    pub id: Uuid,
    /// Bytes.
    pub size: u64,
    /// Of the archive, in hex.
    pub sha256: String,
}

/// Records an archive that the gateway has streamed into the object store; asked by the gateway after the upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegisterSource {
    /// Whose.
    pub project_id: ProjectId,
    /// With the id under which it is stored: `sources/<id>`.
    pub source: Source,
}

impl Operation for RegisterSource {
    const NAME: &'static str = "deploy.register_source";
    const ACCESS: Access = Access::Permission("deploy:create");
    const IDEMPOTENT: bool = true;
    type Reply = Source;
    type Error = DeployError;
}

/// Where the source of a deployment is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentSource {
    /// An uploaded archive, tar.gz or zip.
    Archive {
        /// The id of the [`Source`].
        source_id: Uuid,
    },
    /// A git repository.
    Git {
        /// `https://…`.
        url: String,
        /// A branch or tag; the default branch unless told.
        #[serde(default)]
        reference: Option<String>,
    },
}

/// Builds a source and brings it into service, or leaves what serves now.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateDeployment {
    /// Which project.
    pub project_id: ProjectId,
    /// What to build.
    pub source: DeploymentSource,
}

impl Operation for CreateDeployment {
    const NAME: &'static str = "deploy.create";
    const ACCESS: Access = Access::Permission("deploy:create");
    /// By the request: one that comes again finds what it made.
    const IDEMPOTENT: bool = true;
    type Reply = Deployment;
    type Error = DeployError;
}

/// Where a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentStatus {
    /// Waits for a builder.
    Queued,
    /// Fetches, detects and builds.
    Building,
    /// Starts instances and moves traffic.
    Rolling,
    /// Serves.
    Completed,
    /// Ended without taking over; the release before serves.
    Failed,
    /// Ended by request.
    Cancelled,
}

impl DeploymentStatus {
    /// Whether it will not change again.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Building => "building",
            Self::Rolling => "rolling",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a deployment does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentKind {
    /// Builds a source.
    Deploy,
    /// Brings an earlier release back.
    Rollback,
    /// New instances of the release that serves, with the newest environment.
    Restart,
}

/// One attempt to bring a release into service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deployment {
    /// The deployment.
    pub id: DeploymentId,
    /// Of which project.
    pub project_id: ProjectId,
    /// The tenant that owns it.
    pub organization_id: OrganizationId,
    /// What it does.
    pub kind: DeploymentKind,
    /// Where it stands.
    pub status: DeploymentStatus,
    /// Why it failed, in a sentence, with the app's own last words where there are any.
    pub error: Option<String>,
    /// The release it made or brings back.
    pub release_id: Option<ReleaseId>,
    /// That release's number, `v1`, `v2`, ….
    pub release_version: Option<i64>,
    /// The commit, for a git source.
    pub commit: Option<String>,
    /// Where the app answers.
    pub url: String,
    /// UTC.
    pub created_at: DateTime<Utc>,
    /// UTC.
    pub finished_at: Option<DateTime<Utc>>,
}

/// One deployment.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GetDeployment {
    /// Which.
    pub deployment_id: DeploymentId,
}

impl Operation for GetDeployment {
    const NAME: &'static str = "deploy.get_status";
    const ACCESS: Access = Access::Permission("deploy:read");
    const IDEMPOTENT: bool = true;
    type Reply = Deployment;
    type Error = DeployError;
}

/// A project's deployments, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListDeployments {
    /// Which project.
    pub project_id: ProjectId,
    /// How many rows, 1 to 100; 20 unless told.
    #[serde(default)]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(default)]
    pub cursor: Option<Cursor>,
}

impl Operation for ListDeployments {
    const NAME: &'static str = "deploy.list";
    const ACCESS: Access = Access::Permission("deploy:read");
    const IDEMPOTENT: bool = true;
    type Reply = Page<Deployment>;
    type Error = DeployError;
}

/// Ends a deployment that has not ended; what serves now serves on.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CancelDeployment {
    /// Which.
    pub deployment_id: DeploymentId,
}

impl Operation for CancelDeployment {
    const NAME: &'static str = "deploy.cancel";
    const ACCESS: Access = Access::Permission("deploy:create");
    const IDEMPOTENT: bool = true;
    type Reply = Deployment;
    type Error = DeployError;
}

/// An immutable, content-addressed build with the configuration it runs with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Release {
    /// The release.
    pub id: ReleaseId,
    /// Of which project.
    pub project_id: ProjectId,
    /// 1, 2, 3, … within the project.
    pub version: i64,
    /// Of the built folder, SHA-256 in hex.
    pub digest: String,
    /// What was recognized: `node`, `python`, `static`, ….
    pub language: String,
    /// Command by process type.
    pub processes: BTreeMap<String, String>,
    /// The environment's version it was made with.
    pub environment_version: i64,
    /// The deployment that made it.
    pub deployment_id: DeploymentId,
    /// The commit, for a git source.
    pub commit: Option<String>,
    /// Whether it serves now.
    pub current: bool,
    /// UTC.
    pub created_at: DateTime<Utc>,
}

/// A project's releases, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListReleases {
    /// Which project.
    pub project_id: ProjectId,
    /// How many rows, 1 to 100; 20 unless told.
    #[serde(default)]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(default)]
    pub cursor: Option<Cursor>,
}

impl Operation for ListReleases {
    const NAME: &'static str = "deploy.list_releases";
    const ACCESS: Access = Access::Permission("deploy:read");
    const IDEMPOTENT: bool = true;
    type Reply = Page<Release>;
    type Error = DeployError;
}

/// Brings an earlier release back into service, with the environment it was made with.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Rollback {
    /// Which project.
    pub project_id: ProjectId,
    /// The release's number; the one before the current unless told.
    #[serde(default)]
    pub version: Option<i64>,
}

impl Operation for Rollback {
    const NAME: &'static str = "deploy.rollback";
    const ACCESS: Access = Access::Permission("deploy:create");
    /// By the request: one that comes again finds what it made.
    const IDEMPOTENT: bool = true;
    type Reply = Deployment;
    type Error = DeployError;
}

/// How many instances of each process type are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Formation {
    /// Count by process type.
    pub processes: BTreeMap<String, u32>,
}

/// Sets the number of instances of the process types given, 0 to 100; others stay.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Scale {
    /// Which project.
    pub project_id: ProjectId,
    /// Count by process type.
    pub processes: BTreeMap<String, u32>,
}

impl Operation for Scale {
    const NAME: &'static str = "deploy.scale";
    const ACCESS: Access = Access::Permission("deploy:create");
    const IDEMPOTENT: bool = true;
    type Reply = Formation;
    type Error = DeployError;
}

/// Replaces every instance, with the newest environment, without a gap in service.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Restart {
    /// Which project.
    pub project_id: ProjectId,
}

impl Operation for Restart {
    const NAME: &'static str = "deploy.restart";
    const ACCESS: Access = Access::Permission("deploy:create");
    /// By the request: one that comes again finds what it made.
    const IDEMPOTENT: bool = true;
    type Reply = Deployment;
    type Error = DeployError;
}

/// Stops every instance; the formation becomes zero. Scale, restart or deploy starts it again.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Stop {
    /// Which project.
    pub project_id: ProjectId,
}

impl Operation for Stop {
    const NAME: &'static str = "deploy.stop";
    const ACCESS: Access = Access::Permission("deploy:create");
    const IDEMPOTENT: bool = true;
    type Reply = Formation;
    type Error = DeployError;
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

/// One running copy of a process type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// The instance.
    pub id: InstanceId,
    /// `web`, `worker`, ….
    pub process: String,
    /// 1, 2, 3, … within the process type: `web.1`.
    pub index: u32,
    /// The release it runs.
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
    pub last_exit: Option<String>,
    /// UTC.
    pub started_at: DateTime<Utc>,
}

/// What runs, and what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Instances {
    /// What runs, by process type and index.
    pub items: Vec<Instance>,
    /// What is wanted.
    pub formation: Formation,
    /// Where the app answers.
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

/// A line that a build or an instance wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Grows within a deployment's or a project's log; the live stream's event id.
    pub id: u64,
    /// UTC.
    pub at: DateTime<Utc>,
    /// `build`, `web.1`, `worker.2`, `platform`.
    pub from: String,
    /// Without its line feed; bounded, invalid UTF-8 replaced.
    pub text: String,
}

/// Lines of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLines {
    /// Oldest first.
    pub items: Vec<LogLine>,
}

/// The build log of a deployment.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GetBuildLog {
    /// Which.
    pub deployment_id: DeploymentId,
    /// Only lines after this id.
    #[serde(default)]
    pub after: Option<u64>,
    /// The most lines, 1 to 10,000; 1,000 unless told.
    #[serde(default)]
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
    /// The most lines, 1 to 10,000; 100 unless told.
    #[serde(default)]
    pub limit: Option<u32>,
}

impl Operation for GetLogs {
    const NAME: &'static str = "deploy.logs";
    const ACCESS: Access = Access::Permission("deploy:read");
    const IDEMPOTENT: bool = true;
    type Reply = LogLines;
    type Error = DeployError;
}

/// A change that the live stream tells: `deployment` on `project:<id>` and `deployment:<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", content = "data")]
pub enum DeployLive {
    /// A deployment changed.
    Deployment(Deployment),
    /// An instance changed.
    Instance(Instance),
    /// An instance is gone.
    InstanceGone(Instance),
    /// A line was written.
    Log(LogLine),
}
