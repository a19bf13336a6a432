//! The projects themselves: get, list, update.
//!
//! The tenant stands in every predicate: what is another's is not there.

use std::sync::Arc;

use callboard_messages::{
    Caller, Failure, OrganizationId, Page, ProjectId, page_limit,
    project::{GetProject, ListProjects, Project, ProjectError, ProjectUpdated, UpdateProject},
};
use callboard_supervisors::{
    Bus, Clock, Handle, Outcome, ShardContext, StartError,
    db::{Database, Databases, Error, Query, Transaction},
    events::emit,
    saga::{SagaEngine, Sagas},
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{creation::fact, deletion::Deletions, environment::Vault};

const DESCRIPTION_MAXIMUM: usize = 1_000;

/// The state of one shard: nothing but its ways to the store and to other domains.
pub struct Projects {
    pub(crate) database: Database,
    pub(crate) bus: Bus,
    pub(crate) clock: Clock,
    pub(crate) vault: Vault,
    pub(crate) sagas: SagaEngine,
    pub(crate) deletions: Arc<Deletions>,
}

impl Projects {
    pub(crate) async fn new(
        databases: Databases,
        vault: Vault,
        sagas: Sagas,
        deletions: Arc<Deletions>,
        context: ShardContext,
    ) -> Result<Self, StartError> {
        let database = databases.open(crate::DOMAIN).await.map_err(StartError::new)?;
        let sagas = sagas.open(&context).await?;
        Ok(Self { database, bus: context.bus, clock: context.clock, vault, sagas, deletions })
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
    deleting_at: Option<DateTime<Utc>>,
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
            deleting_at: row.deleting_at,
        }
    }
}

/// The tenant a caller acts for; the gateway gives every signed-in caller one.
pub(crate) fn tenant(caller: &Caller) -> Result<OrganizationId, Failure> {
    caller.organization_id.ok_or(Failure::Unauthenticated)
}

impl Handle<GetProject> for Projects {
    async fn handle(&self, caller: &Caller, message: GetProject) -> Outcome<GetProject> {
        let row: Option<ProjectRow> = self
            .database
            .query(
                "SELECT id, organization_id, name, description, version, created_at, updated_at, deleting_at
                 FROM projects WHERE id = $1 AND organization_id = $2 AND NOT creating",
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
                    "SELECT id, organization_id, name, description, version, created_at, updated_at, deleting_at
                     FROM projects WHERE organization_id = $1 AND id < $2 AND name = $4 AND NOT creating
                     ORDER BY id DESC LIMIT $3",
                )
                .bind(tenant(caller)?.0)
                .bind(before)
                .bind(i64::from(limit) + 1)
                .bind(name),
            None => self
                .database
                .query(
                    "SELECT id, organization_id, name, description, version, created_at, updated_at, deleting_at
                     FROM projects WHERE organization_id = $1 AND id < $2 AND NOT creating
                     ORDER BY id DESC LIMIT $3",
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
        let now = self.clock.now();
        let update = async |transaction: &mut Transaction| -> Result<Option<Project>, Error> {
            let row: Option<ProjectRow> = transaction
                .query(
                    "UPDATE projects
                     SET description = COALESCE($3, description), version = version + 1, updated_at = $5
                     WHERE id = $1 AND organization_id = $2 AND version = COALESCE($4, version)
                       AND deleting_at IS NULL AND NOT creating
                     RETURNING id, organization_id, name, description, version, created_at, updated_at, deleting_at",
                )
                .bind(message.project_id.0)
                .bind(organization_id.0)
                .bind(message.description.clone())
                .bind(message.if_match)
                .bind(now)
                .fetch_optional()
                .await?;
            let Some(project) = row.map(Project::from) else { return Ok(None) };
            emit(transaction, caller, &ProjectUpdated(fact(&project))).await?;
            Ok(Some(project))
        };
        match self.database.transact(update).await? {
            Some(project) => Ok(project),
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
        Ok(why(self.database.query(STANDING), organization_id, project_id).await?)
    }
}

/// Whether a project is being deleted.
const STANDING: &str = "SELECT deleting_at FROM projects WHERE id = $1 AND organization_id = $2 AND NOT creating";

/// Why a change of a project, which asked for no version of it, changed nothing.
pub(crate) async fn why_absent(
    transaction: &mut Transaction,
    organization_id: OrganizationId,
    project_id: ProjectId,
) -> Result<ProjectError, Error> {
    why(transaction.query(STANDING), organization_id, project_id).await
}

async fn why(
    standing: Query<'_>,
    organization_id: OrganizationId,
    project_id: ProjectId,
) -> Result<ProjectError, Error> {
    let there: Option<(Option<DateTime<Utc>>,)> =
        standing.bind(project_id.0).bind(organization_id.0).fetch_optional().await?;
    Ok(match there {
        None => ProjectError::NotFound,
        Some((Some(_),)) => ProjectError::Deleting,
        Some((None,)) => ProjectError::VersionMismatch,
    })
}

pub(crate) fn check_description(description: &str) -> Result<(), ProjectError> {
    if description.chars().count() > DESCRIPTION_MAXIMUM || description.contains('\0') {
        return Err(ProjectError::Invalid("the description must have at most 1,000 characters, and no NUL".to_owned()));
    }
    Ok(())
}
