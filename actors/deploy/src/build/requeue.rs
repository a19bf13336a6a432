//! Requeues builds that no builder works at any more: orphaned claims, and builds of nodes that crashed or are gone.

use callboard_messages::Failure;

use crate::{
    context::Context,
    ownership::work::Work,
    store::steps::{self, Author, Build, Builder},
};

/// How often a node goes down during a build before it is not tried again.
const CRASHES_MAXIMUM: i64 = 2;

/// Requeues orphaned builds, which this node has claimed and no builder of it works at: the reply to the claim was lost, or
/// the builder was not started. Only for the dispatcher, between its claims.
pub(crate) async fn orphaned(context: &Context) -> Result<(), Failure> {
    for build in find_orphaned(context).await? {
        if steps::requeue(&context.database, build.id, build.attempt).await? {
            tracing::warn!(id = %build.id, attempt = build.attempt, "build was orphaned: claimed and not started; requeued");
            context.announce(build.id).await?;
        }
    }
    Ok(())
}

/// Whether there are orphaned builds, or one that was just claimed.
pub(crate) async fn has_orphaned(context: &Context) -> Result<bool, Failure> {
    Ok(!find_orphaned(context).await?.is_empty())
}

async fn find_orphaned(context: &Context) -> Result<Vec<Build>, Failure> {
    let mut builds = steps::builds(&context.database).await?;
    let me = Some(context.nodes.me());
    builds.retain(|build| build.node == me && !context.work.has(build.id, Work::Build));
    Ok(builds)
}

/// Requeues the builds of nodes that are gone.
pub(crate) async fn of_gone_nodes(context: &Context) -> Result<(), Failure> {
    let now = context.clock.instant();
    for build in steps::builds(&context.database).await? {
        if let Some(node) = build.node.filter(|node| context.nodes.is_gone(*node, now)) {
            let heading = format!("The node {} is gone; building again", context.nodes.name(node));
            after_crash(context, build, &heading).await?;
        }
    }
    Ok(())
}

/// Requeues a build whose node crashed, unless that happened before: then the build may be the cause.
pub(crate) async fn after_crash(context: &Context, build: Build, heading: &str) -> Result<(), Failure> {
    if build.crashes + 1 >= CRASHES_MAXIMUM {
        let sentence = "the node went down twice while it built this app, so it is not tried again; \
                        deploy again, or look at what the build needs";
        let builder = Builder { node: build.node.unwrap_or_else(|| context.nodes.me()), attempt: build.attempt };
        context.deployment_log(build.id).follow_on().await;
        context.fail(build.id, Author::Builder(builder), sentence).await?;
        context.refresh_route(build.project_id).await?;
    } else if steps::requeue_crashed(&context.database, build.id, build.attempt).await? {
        let log = context.deployment_log(build.id);
        log.follow_on().await;
        log.heading(heading);
        context.announce(build.id).await?;
        context.wake_builders();
    }
    Ok(())
}
