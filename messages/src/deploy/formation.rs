//! How many instances of each process type are wanted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DeployError, Deployment};
use crate::{
    Access, Operation, ProjectId,
    shapes::{ProcessChanges, ProcessCounts},
};

/// How many instances of each process type are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Formation {
    /// Count by process type of the release that serves.
    #[schema(value_type = ProcessCounts)]
    pub processes: BTreeMap<String, u32>,
    /// What is wanted of process types that this release lacks; a release that has them runs them again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = ProcessCounts)]
    pub missing: BTreeMap<String, u32>,
}

/// Sets the number of instances of the process types given, 0 to 100; others stay. One that the release lacks can only be
/// set to 0.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Scale {
    /// Which project.
    pub project_id: ProjectId,
    /// Count by process type.
    #[schema(value_type = ProcessChanges)]
    pub processes: BTreeMap<String, u32>,
}

impl Operation for Scale {
    const NAME: &'static str = "deploy.scale";
    const ACCESS: Access = Access::Permission("deploy:create");
    const IDEMPOTENT: bool = true;
    type Reply = Formation;
    type Error = DeployError;
}

/// Replaces every instance, with the newest environment, without a gap in service.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Restart {
    /// Which project.
    pub project_id: ProjectId,
}

impl Operation for Restart {
    const NAME: &'static str = "deploy.restart";
    const ACCESS: Access = Access::Permission("deploy:create");
    /// By the request: one that comes again finds what it made.
    const IDEMPOTENT: bool = true;
    type Reply = Deployment;
    type Error = DeployError;
}

/// Stops every instance; the formation becomes zero. Scale, restart or deploy starts it again.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Stop {
    /// Which project.
    pub project_id: ProjectId,
}

impl Operation for Stop {
    const NAME: &'static str = "deploy.stop";
    const ACCESS: Access = Access::Permission("deploy:create");
    const IDEMPOTENT: bool = true;
    type Reply = Formation;
    type Error = DeployError;
}
