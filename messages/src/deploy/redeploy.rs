//! Building the source of an earlier deployment again.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{DeployError, Deployment};
use crate::{Access, DeploymentId, Operation};

/// Builds the source of an earlier deployment again, with the newest environment and build configuration, and with what that
/// deployment brought of its own configuration. Refused for a
/// restart or a rollback, which have none, and when the upload is no longer kept.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Redeploy {
    /// The deployment that had the source.
    pub deployment_id: DeploymentId,
}

impl Operation for Redeploy {
    const NAME: &'static str = "deploy.redeploy";
    const ACCESS: Access = Access::Permission("deploy:create");
    /// By the request: one that comes again finds what it made.
    const IDEMPOTENT: bool = true;
    type Reply = Deployment;
    type Error = DeployError;
}
