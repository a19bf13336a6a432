//! What deploy tells the other domains.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::DeploymentKind;
use crate::{DeploymentId, InstanceId, OrganizationId, ProjectId, ReleaseId, event::events_of_projects};

/// What is told of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentFact {
    /// Which.
    pub deployment_id: DeploymentId,
    /// Of which project; events of one project keep their order.
    pub project_id: ProjectId,
    /// The tenant that owns it.
    pub organization_id: OrganizationId,
    /// The app's name.
    pub app: String,
    /// What it does.
    pub kind: DeploymentKind,
    /// The release it made or brings back, once that is known.
    #[serde(default)]
    pub release_id: Option<ReleaseId>,
    /// That release's number.
    #[serde(default)]
    pub release_version: Option<i64>,
    /// Why it failed or was ended, in a sentence.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What is told of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceFact {
    /// Which.
    pub instance_id: InstanceId,
    /// Of which project; events of one project keep their order.
    pub project_id: ProjectId,
    /// The tenant that owns it.
    pub organization_id: OrganizationId,
    /// The app's name.
    pub app: String,
    /// `web`, `worker`, ….
    pub process: String,
    /// 1, 2, 3, … within the process type.
    pub index: u32,
    /// The release it runs.
    pub release_version: i64,
    /// The node it runs on.
    pub node: Uuid,
    /// How it ended, in a sentence.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What is told of an app whose node is gone, or stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverFact {
    /// Which app.
    pub project_id: ProjectId,
    /// The tenant that owns it.
    pub organization_id: OrganizationId,
    /// The app's name.
    pub app: String,
    /// The node that ran it.
    pub from: Uuid,
    /// The node that runs it now.
    pub to: Uuid,
    /// Why, in a sentence.
    pub reason: String,
}

events_of_projects! {
    /// It waits for a builder.
    DeploymentQueued(DeploymentFact) = "deployment.queued";
    /// A builder has it.
    DeploymentBuilding(DeploymentFact) = "deployment.building";
    /// Its release is being brought into service.
    DeploymentStarted(DeploymentFact) = "deployment.started";
    /// It serves.
    DeploymentCompleted(DeploymentFact) = "deployment.completed";
    /// It failed, or was ended by request; what served before serves still.
    DeploymentFailed(DeploymentFact) = "deployment.failed";
    /// An earlier release serves again.
    DeploymentRolledBack(DeploymentFact) = "deployment.rolled_back";
    /// It is healthy and serves.
    InstanceStarted(InstanceFact) = "instance.started";
    /// It ended by itself, or was ended because it stayed unhealthy, and will be started again.
    InstanceCrashed(InstanceFact) = "instance.crashed";
    /// It was asked to leave, and has ended.
    InstanceStopped(InstanceFact) = "instance.stopped";
    /// Another node runs it from now on.
    AppTakenOver(TakeoverFact) = "app.taken_over";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_its_fact_and_a_missing_optional_field_is_nothing_to_trip_over() {
        let (deployment_id, project_id, organization_id) =
            (DeploymentId::new(), ProjectId::new(), OrganizationId::new());
        let older = serde_json::json!({
            "deployment_id": deployment_id, "project_id": project_id, "organization_id": organization_id,
            "app": "shop", "kind": "deploy", "of_a_later_version": 1,
        });
        let DeploymentFailed(fact) = serde_json::from_value(older).unwrap();
        assert_eq!((fact.project_id, fact.reason), (project_id, None));
    }
}
