//! `deploy`: from source to a running, routed app.

mod apps;
mod caches;
mod deployments;
mod environment;
mod events;
mod formation;
mod instances;
mod logs;
mod redeploy;
mod releases;
mod routes;
mod sources;
mod topics;

use serde::{Deserialize, Serialize};

use crate::{DeploymentId, DomainError, code::codes};

pub use apps::{AppSummary, ListApps};
pub use caches::ClearCache;
pub use deployments::{
    CancelDeployment, CreateDeployment, Deployment, DeploymentKind, DeploymentStatus, GetDeployment, ListDeployments,
};
pub use environment::{CleanupEnvironment, SetupEnvironment};
pub use events::{
    AppTakenOver, DeploymentBuilding, DeploymentCompleted, DeploymentFact, DeploymentFailed, DeploymentQueued,
    DeploymentRolledBack, DeploymentStarted, InstanceCrashed, InstanceFact, InstanceStarted, InstanceStopped,
    TakeoverFact,
};
pub use formation::{Formation, Restart, Scale, Stop};
pub use instances::{Instance, InstanceId, InstanceStatus, Instances, ListInstances, RunningInstances};
pub use logs::{GetBuildLog, GetLogs, LogLine, LogLines, LogName, ReadLog};
pub use redeploy::Redeploy;
pub use releases::{ListReleases, Release, ReleaseStatus, Rollback};
pub use routes::{AppRoute, AppRoutes, ListRoutes, RouteState};
pub use sources::{DeploymentSource, RegisterSource, Source};
pub use topics::{DeploymentTopic, LogTopic, ProjectTopic};

/// What deploy refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeployError {
    /// Not there, or another tenant's.
    #[error("there is no such {0}")]
    NotFound(String),
    /// The project is on its way out.
    #[error("the project is being deleted; wait until it is gone, and create it anew")]
    Deleting,
    /// Another deployment of the project runs, and only one may.
    #[error("deployment {0} of this project is still running; wait for it or cancel it")]
    InProgress(DeploymentId),
    /// The deployment has ended, so it can't be cancelled.
    #[error("the deployment has ended already")]
    AlreadyEnded,
    /// The project has never been deployed.
    #[error("the project has no release yet; deploy it first")]
    NoRelease,
    /// The app has no process of this type.
    #[error("the app has no process type {0}")]
    NoSuchProcess(String),
    /// A field breaks its rule.
    #[error("{0}")]
    Invalid(String),
    /// An upload over the limit.
    #[error("the source is larger than {0} bytes")]
    TooLarge(u64),
    /// The rollout of a scale, restart or rollback failed; what served before serves still.
    #[error("{0}")]
    RolloutFailed(String),
}

impl DomainError for DeployError {
    codes! {
        Self::NotFound(_) | Self::NoSuchProcess(_) => NotFound,
        Self::Deleting | Self::InProgress(_) | Self::AlreadyEnded | Self::NoRelease | Self::RolloutFailed(_) => Conflict,
        Self::Invalid(_) => Invalid,
        Self::TooLarge(_) => TooLarge,
    }
}
