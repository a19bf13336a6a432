//! Apps, as their tenants know them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ProjectError;
use crate::{Access, Cursor, Limit, Operation, OrganizationId, Page, ProjectId};

/// An app and its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[cfg_attr(feature = "sql", derive(sqlx::FromRow))]
pub struct Project {
    /// The project.
    pub id: ProjectId,
    /// The tenant that owns it.
    pub organization_id: OrganizationId,
    /// Also the app's host name: `<name>.<base domain>`.
    #[schema(min_length = 1, max_length = 40, pattern = "^[a-z]([a-z0-9-]*[a-z0-9])?$")]
    pub name: String,
    /// Free text.
    #[schema(max_length = 1_000)]
    pub description: String,
    /// Grows by one with each update; the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
    /// UTC.
    pub created_at: DateTime<Utc>,
    /// UTC.
    pub updated_at: DateTime<Utc>,
    /// Since when it is being deleted: it takes no change any more, and is gone as soon as its app is taken down. UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleting_at: Option<DateTime<Utc>>,
}

/// Creates a project in the caller's organization.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateProject {
    /// 1 to 40 of `a-z`, `0-9` and `-`, beginning with a letter, not ending with `-`.
    #[schema(min_length = 1, max_length = 40, pattern = "^[a-z]([a-z0-9-]*[a-z0-9])?$")]
    pub name: String,
    /// At most 1,000 characters.
    #[serde(default)]
    #[schema(max_length = 1_000)]
    pub description: Option<String>,
}

impl Operation for CreateProject {
    const NAME: &'static str = "project.create";
    const ACCESS: Access = Access::Permission("project:write");
    /// By the request: one that comes again finds what it made.
    const IDEMPOTENT: bool = true;
    type Reply = Project;
    type Error = ProjectError;
}

/// One project.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GetProject {
    /// Which.
    pub project_id: ProjectId,
}

impl Operation for GetProject {
    const NAME: &'static str = "project.get";
    const ACCESS: Access = Access::Permission("project:read");
    const IDEMPOTENT: bool = true;
    type Reply = Project;
    type Error = ProjectError;
}

/// The organization's projects, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListProjects {
    /// Only the project with this name.
    #[serde(default)]
    #[schema(max_length = 40)]
    pub name: Option<String>,
    /// How many rows, 1 to 100; default: 20.
    #[serde(default)]
    pub limit: Limit,
    /// The `next` of the page before.
    #[serde(default)]
    pub cursor: Option<Cursor>,
}

impl Operation for ListProjects {
    const NAME: &'static str = "project.list";
    const ACCESS: Access = Access::Permission("project:read");
    const IDEMPOTENT: bool = true;
    type Reply = Page<Project>;
    type Error = ProjectError;
}

/// Changes what is given and leaves the rest.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UpdateProject {
    /// Which.
    pub project_id: ProjectId,
    /// At most 1,000 characters.
    #[serde(default)]
    #[schema(max_length = 1_000)]
    pub description: Option<String>,
    /// The version the caller read, from `If-Match`.
    #[serde(default)]
    pub if_match: Option<i64>,
}

impl Operation for UpdateProject {
    const NAME: &'static str = "project.update";
    const ACCESS: Access = Access::Permission("project:write");
    type Reply = Project;
    type Error = ProjectError;
}

/// Takes the app down and removes the project with its releases, variables and logs. What takes longer than a caller waits
/// is accepted, can't be taken back and goes on: until it ends the project can be read, with the time at which its deletion
/// began, and then it is not found any more.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeleteProject {
    /// Which.
    pub project_id: ProjectId,
    /// The version the caller read, from `If-Match`.
    #[serde(default)]
    pub if_match: Option<i64>,
}

impl Operation for DeleteProject {
    const NAME: &'static str = "project.delete";
    const ACCESS: Access = Access::Permission("project:write");
    const IDEMPOTENT: bool = true;
    const TIMEOUT: Duration = Duration::from_secs(30);
    /// Nothing when it is gone; the project when that is under way.
    type Reply = Option<Project>;
    type Error = ProjectError;
}
