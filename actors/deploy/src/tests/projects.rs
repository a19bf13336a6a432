//! The project domain, in a few lines.

use std::{collections::HashMap, sync::Arc};

use callboard_messages::{
    Caller, OrganizationId, ProjectId, Secret,
    project::{BuildConfig, Config, Environment, GetConfig, GetProject, ListEnv, Project, ProjectError},
};
use callboard_supervisors::{Domain, Handle, Outcome, StartError};
use chrono::DateTime;
use parking_lot::Mutex;

use super::fixture::App;

/// A project domain that keeps what tests put into it.
#[derive(Clone, Default)]
pub(super) struct Projects(pub(super) Arc<Mutex<HashMap<ProjectId, Kept>>>);

#[derive(Clone)]
pub(super) struct Kept {
    pub(super) project: Project,
    pub(super) build: BuildConfig,
    /// Every version of the environment; the first is empty.
    pub(super) environments: Vec<Vec<(String, String)>>,
}

impl Projects {
    pub(super) fn add(&self, id: ProjectId, organization_id: OrganizationId, name: &str) -> App {
        let project = Project {
            id,
            organization_id,
            name: name.to_owned(),
            description: String::new(),
            version: 1,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            deleting_at: None,
        };
        let kept = Kept { project, build: BuildConfig::default(), environments: vec![Vec::new()] };
        self.0.lock().insert(id, kept);
        let owner = Caller { organization_id: Some(organization_id), ..Caller::system() };
        App { id, name: name.to_owned(), owner }
    }

    /// As a project is whose deletion is under way.
    pub(super) fn begin_deleting(&self, id: ProjectId) {
        self.0.lock().get_mut(&id).unwrap().project.deleting_at = Some(DateTime::UNIX_EPOCH);
    }

    fn get(&self, id: ProjectId, tenant: Option<OrganizationId>) -> Result<Kept, ProjectError> {
        let kept = self.0.lock().get(&id).cloned().ok_or(ProjectError::NotFound)?;
        if tenant.is_some_and(|tenant| tenant != kept.project.organization_id) {
            return Err(ProjectError::NotFound);
        }
        Ok(kept)
    }
}

impl Handle<GetProject> for Projects {
    async fn handle(&self, caller: &Caller, message: GetProject) -> Outcome<GetProject> {
        Ok(self.get(message.project_id, caller.organization_id)?.project)
    }
}

impl Handle<ListEnv> for Projects {
    async fn handle(&self, caller: &Caller, message: ListEnv) -> Outcome<ListEnv> {
        let kept = self.get(message.project_id, caller.organization_id)?;
        Ok(Environment { version: kept.environments.len() as i64 - 1, variables: Vec::new() })
    }
}

impl Handle<GetConfig> for Projects {
    async fn handle(&self, caller: &Caller, message: GetConfig) -> Outcome<GetConfig> {
        let kept = self.get(message.project_id, caller.organization_id)?;
        let version = message.environment_version.unwrap_or(kept.environments.len() as i64 - 1);
        let environment = kept.environments[usize::try_from(version).unwrap()].iter();
        Ok(Config {
            project: kept.project,
            build: kept.build,
            environment_version: version,
            environment: environment.map(|(name, value)| (name.clone(), Secret::new(value))).collect(),
            plain: Vec::new(),
        })
    }
}

/// The domain, over what tests put into it.
pub(super) fn domain(projects: &Projects) -> Domain {
    let projects = projects.clone();
    Domain::new("project")
        .answering()
        .on::<GetProject>()
        .on::<GetConfig>()
        .on::<ListEnv>()
        .shared(move |_| {
            let projects = projects.clone();
            async move { Ok::<_, StartError>(projects) }
        })
        .build()
}
