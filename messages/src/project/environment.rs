//! The variables that a project's app runs with.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ProjectError;
use crate::{Access, Operation, ProjectId, Secret, shapes::VariableName};

/// An environment variable as it is shown: a secret's value never is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Variable {
    /// `[A-Za-z_][A-Za-z0-9_]*`, at most 128 characters.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z_][A-Za-z0-9_]*$")]
    pub name: String,
    /// Absent when `secret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 32_768)]
    pub value: Option<String>,
    /// Sealed and write-only.
    pub secret: bool,
    /// The environment's version in which it was last set.
    #[schema(minimum = 1)]
    pub version: i64,
    /// UTC.
    pub updated_at: DateTime<Utc>,
}

/// Whether the platform sets the variable of this name for each process, so that an owner's value would have no effect.
#[must_use]
pub fn is_platform_variable(name: &str) -> bool {
    matches!(name, "HOME" | "PATH" | "PORT" | "TMPDIR") || name.starts_with("CALLBOARD_")
}

/// A variable to set.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewVariable {
    /// `[A-Za-z_][A-Za-z0-9_]*`, at most 128 characters; `HOME`, `PATH`, `PORT`, `TMPDIR` and all that begin with
    /// `CALLBOARD_` are the platform's.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z_][A-Za-z0-9_]*$")]
    pub name: String,
    /// At most 32 KiB, without NUL.
    #[schema(value_type = String, max_length = 32_768)]
    pub value: Secret,
    /// Whether it is sealed and write-only; default: true.
    #[serde(default = "yes")]
    pub secret: bool,
}

const fn yes() -> bool {
    true
}

/// A project's variables at one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Environment {
    /// Grows by one with each change; a release keeps the one it was made with.
    #[schema(minimum = 0)]
    pub version: i64,
    /// By name.
    #[schema(max_items = 256)]
    pub variables: Vec<Variable>,
}

/// Sets variables, all or none; others stay.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SetEnv {
    /// Which project.
    pub project_id: ProjectId,
    /// At most 256.
    #[schema(min_items = 1, max_items = 256)]
    pub variables: Vec<NewVariable>,
}

impl Operation for SetEnv {
    const NAME: &'static str = "project.set_env";
    const ACCESS: Access = Access::Permission("project:write");
    const IDEMPOTENT: bool = true;
    type Reply = Environment;
    type Error = ProjectError;
}

/// Removes a variable.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UnsetEnv {
    /// Which project.
    pub project_id: ProjectId,
    /// Which variable.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z_][A-Za-z0-9_]*$")]
    pub name: String,
}

impl Operation for UnsetEnv {
    const NAME: &'static str = "project.unset_env";
    const ACCESS: Access = Access::Permission("project:write");
    type Reply = Environment;
    type Error = ProjectError;
}

/// Sets and removes variables in one step, all or none; others stay. One step is one version of the environment.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChangeEnv {
    /// Which project.
    pub project_id: ProjectId,
    /// At most 256.
    #[serde(default)]
    #[schema(max_items = 256)]
    pub set: Vec<NewVariable>,
    /// The names of those to remove, at most 256; what is not there is no mistake.
    #[serde(default)]
    #[schema(value_type = Vec<VariableName>, max_items = 256)]
    pub remove: Vec<String>,
    /// The environment's version that the caller read, from `If-Match`.
    #[serde(default)]
    pub if_match: Option<i64>,
}

impl Operation for ChangeEnv {
    const NAME: &'static str = "project.change_env";
    const ACCESS: Access = Access::Permission("project:write");
    type Reply = Environment;
    type Error = ProjectError;
}

/// The variables, without the values of secrets.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListEnv {
    /// Which project.
    pub project_id: ProjectId,
    /// Those of an earlier version of the environment, such as a release has; default: the newest.
    #[serde(default)]
    #[schema(minimum = 0)]
    pub version: Option<i64>,
}

impl Operation for ListEnv {
    const NAME: &'static str = "project.list_env";
    const ACCESS: Access = Access::Permission("project:read");
    const IDEMPOTENT: bool = true;
    type Reply = Environment;
    type Error = ProjectError;
}
