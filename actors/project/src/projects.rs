//! Projects: get, list, update.
//!
//! The tenant is in every predicate: another's project does not exist.

use callboard_messages::{
    Caller, Cursor, Failure, OrganizationId, Page, ProjectId,
    project::{GetProject, ListProjects, Project, ProjectError, ProjectUpdated, UpdateProject},
};
use callboard_supervisors::{
    Bus, Clock, Handle, Outcome, ShardContext, StartError,
    db::{Database, Databases, Error, Query, Transaction},
    events::emit,
    reconcile::Reconciler,
    saga::{HasSagas, SagaEngine, Sagas},
};
use chrono::{DateTime, Utc};

use crate::{creation::fact, deletion::Deletions, environment::Vault};

const DESCRIPTION_MAXIMUM: usize = 1_000;

/// The state of one shard.
pub struct Projects {
    pub(crate) database: Database,
    pub(crate) bus: Bus,
    pub(crate) clock: Clock,
    pub(crate) vault: Vault,
    pub(crate) sagas: SagaEngine,
    pub(crate) deletions: Reconciler<Deletions>,
}

impl Projects {
    pub(crate) async fn new(
        databases: Databases,
        vault: Vault,
        sagas: Sagas,
        deletions: Reconciler<Deletions>,
        context: ShardContext,
    ) -> Result<Self, StartError> {
        let database = databases.open(crate::DOMAIN).await.map_err(StartError::new)?;
        let sagas = sagas.open(&context).await?;
        Ok(Self { database, bus: context.bus, clock: context.clock, vault, sagas, deletions })
    }
}

impl HasSagas for Projects {
    fn sagas(&self) -> &SagaEngine {
        &self.sagas
    }
}

/// The columns of a [`Project`].
macro_rules! columns {
    () => {
        "id, organization_id, name, description, version, created_at, updated_at, deleting_at"
    };
}
pub(crate) use columns;

impl Handle<GetProject> for Projects {
    async fn handle(&self, caller: &Caller, message: GetProject) -> Outcome<GetProject> {
        let project: Option<Project> = self
            .database
            .query(concat!(
                "SELECT ",
                columns!(),
                " FROM projects WHERE id = $1 AND organization_id = $2 AND NOT creating"
            ))
            .bind(message.project_id)
            .bind(caller.tenant()?)
            .fetch_optional()
            .await?;
        Ok(project.ok_or(ProjectError::NotFound)?)
    }
}

impl Handle<ListProjects> for Projects {
    async fn handle(&self, caller: &Caller, message: ListProjects) -> Outcome<ListProjects> {
        let sql = match message.name {
            None => concat!(
                "SELECT ",
                columns!(),
                " FROM projects WHERE organization_id = $1 AND id < $2 AND NOT creating ORDER BY id DESC LIMIT $3"
            ),
            Some(_) => concat!(
                "SELECT ",
                columns!(),
                " FROM projects WHERE organization_id = $1 AND id < $2 AND name = $4 AND NOT creating
                 ORDER BY id DESC LIMIT $3"
            ),
        };
        let page = self.database.query(sql).bind(caller.tenant()?).bind(Cursor::below(message.cursor));
        let page = page.bind(message.limit.rows());
        let query = match message.name {
            None => page,
            Some(name) => page.bind(name),
        };
        let projects: Vec<Project> = query.fetch_all().await?;
        Ok(Page::of(projects, message.limit, |project| project.id.0))
    }
}

impl Handle<UpdateProject> for Projects {
    async fn handle(&self, caller: &Caller, message: UpdateProject) -> Outcome<UpdateProject> {
        if let Some(description) = &message.description {
            check_description(description)?;
        }
        let organization_id = caller.tenant()?;
        let now = self.clock.now();
        let update = async |transaction: &mut Transaction| -> Result<Option<Project>, Error> {
            let updated: Option<Project> = transaction
                .query(concat!(
                    "UPDATE projects
                     SET description = COALESCE($3, description), version = version + 1, updated_at = $5
                     WHERE id = $1 AND organization_id = $2 AND version = COALESCE($4, version)
                       AND deleting_at IS NULL AND NOT creating
                     RETURNING ",
                    columns!()
                ))
                .bind(message.project_id)
                .bind(organization_id)
                .bind(message.description.clone())
                .bind(message.if_match)
                .bind(now)
                .fetch_optional()
                .await?;
            if let Some(project) = &updated {
                emit(transaction, caller, &ProjectUpdated(fact(project))).await?;
            }
            Ok(updated)
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

/// Why an unconditional change of a project changed nothing.
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
        standing.bind(project_id).bind(organization_id).fetch_optional().await?;
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
