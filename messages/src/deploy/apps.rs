//! Apps at a glance.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DeployError, Deployment, Formation};
use crate::{Access, Cursor, Limit, Operation, Page, ProjectId};

/// An app at a glance: its last deployment, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppSummary {
    /// Whose app.
    pub project_id: ProjectId,
    /// Where the app answers.
    #[schema(format = "uri", max_length = 2_048)]
    pub url: String,
    /// What is wanted.
    pub formation: Formation,
    /// The version of the environment that what serves runs with; absent while nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub environment_version: Option<i64>,
    /// The newest deployment.
    pub last: Option<Deployment>,
}

/// The organization's apps that were deployed at least once, the newest project first: one question instead of one for each
/// app. A project that was never deployed is not among them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct ListApps {
    /// Only the app of this project.
    #[serde(default)]
    pub project_id: Option<ProjectId>,
    /// How many rows, 1 to 100; default: 20.
    #[serde(default)]
    pub limit: Limit,
    /// The `next` of the page before.
    #[serde(default)]
    pub cursor: Option<Cursor>,
}

impl Operation for ListApps {
    const NAME: &'static str = "deploy.list_apps";
    const ACCESS: Access = Access::Permission("deploy:read");
    const IDEMPOTENT: bool = true;
    type Reply = Page<AppSummary>;
    type Error = DeployError;
}
