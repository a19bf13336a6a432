//! Retention: which archives of releases, uploads and logs are kept, and the removal of the others.

use callboard_messages::{Failure, ProjectId};
use callboard_supervisors::warn_unless_outage;

use crate::{
    context::Context,
    objects::Objects,
    store::{apps, archives, deployments, releases, sources},
    world::World,
};

/// After a deployment: keeps the newest of each kind. What fails is tried again after the next deployment.
pub(crate) async fn after_deployment(context: &Context, project_id: ProjectId) {
    if let Err(failure) = prune(context, project_id).await {
        warn_unless_outage!(failure.is_outage(), %project_id, %failure, "removing old releases, uploads and logs of the app failed");
    }
}

async fn prune(context: &Context, project_id: ProjectId) -> Result<(), Failure> {
    let settings = &context.settings;
    release_archives(context, project_id, settings.releases_kept).await?;
    uploads(context, project_id, settings.sources_kept).await?;
    for id in deployments::older_than(&context.database, project_id, settings.build_logs_kept).await? {
        context.journals.remove(World::deployment_log(id)).await?;
    }
    Ok(())
}

/// Retires all but the newest `keep` releases, and the archives that no other project's release needs.
async fn release_archives(context: &Context, project_id: ProjectId, keep: u32) -> Result<(), Failure> {
    let mut transaction = context.database.begin().await?;
    apps::hold(&mut transaction, project_id).await?;
    let digests = releases::let_go(&mut transaction, project_id, keep).await?;
    archives::retire(&mut transaction, digests).await?;
    transaction.commit().await?;
    sweep(context).await
}

/// Retires the archive of a release that was never recorded, unless another release needs it.
pub(crate) async fn unneeded(context: &Context, digest: &str) -> Result<(), Failure> {
    let mut transaction = context.database.begin().await?;
    archives::retire(&mut transaction, vec![digest.to_owned()]).await?;
    transaction.commit().await?;
    sweep(context).await
}

/// Removes the objects of retired archives, of this node or of one that ended before it did.
async fn sweep(context: &Context) -> Result<(), Failure> {
    for unswept in archives::unswept(&context.database).await? {
        for generation in unswept.swept..unswept.generation {
            context.objects.remove(&Objects::release(&unswept.digest, generation)).await?;
        }
        archives::set_swept(&context.database, &unswept).await?;
    }
    Ok(())
}

/// Removes all but the newest `keep` uploads. Their rows go last, so that what is interrupted is done the next time.
async fn uploads(context: &Context, project_id: ProjectId, keep: u32) -> Result<(), Failure> {
    let mut transaction = context.database.begin().await?;
    apps::hold(&mut transaction, project_id).await?;
    let in_use = deployments::source_in_use(&mut transaction, project_id).await?;
    let forgotten = sources::forget_old(&mut transaction, project_id, keep, in_use).await?;
    transaction.commit().await?;
    for id in forgotten {
        context.objects.remove(&Objects::source(id)).await?;
        sources::erase(&context.database, id).await?;
    }
    Ok(())
}

/// Removes everything of a project outside of its rows.
pub(crate) async fn everything(context: &Context, project_id: ProjectId) -> Result<(), Failure> {
    uploads(context, project_id, 0).await?;
    let mut transaction = context.database.begin().await?;
    let digests = releases::let_go_all(&mut transaction, project_id).await?;
    archives::retire(&mut transaction, digests).await?;
    transaction.commit().await?;
    sweep(context).await?;
    loop {
        let logs = deployments::older_than(&context.database, project_id, 0).await?;
        for id in &logs {
            context.journals.remove(World::deployment_log(*id)).await?;
        }
        if deployments::erase(&context.database, &logs).await? == 0 {
            break;
        }
    }
    context.journals.remove(World::app_log(project_id)).await
}
