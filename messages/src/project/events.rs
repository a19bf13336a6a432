//! What project tells the other domains.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Event, OrganizationId, ProjectId};

/// What is told of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectFact {
    /// Which.
    pub project_id: ProjectId,
    /// The tenant that owns it.
    pub organization_id: OrganizationId,
    /// Also the app's host name.
    pub name: String,
    /// The project's version since then.
    pub version: i64,
}

/// The variables of a project changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectEnvChanged {
    /// Whose.
    pub project_id: ProjectId,
    /// The tenant that owns it.
    pub organization_id: OrganizationId,
    /// The environment's version since then.
    pub environment_version: i64,
    /// The names that were set or removed. No value is told.
    pub names: Vec<String>,
}

/// It is whole: recorded, and its app has a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProjectCreated(pub ProjectFact);

/// Its description or its build configuration changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProjectUpdated(pub ProjectFact);

/// It is gone for whoever looks for it; what belonged to it elsewhere has to go as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProjectDeleted(pub ProjectFact);

impl Event for ProjectCreated {
    const NAME: &'static str = "project.created";

    fn aggregate(&self) -> Uuid {
        self.0.project_id.0
    }

    fn organization(&self) -> Option<OrganizationId> {
        Some(self.0.organization_id)
    }
}

impl Event for ProjectUpdated {
    const NAME: &'static str = "project.updated";

    fn aggregate(&self) -> Uuid {
        self.0.project_id.0
    }

    fn organization(&self) -> Option<OrganizationId> {
        Some(self.0.organization_id)
    }
}

impl Event for ProjectDeleted {
    const NAME: &'static str = "project.deleted";

    fn aggregate(&self) -> Uuid {
        self.0.project_id.0
    }

    fn organization(&self) -> Option<OrganizationId> {
        Some(self.0.organization_id)
    }
}

impl Event for ProjectEnvChanged {
    const NAME: &'static str = "project.env_changed";

    fn aggregate(&self) -> Uuid {
        self.project_id.0
    }

    fn organization(&self) -> Option<OrganizationId> {
        Some(self.organization_id)
    }
}
