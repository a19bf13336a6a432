//! What is let go when it has been replaced: archives of old releases, uploads, logs.

use callboard_messages::{Failure, ProjectId};

use crate::{
    context::{Context, World},
    objects::Objects,
    store::{deployments, releases, sources},
};

/// After a deployment: keeps the newest of each kind. What fails is tried again after the next deployment.
pub(crate) async fn after_deployment(context: &Context, project_id: ProjectId) {
    if let Err(failure) = prune(context, project_id).await {
        tracing::warn!(%project_id, %failure, "what an app no longer needs could not be removed");
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

/// Removes the archives of all but the newest `keep` releases, unless another project has the same.
async fn release_archives(context: &Context, project_id: ProjectId, keep: u32) -> Result<(), Failure> {
    let digests = releases::let_go(&context.database, project_id, keep).await?;
    remove_unneeded(context, &digests).await
}

async fn remove_unneeded(context: &Context, digests: &[String]) -> Result<(), Failure> {
    for digest in digests {
        let _exclusive = context.objects.exclusive().await;
        unneeded(context, digest).await?;
    }
    Ok(())
}

/// Removes an archive that no release needs. It is first put aside, and comes back if it was needed meanwhile: a builder
/// on another node may have found it there, and records its release after that.
pub(crate) async fn unneeded(context: &Context, digest: &str) -> Result<(), Failure> {
    let (archive, aside) = (Objects::release(digest), Objects::aside(digest));
    if releases::is_needed(&context.database, digest).await? || !context.objects.rename(&archive, &aside).await? {
        return Ok(());
    }
    if releases::is_needed(&context.database, digest).await? {
        context.objects.rename(&aside, &archive).await?;
        return Ok(());
    }
    context.objects.remove(&aside).await
}

async fn uploads(context: &Context, project_id: ProjectId, keep: u32) -> Result<(), Failure> {
    for id in sources::forget_old(&context.database, project_id, keep).await? {
        context.objects.remove(&Objects::source(id)).await?;
    }
    Ok(())
}

/// Everything that is kept for a project outside of its rows, of which the last step of its removal takes care.
pub(crate) async fn everything(context: &Context, project_id: ProjectId) -> Result<(), Failure> {
    uploads(context, project_id, 0).await?;
    let digests = releases::digests(&context.database, project_id).await?;
    releases::let_go_all(&context.database, project_id).await?;
    remove_unneeded(context, &digests).await?;
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
