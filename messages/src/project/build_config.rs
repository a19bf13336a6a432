//! How a project's app is built and run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ProjectError;
use crate::{Access, Operation, ProjectId};

/// How a static site answers. What is absent is decided by the site's files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct StaticOptions {
    /// Whether a navigation to a page that is not there gets `index.html`; default: if there is no `404.html`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub single_page: Option<bool>,
    /// Whether `/about` is `about.html`; default: it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean_urls: Option<bool>,
    /// `true`: `/a` redirects to `/a/`; `false`: `/a/` to `/a`; default: folders end with a slash, files do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trailing_slash: Option<bool>,
}

impl StaticOptions {
    /// Whether all of it is absent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These, and from `others` what is absent here.
    #[must_use]
    pub fn or(&self, others: &Self) -> Self {
        Self {
            single_page: self.single_page.or(others.single_page),
            clean_urls: self.clean_urls.or(others.clean_urls),
            trailing_slash: self.trailing_slash.or(others.trailing_slash),
        }
    }
}

/// What detection would otherwise decide. Absent fields are decided by the `callboard.toml` of the source, and else detected.
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
    /// Run once before each rollout with the release's variables, by `/bin/sh -c`; its failure fails the deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4_096)]
    pub release_command: Option<String>,
    /// The folder beneath the app that is served as a static site once the build has ended; relative, may not leave the
    /// app. Excludes `start_command`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 1_024)]
    pub publish: Option<String>,
    /// How the static site answers.
    #[serde(rename = "static", skip_serializing_if = "StaticOptions::is_empty")]
    pub static_options: StaticOptions,
    /// Versions of languages, such as `{"node": "22", "python": ">=3.11"}`, of those that are installed. Names: `node`,
    /// `python`, `go`, `rust`, `ruby`, `php`, `deno`, `java`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
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

/// Names in [`BuildConfig::versions`].
pub const VERSIONED_LANGUAGES: [&str; 8] = ["node", "python", "go", "rust", "ruby", "php", "deno", "java"];

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
