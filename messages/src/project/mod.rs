//! `project`: apps, their configuration and secrets.

mod build_config;
mod config;
mod environment;
mod events;
mod projects;

use serde::{Deserialize, Serialize};

use crate::{DomainError, code::codes, saga::sagas};

pub use build_config::{BuildConfig, GetBuildConfig, SetBuildConfig, StaticOptions, VERSIONED_LANGUAGES};
pub use config::{Config, GetConfig};
pub use environment::{ChangeEnv, Environment, ListEnv, NewVariable, SetEnv, UnsetEnv, Variable, is_platform_variable};
pub use events::{ProjectCreated, ProjectDeleted, ProjectEnvChanged, ProjectFact, ProjectUpdated};
pub use projects::{CreateProject, DeleteProject, GetProject, ListProjects, Project, UpdateProject};

sagas!(
    /// The sagas of this domain: creations of projects.
    ProjectSagas, of "project"
);

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
    /// On its way out.
    #[error("the project is being deleted and takes no change any more")]
    Deleting,
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
    /// Its app could not be taken down yet.
    #[error("the app could not be taken down yet: {0}")]
    CleanupFailed(String),
}

impl DomainError for ProjectError {
    codes! {
        Self::NotFound | Self::NoSuchVariable(_) => NotFound,
        Self::NameTaken(_) | Self::Deleting => Conflict,
        Self::Invalid(_) => Invalid,
        Self::VersionMismatch => PreconditionFailed,
        Self::CleanupFailed(_) | Self::SetupFailed(_) => Unavailable,
    }
}
