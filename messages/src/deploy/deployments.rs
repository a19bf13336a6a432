//! Attempts to bring a release into service.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DeployError, DeploymentSource};
use crate::{
    Access, Cursor, DeploymentId, Limit, Operation, OrganizationId, Page, ProjectId, ReleaseId, project::BuildConfig,
};

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
    #[schema(max_length = 4_000)]
    pub error: Option<String>,
    /// The release it made or brings back.
    pub release_id: Option<ReleaseId>,
    /// That release's number, `v1`, `v2`, ….
    #[schema(minimum = 1)]
    pub release_version: Option<i64>,
    /// The commit, for a git source.
    #[schema(max_length = 64, pattern = "^[0-9a-f]+$")]
    pub commit: Option<String>,
    /// Where the app answers.
    #[schema(format = "uri", max_length = 2_048)]
    pub url: String,
    /// UTC.
    pub created_at: DateTime<Utc>,
    /// UTC.
    pub finished_at: Option<DateTime<Utc>>,
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

impl From<String> for DeploymentStatus {
    /// As stored. A word of a later version is an end of which this one knows nothing.
    fn from(text: String) -> Self {
        let all = [Self::Queued, Self::Building, Self::Rolling, Self::Completed, Self::Failed, Self::Cancelled];
        all.into_iter().find(|status| status.as_str() == text).unwrap_or(Self::Failed)
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

impl DeploymentKind {
    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Rollback => "rollback",
            Self::Restart => "restart",
        }
    }
}

impl From<String> for DeploymentKind {
    /// As stored. A word of a later version is a deployment like any other.
    fn from(text: String) -> Self {
        let all = [Self::Deploy, Self::Rollback, Self::Restart];
        all.into_iter().find(|kind| kind.as_str() == text).unwrap_or(Self::Deploy)
    }
}

/// Builds a source and brings it into service, or leaves what serves now.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateDeployment {
    /// Which project.
    pub project_id: ProjectId,
    /// What to build.
    pub source: DeploymentSource,
    /// Whether the release may lack a process type of which instances are wanted; otherwise it is refused, and what serves
    /// now serves on.
    #[serde(default)]
    pub allow_missing: bool,
    /// Whether it is built even if a release of the same source, configuration and variables is there; otherwise that release
    /// is brought into service.
    #[serde(default)]
    pub rebuild: bool,
    /// What this deployment is built and run by, before the project's build configuration.
    #[serde(default)]
    pub config: Option<BuildConfig>,
}

impl Operation for CreateDeployment {
    const NAME: &'static str = "deploy.create";
    const ACCESS: Access = Access::Permission("deploy:create");
    /// By the request: one that comes again finds what it made.
    const IDEMPOTENT: bool = true;
    type Reply = Deployment;
    type Error = DeployError;
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
    /// How many rows, 1 to 100; default: 20.
    #[serde(default)]
    pub limit: Limit,
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
