//! The configuration of a project for a deployment: the only operation that returns opened secrets.

use callboard_messages::{
    Caller,
    project::{BuildConfig, Config, GetConfig, Project, ProjectError},
};
use callboard_supervisors::{Handle, Outcome};
use sqlx::types::Json;

use crate::{
    environment::Owner,
    projects::{Projects, columns},
};

#[derive(sqlx::FromRow)]
struct ConfigRow {
    #[sqlx(flatten)]
    project: Project,
    environment_version: i64,
    build: Option<Json<BuildConfig>>,
}

impl Handle<GetConfig> for Projects {
    /// The caller is the platform. If it acts for a tenant, the project must be that tenant's.
    async fn handle(&self, caller: &Caller, message: GetConfig) -> Outcome<GetConfig> {
        let row: Option<ConfigRow> = self
            .database
            .query(concat!(
                "SELECT ",
                columns!(),
                ", environment_version, build
                 FROM projects
                 WHERE id = $1 AND organization_id = COALESCE($2, organization_id)
                   AND deleting_at IS NULL AND NOT creating"
            ))
            .bind(message.project_id)
            .bind(caller.organization_id)
            .fetch_optional()
            .await?;
        let row = row.ok_or(ProjectError::NotFound)?;
        let project = row.project;
        let version = message.environment_version.unwrap_or(row.environment_version);
        if !(0..=row.environment_version).contains(&version) {
            return Err(ProjectError::Invalid(format!("the environment has no version {version}")).into());
        }
        let owner = Owner { organization_id: project.organization_id, project_id: project.id };
        let (environment, plain) = self.opened(owner, version).await?;
        Ok(Config {
            environment,
            plain,
            build: row.build.map(|Json(build)| build).unwrap_or_default(),
            environment_version: version,
            project,
        })
    }
}
