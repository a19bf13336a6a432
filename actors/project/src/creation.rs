//! Creating a project: a saga, so that whatever crashes meanwhile, there is a whole project in the end, or none.
//!
//! The project's row holds its name from the first step on, and is there for nobody else before the last.

use std::time::Duration;

use callboard_messages::{
    CallError, Caller, OrganizationId, ProjectId,
    deploy::{CleanupEnvironment, SetupEnvironment},
    project::{CreateProject, Project, ProjectCreated, ProjectError, ProjectFact},
};
use callboard_supervisors::{
    Handle, Outcome,
    db::Transaction,
    events::emit,
    saga::{Saga, SagaState, StepContext, StepOutcome},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    name,
    projects::{Projects, check_description, tenant},
};

/// The pause between two looks at a project that another attempt makes.
const GLANCE: Duration = Duration::from_millis(100);

/// What the steps work with: the project as it will be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Creation {
    #[serde(flatten)]
    pub(crate) project: Project,
    /// Of whoever asked for it.
    #[serde(default)]
    pub(crate) request: Option<Uuid>,
}

impl SagaState for Creation {
    type Error = ProjectError;
}

/// The steps. One that another domain takes part in stands before `open`.
pub(crate) fn saga() -> Saga<Creation> {
    Saga::new("project.create")
        .local("record", record, erase)
        .step("setup_environment", setup_environment, cleanup_environment)
        .local("open", open, close)
}

impl Handle<CreateProject> for Projects {
    async fn handle(&self, caller: &Caller, message: CreateProject) -> Outcome<CreateProject> {
        let organization_id = tenant(caller)?;
        name::check(&message.name)?;
        let description = message.description.unwrap_or_default();
        check_description(&description)?;
        let now = self.clock.now();
        let project = Project {
            id: ProjectId::new(),
            organization_id,
            name: message.name,
            description,
            version: 1,
            created_at: now,
            updated_at: now,
            deleting_at: None,
        };
        let (id, name) = (project.id.0, project.name.clone());
        // The saga of a project has the project's id.
        match self.sagas.run(caller, id, Creation { project, request: caller.request }).await {
            Ok(creation) => Ok(creation.project),
            Err(CallError::Refused(ProjectError::NameTaken(_))) if caller.request.is_some() => {
                self.made_before(caller, organization_id, name).await
            }
            Err(error) => Err(error),
        }
    }
}

/// A project whose name this request has taken, as far as it has come.
#[derive(sqlx::FromRow)]
struct Made {
    id: Uuid,
    description: String,
    version: i64,
    creating: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    deleting_at: Option<DateTime<Utc>>,
}

impl Projects {
    /// What an earlier attempt at this request has made, or makes just now: its reply was lost, or the request came twice.
    async fn made_before(
        &self,
        caller: &Caller,
        organization_id: OrganizationId,
        name: String,
    ) -> Outcome<CreateProject> {
        loop {
            let made: Option<Made> = self
                .database
                .query(
                    "SELECT id, description, version, creating, created_at, updated_at, deleting_at FROM projects
                     WHERE name = $1 AND organization_id = $2 AND request = $3",
                )
                .bind(name.clone())
                .bind(organization_id.0)
                .bind(caller.request)
                .fetch_optional()
                .await?;
            let Some(Made { id, description, version, creating, created_at, updated_at, deleting_at }) = made else {
                return Err(ProjectError::NameTaken(name).into());
            };
            if !creating {
                let project = Project {
                    id: ProjectId(id),
                    organization_id,
                    name,
                    description,
                    version,
                    created_at,
                    updated_at,
                    deleting_at,
                };
                return Ok(project);
            }
            // Its saga is under way, here or elsewhere; the deadline of the call bounds the wait.
            self.clock.sleep(GLANCE).await;
        }
    }
}

async fn record(transaction: &mut Transaction, _: &StepContext, creation: Creation) -> StepOutcome<Creation> {
    let Creation { project, request } = creation;
    let inserted = transaction
        .query(
            "INSERT INTO projects
                (id, organization_id, name, description, version, environment_version, creating, request, created_at,
                 updated_at)
             VALUES ($1, $2, $3, $4, 1, 0, TRUE, $5, $6, $6)",
        )
        .bind(project.id.0)
        .bind(project.organization_id.0)
        .bind(project.name.clone())
        .bind(project.description.clone())
        .bind(request)
        .bind(project.created_at)
        .execute()
        .await;
    match inserted {
        Ok(_) => Ok(Creation { project, request }),
        Err(error) if error.violates("projects_name_key", "projects.name") => {
            Err(ProjectError::NameTaken(project.name).into())
        }
        Err(error) => Err(error.into()),
    }
}

async fn erase(transaction: &mut Transaction, _: &StepContext, creation: Creation) -> StepOutcome<Creation, ()> {
    transaction.query("DELETE FROM projects WHERE id = $1 AND creating").bind(creation.project.id.0).execute().await?;
    Ok(())
}

async fn setup_environment(context: &StepContext, creation: Creation) -> StepOutcome<Creation> {
    let project = &creation.project;
    let setup = SetupEnvironment {
        project_id: project.id,
        organization_id: project.organization_id,
        name: project.name.clone(),
    };
    match context.bus.ask(&context.caller, setup).await {
        Ok(()) => Ok(creation),
        Err(CallError::Refused(error)) => Err(ProjectError::SetupFailed(error.to_string()).into()),
        Err(CallError::Failed(failure)) => Err(failure.into()),
    }
}

async fn cleanup_environment(context: &StepContext, creation: Creation) -> StepOutcome<Creation, ()> {
    match context.bus.ask(&context.caller, CleanupEnvironment { project_id: creation.project.id }).await {
        Ok(()) => Ok(()),
        Err(CallError::Refused(error)) => Err(ProjectError::CleanupFailed(error.to_string()).into()),
        Err(CallError::Failed(failure)) => Err(failure.into()),
    }
}

async fn open(transaction: &mut Transaction, context: &StepContext, creation: Creation) -> StepOutcome<Creation> {
    let opened = transaction
        .query("UPDATE projects SET creating = FALSE WHERE id = $1")
        .bind(creation.project.id.0)
        .execute()
        .await?;
    if opened == 0 {
        return Err(ProjectError::NotFound.into());
    }
    emit(transaction, &context.caller, &ProjectCreated(fact(&creation.project))).await?;
    Ok(creation)
}

/// Takes back what only a step after `open` could make necessary: the project is again there for nobody.
async fn close(transaction: &mut Transaction, _: &StepContext, creation: Creation) -> StepOutcome<Creation, ()> {
    transaction
        .query("UPDATE projects SET creating = TRUE WHERE id = $1")
        .bind(creation.project.id.0)
        .execute()
        .await?;
    Ok(())
}

/// What other domains are told of a project.
pub(crate) fn fact(project: &Project) -> ProjectFact {
    let (project_id, organization_id): (ProjectId, OrganizationId) = (project.id, project.organization_id);
    ProjectFact { project_id, organization_id, name: project.name.clone(), version: project.version }
}
