//! The projects themselves: create, get, list, update.
//!
//! The tenant stands in every predicate: what is another's is not there.

use callboard_messages::{
    Caller, Failure, OrganizationId, Page, ProjectId, page_limit,
    project::{CreateProject, GetProject, ListProjects, Project, ProjectError, UpdateProject},
};
use callboard_supervisors::{Bus, Clock, Handle, Outcome, ShardContext, StartError, db::Database, db::Databases};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{environment::Vault, name};

const DESCRIPTION_MAXIMUM: usize = 1_000;

/// The state of one shard: nothing but its ways to the store and to other domains.
pub(crate) struct Projects {
    pub(crate) database: Database,
    pub(crate) bus: Bus,
    pub(crate) clock: Clock,
    pub(crate) vault: Vault,
}

impl Projects {
    pub(crate) async fn new(databases: Databases, vault: Vault, context: ShardContext) -> Result<Self, StartError> {
        let database = databases.open(crate::DOMAIN).await.map_err(StartError::new)?;
        Ok(Self { database, bus: context.bus, clock: context.clock, vault })
    }
}

/// A project as its table has it.
#[derive(sqlx::FromRow)]
pub(crate) struct ProjectRow {
    id: Uuid,
    organization_id: Uuid,
    name: String,
    description: String,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<ProjectRow> for Project {
    fn from(row: ProjectRow) -> Self {
        Self {
            id: ProjectId(row.id),
            organization_id: OrganizationId(row.organization_id),
            name: row.name,
            description: row.description,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// The tenant a caller acts for; the gateway gives every signed-in caller one.
pub(crate) fn tenant(caller: &Caller) -> Result<OrganizationId, Failure> {
    caller.organization_id.ok_or(Failure::Unauthenticated)
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
        };
        let inserted = self
            .database
            .query(
                "INSERT INTO projects
                    (id, organization_id, name, description, version, environment_version, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, 1, 0, $5, $5)",
            )
            .bind(project.id.0)
            .bind(organization_id.0)
            .bind(project.name.clone())
            .bind(project.description.clone())
            .bind(now)
            .execute()
            .await;
        match inserted {
            Ok(_) => Ok(project),
            Err(error) if error.violates("projects_name_key", "projects.name") => {
                Err(ProjectError::NameTaken(project.name).into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Handle<GetProject> for Projects {
    async fn handle(&self, caller: &Caller, message: GetProject) -> Outcome<GetProject> {
        let row: Option<ProjectRow> = self
            .database
            .query(
                "SELECT id, organization_id, name, description, version, created_at, updated_at
                 FROM projects WHERE id = $1 AND organization_id = $2",
            )
            .bind(message.project_id.0)
            .bind(tenant(caller)?.0)
            .fetch_optional()
            .await?;
        Ok(row.ok_or(ProjectError::NotFound)?.into())
    }
}

impl Handle<ListProjects> for Projects {
    async fn handle(&self, caller: &Caller, message: ListProjects) -> Outcome<ListProjects> {
        let limit = page_limit(message.limit).map_err(ProjectError::Invalid)?;
        // Every id is below this one: a page without a cursor begins at the newest.
        let before = message.cursor.map_or(Uuid::max(), |cursor| cursor.0);
        let query = match message.name {
            Some(name) => self
                .database
                .query(
                    "SELECT id, organization_id, name, description, version, created_at, updated_at
                     FROM projects WHERE organization_id = $1 AND id < $2 AND name = $4 ORDER BY id DESC LIMIT $3",
                )
                .bind(tenant(caller)?.0)
                .bind(before)
                .bind(i64::from(limit) + 1)
                .bind(name),
            None => self
                .database
                .query(
                    "SELECT id, organization_id, name, description, version, created_at, updated_at
                     FROM projects WHERE organization_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
                )
                .bind(tenant(caller)?.0)
                .bind(before)
                .bind(i64::from(limit) + 1),
        };
        let rows: Vec<ProjectRow> = query.fetch_all().await?;
        Ok(Page::from_rows(rows.into_iter().map(Project::from).collect(), limit, |project| project.id.0))
    }
}

impl Handle<UpdateProject> for Projects {
    async fn handle(&self, caller: &Caller, message: UpdateProject) -> Outcome<UpdateProject> {
        if let Some(description) = &message.description {
            check_description(description)?;
        }
        let organization_id = tenant(caller)?;
        let row: Option<ProjectRow> = self
            .database
            .query(
                "UPDATE projects
                 SET description = COALESCE($3, description), version = version + 1, updated_at = $5
                 WHERE id = $1 AND organization_id = $2 AND version = COALESCE($4, version) AND deleting_at IS NULL
                 RETURNING id, organization_id, name, description, version, created_at, updated_at",
            )
            .bind(message.project_id.0)
            .bind(organization_id.0)
            .bind(message.description)
            .bind(message.if_match)
            .bind(self.clock.now())
            .fetch_optional()
            .await?;
        match row {
            Some(row) => Ok(row.into()),
            None => Err(self.why_unchanged(organization_id, message.project_id).await?.into()),
        }
    }
}

impl Projects {
    /// Why a conditional change of a project changed nothing.
    pub(crate) async fn why_unchanged(
        &self,
        organization_id: OrganizationId,
        project_id: ProjectId,
    ) -> Result<ProjectError, Failure> {
        let there: Option<(i64,)> = self
            .database
            .query("SELECT version FROM projects WHERE id = $1 AND organization_id = $2 AND deleting_at IS NULL")
            .bind(project_id.0)
            .bind(organization_id.0)
            .fetch_optional()
            .await?;
        Ok(there.map_or(ProjectError::NotFound, |_| ProjectError::VersionMismatch))
    }
}

fn check_description(description: &str) -> Result<(), ProjectError> {
    if description.chars().count() > DESCRIPTION_MAXIMUM || description.contains('\0') {
        return Err(ProjectError::Invalid("the description must have at most 1,000 characters, and no NUL".to_owned()));
    }
    Ok(())
}
