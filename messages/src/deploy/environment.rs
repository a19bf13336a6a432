//! An app's place on the platform: prepared when its project is created, cleared when it is deleted.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::DeployError;
use crate::{Access, Operation, OrganizationId, ProjectId};

/// Prepares an app's place: its row, and a route that says that nothing was deployed yet. Asked by project when it is
/// created. A second time changes nothing; after [`CleanupEnvironment`] it is refused for good, so that a message that
/// was delayed on its way brings nothing back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetupEnvironment {
    /// Whose.
    pub project_id: ProjectId,
    /// The tenant that owns it.
    pub organization_id: OrganizationId,
    /// Also the app's host name.
    pub name: String,
}

impl Operation for SetupEnvironment {
    const NAME: &'static str = "deploy.setup_environment";
    const ACCESS: Access = Access::Internal;
    const IDEMPOTENT: bool = true;
    type Reply = ();
    type Error = DeployError;
}

/// Ends all that a project runs and removes its releases, sources and logs. Asked by project when it is deleted, and
/// when its creation is taken back. A second time, and for a project that has no app, nothing is left to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CleanupEnvironment {
    /// Whose.
    pub project_id: ProjectId,
}

impl Operation for CleanupEnvironment {
    const NAME: &'static str = "deploy.cleanup_environment";
    const ACCESS: Access = Access::Internal;
    const IDEMPOTENT: bool = true;
    const TIMEOUT: Duration = Duration::from_secs(25);
    type Reply = ();
    type Error = DeployError;
}
