//! How a project's app is built and run.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ProjectError;
use crate::{Access, Operation, ProjectId};

/// What detection would otherwise decide. Absent fields are detected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct BuildConfig {
    /// The folder of the app inside the source; relative, may not leave it.
    #[schema(min_length = 1, max_length = 1_024)]
    pub root: Option<String>,
    /// Run in the app's folder instead of the detected build, by `/bin/sh -c`.
    #[schema(min_length = 1, max_length = 4_096)]
    pub build_command: Option<String>,
    /// Run as `web` instead of the detected command, by `/bin/sh -c`.
    #[schema(min_length = 1, max_length = 4_096)]
    pub start_command: Option<String>,
    /// Asked for by GET; any answer below 500 is healthy. Default: `/`.
    #[schema(min_length = 1, max_length = 1_024, pattern = "^/[!-\"$-~]*$")]
    pub health_check_path: Option<String>,
    /// How long a new instance may take until it is healthy, in seconds, 1 to 600; default: 60.
    #[schema(minimum = 1, maximum = 600)]
    pub health_check_grace_seconds: Option<u32>,
    /// Memory of one instance, in MiB, 32 to 65,536; default: 512.
    #[schema(minimum = 32, maximum = 65_536)]
    pub memory_mib: Option<u32>,
}

/// The project's build configuration.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GetBuildConfig {
    /// Which project.
    pub project_id: ProjectId,
}

impl Operation for GetBuildConfig {
    const NAME: &'static str = "project.get_build_config";
    const ACCESS: Access = Access::Permission("project:read");
    const IDEMPOTENT: bool = true;
    type Reply = BuildConfig;
    type Error = ProjectError;
}

/// Replaces the build configuration; the next deployment uses it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SetBuildConfig {
    /// Which project.
    pub project_id: ProjectId,
    /// The whole of it.
    pub config: BuildConfig,
}

impl Operation for SetBuildConfig {
    const NAME: &'static str = "project.set_build_config";
    const ACCESS: Access = Access::Permission("project:write");
    const IDEMPOTENT: bool = true;
    type Reply = BuildConfig;
    type Error = ProjectError;
}
