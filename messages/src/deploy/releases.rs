//! What was built, and can be brought back.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DeployError, Deployment};
use crate::{
    Access, Cursor, DeploymentId, Limit, Operation, Page, ProjectId, ReleaseId,
    shapes::{ProcessCommands, ProcessCounts},
};

/// An immutable, content-addressed build with the configuration it runs with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Release {
    /// The release.
    pub id: ReleaseId,
    /// Of which project.
    pub project_id: ProjectId,
    /// 1, 2, 3, … within the project.
    #[schema(minimum = 1)]
    pub version: i64,
    /// What came of it.
    #[serde(default)]
    pub status: ReleaseStatus,
    /// Why it did not come into service, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4_000)]
    pub error: Option<String>,
    /// Of the built folder, SHA-256 in hex.
    #[schema(min_length = 64, max_length = 64, pattern = "^[0-9a-f]+$")]
    pub digest: String,
    /// What was recognized: `node`, `python`, `static`, ….
    #[schema(min_length = 1, max_length = 40)]
    pub language: String,
    /// Command by process type.
    #[schema(value_type = ProcessCommands)]
    pub processes: BTreeMap<String, String>,
    /// What runs once before its rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4_200)]
    pub release_command: Option<String>,
    /// The environment's version it was made with.
    #[schema(minimum = 0)]
    pub environment_version: i64,
    /// The deployment that made it.
    pub deployment_id: DeploymentId,
    /// The commit, for a git source.
    #[schema(max_length = 64, pattern = "^[0-9a-f]+$")]
    pub commit: Option<String>,
    /// How many instances of each process type were wanted when another release took its place; a rollback to it wants as
    /// many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProcessCounts>)]
    pub formation: Option<BTreeMap<String, u32>>,
    /// Whether it serves now.
    pub current: bool,
    /// UTC.
    pub created_at: DateTime<Utc>,
}

/// What came of a release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseStatus {
    /// It is being brought into service.
    Pending,
    /// It serves now.
    Serving,
    /// It has served, and may be brought back.
    #[default]
    Served,
    /// It was built and never came into service.
    Failed,
}

/// A project's releases, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListReleases {
    /// Which project.
    pub project_id: ProjectId,
    /// How many rows, 1 to 100; default: 20.
    #[serde(default)]
    pub limit: Limit,
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

/// Brings an earlier release back into service, with the environment it was made with and the formation it ran with.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Rollback {
    /// Which project.
    pub project_id: ProjectId,
    /// The release's number; default: the one that served before the current.
    #[serde(default)]
    #[schema(minimum = 1)]
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
