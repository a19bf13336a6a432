//! The domain's handlers, a file for each noun.
//!
//! A handler changes the store and wakes whoever acts on it; nothing that takes long happens here. The tenant stands
//! in every question: what is another's is not there.

mod caches;
mod deployments;
mod environment;
mod formation;
mod instances;
mod logs;
mod redeploy;
mod releases;
mod routes;
mod sources;
mod summaries;
mod waiting;

use std::sync::Arc;

use callboard_messages::{
    CallError, Caller, Failure, Operation, ProjectId,
    deploy::{DeployError, Deployment, DeploymentKind, DeploymentSource},
    project::{GetProject, Project, ProjectError},
};
use callboard_supervisors::{Outcome, ShardContext, StartError, db::Transaction, warn_unless_outage};

use crate::{
    context::Context,
    store::{
        apps::{self, AppRow, Ensured},
        deployments::{self as table, NewDeployment},
        releases as kept, sources as uploads,
    },
    world::World,
};

/// The state of the domain's shard. What outlives a restart of the shard is in the [`World`].
pub struct Deploys {
    context: Context,
}

type Refusable<T> = Result<T, CallError<DeployError>>;

fn no_project() -> CallError<DeployError> {
    DeployError::NotFound("project".to_owned()).into()
}

impl Deploys {
    pub(crate) async fn new(world: Arc<World>, shard: ShardContext) -> Result<Self, StartError> {
        Ok(Self { context: Context::of_shard(world, shard).await? })
    }

    /// The caller's project, as its own domain knows it.
    async fn project(&self, caller: &Caller, project_id: ProjectId) -> Refusable<Project> {
        match self.context.bus.ask(&caller.as_system(), GetProject { project_id }).await {
            Ok(project) => Ok(project),
            Err(CallError::Refused(ProjectError::NotFound)) => Err(no_project()),
            Err(CallError::Refused(refusal)) => Err(DeployError::Invalid(refusal.to_string()).into()),
            Err(CallError::Failed(failure)) => Err(failure.into()),
        }
    }

    /// The same, unless it is on its way out.
    async fn open_project(&self, caller: &Caller, project_id: ProjectId) -> Refusable<Project> {
        let project = self.project(caller, project_id).await?;
        if project.deleting_at.is_some() { Err(DeployError::Deleting.into()) } else { Ok(project) }
    }

    /// The app of the caller's project; `None` when the project was never deployed.
    async fn app(&self, caller: &Caller, project_id: ProjectId) -> Refusable<Option<AppRow>> {
        let app = apps::owned(&self.context.database, project_id, caller.tenant()?).await?;
        if app.is_none() {
            self.project(caller, project_id).await?;
        }
        Ok(app)
    }

    /// The app of the caller's project, which must have been deployed.
    async fn deployed(&self, caller: &Caller, project_id: ProjectId) -> Refusable<AppRow> {
        match self.app(caller, project_id).await?.filter(|app| app.serving.is_some()) {
            Some(app) => Ok(app),
            // Of a project that is being deleted there is nothing left to serve, either.
            None => self.open_project(caller, project_id).await.and(Err(DeployError::NoRelease.into())),
        }
    }

    /// Stores a deployment that begins, unless another one of the project runs.
    async fn begin<M>(&self, caller: &Caller, new: NewDeployment, name: &str) -> Refusable<Deployment>
    where
        M: Operation<Reply = Deployment, Error = DeployError>,
    {
        let mut row = None;
        let begin = async |transaction: &mut Transaction| -> Outcome<M> {
            let ensured = apps::ensure(transaction, new.project_id, new.organization_id, name, new.created_at).await?;
            if ensured == Ensured::Gone {
                return Err(no_project());
            }
            self.check_still(transaction, &new).await?;
            if !table::insert(transaction, &new).await? {
                let running = table::running_in(transaction, new.project_id).await?;
                let id = running.ok_or(Failure::Unavailable { retry_after: std::time::Duration::from_secs(1) })?;
                return Err(DeployError::InProgress(id).into());
            }
            let begun = table::tell_begun(transaction, caller, new.id).await?;
            let begun =
                begun.ok_or_else(|| Failure::Internal("a deployment that was stored is not there".to_owned()))?;
            row = Some(begun.clone());
            Ok(self.context.view(begun))
        };
        let deployment = self.context.database.once::<M>(caller, &self.context.clock, begin).await?;
        // A replayed reply was published before.
        Ok(row.map_or(deployment, |row| self.context.show(row)))
    }

    /// Refreshes the route after a change was stored. A failure is only logged: routers poll as well.
    async fn refresh_route(&self, project_id: ProjectId) {
        if let Err(failure) = self.context.refresh_route(project_id).await {
            warn_unless_outage!(failure.is_outage(), %project_id, %failure, "refreshing the route of an app failed; routers poll it");
        }
    }

    /// Checks that the deployment's source or release is still there. It stays: retention waits for the app's row, which the
    /// transaction holds.
    async fn check_still(&self, transaction: &mut Transaction, new: &NewDeployment) -> Refusable<()> {
        let serves = apps::hold(transaction, new.project_id).await?;
        if let Some(DeploymentSource::Archive { source_id }) = &new.source
            && !uploads::exists_in(transaction, new.project_id, *source_id).await?
        {
            return Err(DeployError::NotFound("uploaded source".to_owned()).into());
        }
        let Some(release_id) = new.release_id else { return Ok(()) };
        // A restart of what no longer serves would bring it back.
        if new.kind == DeploymentKind::Restart && serves != Some(release_id) {
            return Err(Failure::Unavailable { retry_after: std::time::Duration::from_secs(1) }.into());
        }
        if !kept::is_kept(transaction, release_id).await? {
            return Err(DeployError::Invalid(
                "the archive of the release is no longer kept; deploy it again".to_owned(),
            )
            .into());
        }
        Ok(())
    }
}
