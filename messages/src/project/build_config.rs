//! How a project's app is built and run.

use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ProjectError;
use crate::{Access, Operation, ProjectId, shapes::LanguageVersions};

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
    #[schema(value_type = LanguageVersions)]
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

impl BuildConfig {
    /// Whether each field keeps its rule.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn check(&self) -> Result<(), String> {
        for (field, folder, of) in [("root", &self.root, "source"), ("publish", &self.publish, "app's folder")] {
            let Some(folder) = folder else { continue };
            let is_part = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
            let inside = Path::new(folder).components().all(is_part);
            if folder.is_empty() || folder.len() > PATH_MAXIMUM || folder.contains(['\0', '\n']) || !inside {
                return Err(format!("{field} must be a relative folder inside the {of}, without .."));
            }
        }
        if self.publish.is_some() && self.start_command.is_some() {
            return Err(
                "publish and start_command exclude each other: a static site is served by the platform".to_owned()
            );
        }
        for (field, command) in [
            ("build_command", &self.build_command),
            ("start_command", &self.start_command),
            ("release_command", &self.release_command),
        ] {
            if let Some(command) = command
                && (command.trim().is_empty() || command.len() > COMMAND_MAXIMUM || command.contains('\0'))
            {
                return Err(format!("{field} must have 1 to {COMMAND_MAXIMUM} bytes, and no NUL"));
            }
        }
        for (name, version) in &self.versions {
            if !VERSIONED_LANGUAGES.contains(&name.as_str()) {
                return Err(format!("versions names {name}; it can name {}", VERSIONED_LANGUAGES.join(", ")));
            }
            let is_version = |letter: char| letter.is_ascii_alphanumeric() || " .,-_<>=!~^*|/+".contains(letter);
            if version.trim().is_empty() || version.len() > VERSION_MAXIMUM || !version.chars().all(is_version) {
                return Err(format!("versions: {name} must be a version such as \"22\" or \">=3.11\""));
            }
        }
        if let Some(path) = &self.health_check_path {
            let is_path = path.starts_with('/') && path.len() <= PATH_MAXIMUM;
            if !is_path || !path.bytes().all(|byte| byte.is_ascii_graphic()) || path.contains('#') {
                return Err("health_check_path must be a path that begins with /".to_owned());
            }
        }
        if self.health_check_grace_seconds.is_some_and(|seconds| !(1..=600).contains(&seconds)) {
            return Err("health_check_grace_seconds must be 1 to 600".to_owned());
        }
        if self.memory_mib.is_some_and(|memory| !(32..=65_536).contains(&memory)) {
            return Err("memory_mib must be 32 to 65536".to_owned());
        }
        Ok(())
    }

    /// This, and from `other` what is absent here. What is served is one decision: the start command or the folder.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let or = |own: &Option<String>, other: &Option<String>| own.clone().or_else(|| other.clone());
        let decides = self.start_command.is_some() || self.publish.is_some();
        let served = |value: &Option<String>| value.clone().filter(|_| !decides);
        let mut versions = other.versions.clone();
        versions.extend(self.versions.clone());
        Self {
            root: or(&self.root, &other.root),
            build_command: or(&self.build_command, &other.build_command),
            start_command: self.start_command.clone().or_else(|| served(&other.start_command)),
            release_command: or(&self.release_command, &other.release_command),
            publish: self.publish.clone().or_else(|| served(&other.publish)),
            static_options: self.static_options.or(&other.static_options),
            versions,
            health_check_path: or(&self.health_check_path, &other.health_check_path),
            health_check_grace_seconds: self.health_check_grace_seconds.or(other.health_check_grace_seconds),
            memory_mib: self.memory_mib.or(other.memory_mib),
        }
    }
}

const COMMAND_MAXIMUM: usize = 4_096;
const PATH_MAXIMUM: usize = 1_024;
const VERSION_MAXIMUM: usize = 64;

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
