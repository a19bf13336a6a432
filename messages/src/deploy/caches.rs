//! What is kept between the builds of an app.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::DeployError;
use crate::{Access, Operation, ProjectId};

/// Empties the build caches of a project, on every node: its next build starts without them, as its first one did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClearCache {
    /// Which project.
    pub project_id: ProjectId,
}

impl Operation for ClearCache {
    const NAME: &'static str = "deploy.clear_cache";
    const ACCESS: Access = Access::Permission("deploy:create");
    const IDEMPOTENT: bool = true;
    type Reply = ();
    type Error = DeployError;
}
