//! What project tells the other domains.

use serde::{Deserialize, Serialize};

use crate::{
    OrganizationId, ProjectId,
    event::{event, events_of_projects},
};

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

event!(ProjectEnvChanged = "project.env_changed", about project_id, of organization_id);

events_of_projects! {
    /// It is whole: recorded, and its app has a place.
    ProjectCreated(ProjectFact) = "project.created";
    /// Its description or its build configuration changed.
    ProjectUpdated(ProjectFact) = "project.updated";
    /// It is gone for whoever looks for it; what belonged to it elsewhere has to go as well.
    ProjectDeleted(ProjectFact) = "project.deleted";
}
