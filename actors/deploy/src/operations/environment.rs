//! The environment of an app: set up with its project, cleaned up with it.

use std::time::Duration;

use callboard_messages::{
    CallError, Caller, Failure, ProjectId,
    deploy::{CleanupEnvironment, SetupEnvironment},
    project::ProjectDeleted,
};
use callboard_supervisors::{
    Handle, Outcome,
    db::{Database, Transaction},
    events::{Inapplicable, Occurred, React, Stored},
};

use super::{Deploys, Refusable, no_project};
use crate::store::{
    apps::{self, Ensured},
    deployments,
};

const LOOKED_EVERY: Duration = Duration::from_millis(20);
/// Within the operation's own time.
const REMOVED_WITHIN: Duration = Duration::from_secs(24);

impl Handle<SetupEnvironment> for Deploys {
    async fn handle(&self, _: &Caller, message: SetupEnvironment) -> Outcome<SetupEnvironment> {
        let SetupEnvironment { project_id, organization_id, name } = message;
        let context = &self.context;
        let mut transaction = context.database.begin().await?;
        let ensured = apps::ensure(&mut transaction, project_id, organization_id, &name, context.clock.now()).await?;
        if ensured == Ensured::Gone {
            return Err(no_project());
        }
        transaction.commit().await?;
        match ensured {
            Ensured::Made => context.show_new(&name),
            _ => self.refresh_route(project_id).await,
        }
        Ok(())
    }
}

impl Handle<CleanupEnvironment> for Deploys {
    /// Marks the app as removed, and waits until its owner has removed it.
    async fn handle(&self, _: &Caller, message: CleanupEnvironment) -> Outcome<CleanupEnvironment> {
        let project_id = message.project_id;
        let now = self.context.clock.now();
        let condemn = async |transaction: &mut Transaction| apps::condemn(transaction, project_id, now).await;
        self.context.database.transact(condemn).await?;
        self.see_removed(project_id).await.map_err(CallError::after_effect)
    }
}

impl Deploys {
    async fn see_removed(&self, project_id: ProjectId) -> Refusable<()> {
        let context = &self.context;
        if let Some((id, _)) = deployments::running(&context.database, project_id).await?
            && let Some(row) = deployments::get(&context.database, id).await?
        {
            self.cancel(&row).await?;
        }
        context.wake(project_id);
        let deadline = context.clock.instant() + REMOVED_WITHIN;
        while apps::get(&context.database, project_id).await?.is_some() {
            if context.clock.instant() >= deadline {
                return Err(Failure::Timeout.into());
            }
            context.clock.sleep(LOOKED_EVERY).await;
        }
        Ok(())
    }
}

impl Stored for Deploys {
    fn database(&self) -> &Database {
        &self.context.database
    }
}

impl React<ProjectDeleted> for Deploys {
    /// Marks the app as removed; its owner removes it, whatever happens to this node.
    async fn react(
        &self,
        transaction: &mut Transaction,
        event: &Occurred<ProjectDeleted>,
    ) -> Result<(), CallError<Inapplicable>> {
        let ProjectDeleted(project) = &event.event;
        let project_id: ProjectId = project.project_id;
        apps::condemn(transaction, project_id, self.context.clock.now()).await?;
        let wake = self.context.waker(project_id);
        transaction.on_commit(wake);
        Ok(())
    }
}
