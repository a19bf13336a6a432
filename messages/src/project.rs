//! `project`: apps, their configuration and secrets.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

pub use self::events::{ProjectCreated, ProjectDeleted, ProjectEnvChanged, ProjectFact, ProjectUpdated};
use crate::{
    Access, Code, Cursor, DomainError, Operation, OrganizationId, Page, ProjectId, SagaStatus, SagaView, secret::Secret,
};

mod events;

/// What project refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProjectError {
    /// Not there, or another tenant's.
    #[error("there is no such project")]
    NotFound,
    /// The name is in use on this platform: it is also the app's host name.
    #[error("the name {0} is taken; choose another")]
    NameTaken(String),
    /// A field breaks its rule.
    #[error("{0}")]
    Invalid(String),
    /// The project has changed since the caller read it.
    #[error("the project has changed since you read it; read it again and retry")]
    VersionMismatch,
    /// No such environment variable.
    #[error("there is no environment variable {0}")]
    NoSuchVariable(String),
    /// Its app's place could not be prepared, so that nothing of it was kept.
    #[error("the project could not be created: {0}")]
    SetupFailed(String),
    /// No such saga of this domain.
    #[error("there is no such saga")]
    NoSuchSaga,
    /// Only a stuck saga can be retried.
    #[error("the saga is {0}; only a stuck one can be retried")]
    NotStuck(String),
    /// Its app could not be taken down, so the project was kept.
    #[error("the app could not be taken down, so the project was kept: {0}")]
    CleanupFailed(String),
}

impl DomainError for ProjectError {
    fn code(&self) -> Code {
        match self {
            Self::NotFound | Self::NoSuchVariable(_) | Self::NoSuchSaga => Code::NotFound,
            Self::NameTaken(_) | Self::NotStuck(_) => Code::Conflict,
            Self::Invalid(_) => Code::Invalid,
            Self::VersionMismatch => Code::PreconditionFailed,
            Self::CleanupFailed(_) | Self::SetupFailed(_) => Code::Unavailable,
        }
    }
}

/// An app and its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Project {
    /// The project.
    pub id: ProjectId,
    /// The tenant that owns it.
    pub organization_id: OrganizationId,
    /// Also the app's host name: `<name>.<base domain>`.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Grows by one with each update; the `ETag`.
    pub version: i64,
    /// UTC.
    pub created_at: DateTime<Utc>,
    /// UTC.
    pub updated_at: DateTime<Utc>,
}

/// Creates a project in the caller's organization.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateProject {
    /// 1 to 40 of `a-z`, `0-9` and `-`, beginning with a letter, not ending with `-`.
    pub name: String,
    /// At most 1,000 characters.
    #[serde(default)]
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
    pub name: Option<String>,
    /// How many rows, 1 to 100; 20 unless told.
    #[serde(default)]
    pub limit: Option<u32>,
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

/// Takes the app down and removes the project with its releases, variables and logs.
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
    type Reply = ();
    type Error = ProjectError;
}

/// An environment variable as it is shown: a secret's value never is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Variable {
    /// `[A-Za-z_][A-Za-z0-9_]*`, at most 128 characters.
    pub name: String,
    /// Absent when `secret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Sealed and write-only.
    pub secret: bool,
    /// The environment's version in which it was last set.
    pub version: i64,
    /// UTC.
    pub updated_at: DateTime<Utc>,
}

/// A variable to set.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewVariable {
    /// `[A-Za-z_][A-Za-z0-9_]*`, at most 128 characters; `PORT` is the platform's.
    pub name: String,
    /// At most 32 KiB, without NUL.
    #[schema(value_type = String)]
    pub value: Secret,
    /// Whether it is sealed and write-only; true unless told.
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
    pub version: i64,
    /// By name.
    pub variables: Vec<Variable>,
}

/// Sets variables, all or none; others stay.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SetEnv {
    /// Which project.
    pub project_id: ProjectId,
    /// At most 256.
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
    pub name: String,
}

impl Operation for UnsetEnv {
    const NAME: &'static str = "project.unset_env";
    const ACCESS: Access = Access::Permission("project:write");
    type Reply = Environment;
    type Error = ProjectError;
}

/// The variables, without the values of secrets.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListEnv {
    /// Which project.
    pub project_id: ProjectId,
}

impl Operation for ListEnv {
    const NAME: &'static str = "project.list_env";
    const ACCESS: Access = Access::Permission("project:read");
    const IDEMPOTENT: bool = true;
    type Reply = Environment;
    type Error = ProjectError;
}

/// What detection would otherwise decide. Absent fields are detected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct BuildConfig {
    /// The folder of the app inside the source; relative, may not leave it.
    pub root: Option<String>,
    /// Run in the app's folder instead of the detected build, by `/bin/sh -c`.
    pub build_command: Option<String>,
    /// Run as `web` instead of the detected command, by `/bin/sh -c`.
    pub start_command: Option<String>,
    /// Asked for by GET; any answer below 500 is healthy. `/` unless told.
    pub health_check_path: Option<String>,
    /// How long a new instance may take until it is healthy, in seconds, 1 to 600; 60 unless told.
    pub health_check_grace_seconds: Option<u32>,
    /// Memory of one instance, in MiB, 32 to 65,536; 512 unless told.
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

/// All that a deployment needs to know of a project, secrets opened. For the deploy domain only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetConfig {
    /// Which project.
    pub project_id: ProjectId,
    /// The environment's version; the newest unless told.
    pub environment_version: Option<i64>,
}

impl Operation for GetConfig {
    const NAME: &'static str = "project.get_config";
    const ACCESS: Access = Access::Internal;
    const IDEMPOTENT: bool = true;
    type Reply = Config;
    type Error = ProjectError;
}

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
}

/// Lists the sagas of this domain, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ListSagas {
    /// Only those with this status; those that have not ended, unless told.
    #[serde(default)]
    pub status: Option<SagaStatus>,
    /// How many rows, 1 to 100; 20 unless told.
    #[serde(default)]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(default)]
    pub cursor: Option<Cursor>,
}

impl Operation for ListSagas {
    const NAME: &'static str = "project.list_sagas";
    const ACCESS: Access = Access::Administrator;
    const IDEMPOTENT: bool = true;
    type Reply = Page<SagaView>;
    type Error = ProjectError;
}

/// Lets a stuck saga go on from where it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RetrySaga {
    /// Which.
    pub saga_id: Uuid,
}

impl Operation for RetrySaga {
    const NAME: &'static str = "project.retry_saga";
    const ACCESS: Access = Access::Administrator;
    type Reply = SagaView;
    type Error = ProjectError;
}
