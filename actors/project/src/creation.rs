//! Creating a project: a saga, so that whatever crashes meanwhile, there is a whole project in the end, or none.
//!
//! The project's row holds its name from the first step on, and is there for nobody else before the last.

use callboard_messages::{
    CallError, Caller, ProjectId,
    deploy::{CleanupEnvironment, SetupEnvironment},
    project::{CreateProject, Project, ProjectCreated, ProjectError, ProjectFact},
};
use callboard_supervisors::{
    Handle, Outcome,
    db::Transaction,
    events::emit,
    saga::{Saga, SagaState, StepContext, StepOutcome},
};
use serde::{Deserialize, Serialize};

use crate::{
    name,
    projects::{Projects, check_description},
};

/// What the steps work with: the project as it will be.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Creation {
    pub(crate) project: Project,
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
        let organization_id = caller.tenant()?;
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
        // The saga of a project has the project's id.
        let creation = self.sagas.run(caller, project.id.0, Creation { project }).await?;
        Ok(creation.project)
    }
}

async fn record(transaction: &mut Transaction, _: &StepContext, creation: Creation) -> StepOutcome<Creation> {
    let Creation { project } = creation;
    let inserted = transaction
        .query(
            "INSERT INTO projects
                (id, organization_id, name, description, version, environment_version, creating, created_at, updated_at)
             VALUES ($1, $2, $3, $4, 1, 0, TRUE, $5, $5)",
        )
        .bind(project.id)
        .bind(project.organization_id)
        .bind(project.name.clone())
        .bind(project.description.clone())
        .bind(project.created_at)
        .execute()
        .await;
    match inserted {
        Ok(_) => Ok(Creation { project }),
        Err(error) if error.violates("projects_name_key", "projects.name") => {
            Err(ProjectError::NameTaken(project.name).into())
        }
        Err(error) => Err(error.into()),
    }
}

async fn erase(transaction: &mut Transaction, _: &StepContext, creation: Creation) -> StepOutcome<Creation, ()> {
    transaction.query("DELETE FROM projects WHERE id = $1 AND creating").bind(creation.project.id).execute().await?;
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
        .bind(creation.project.id)
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
    transaction.query("UPDATE projects SET creating = TRUE WHERE id = $1").bind(creation.project.id).execute().await?;
    Ok(())
}

/// What other domains are told of a project.
pub(crate) fn fact(project: &Project) -> ProjectFact {
    ProjectFact {
        project_id: project.id,
        organization_id: project.organization_id,
        name: project.name.clone(),
        version: project.version,
    }
}
