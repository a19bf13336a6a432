//! What a deployment needs to know of a project.

use serde::{Deserialize, Serialize};

use super::{BuildConfig, Project, ProjectError};
use crate::{Access, Operation, ProjectId, Secret};

/// A project with its opened environment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// The project.
    pub project: Project,
    /// Its build configuration.
    pub build: BuildConfig,
    /// Which environment this is.
    pub environment_version: i64,
    /// Name and value, by name.
    pub environment: Vec<(String, Secret)>,
    /// The names of those whose values whoever may read the project may read: logs need not cover them.
    #[serde(default)]
    pub plain: Vec<String>,
}

/// All that a deployment needs to know of a project, secrets opened. For the deploy domain only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetConfig {
    /// Which project.
    pub project_id: ProjectId,
    /// The environment's version; default: the newest.
    pub environment_version: Option<i64>,
}

impl Operation for GetConfig {
    const NAME: &'static str = "project.get_config";
    const ACCESS: Access = Access::Internal;
    const IDEMPOTENT: bool = true;
    type Reply = Config;
    type Error = ProjectError;
}
