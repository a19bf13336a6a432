//! The builder pool: claims queued deployments, oldest first, as many at a time as the node has permits.
//!
//! The queue is the table, and builders of all nodes claim from it: a signal only wakes the dispatcher. Each build is a child
//! of its own, so that a panic ends its own deployment and no other.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use callboard_messages::{Caller, DeploymentId, Failure, deploy::DeploymentStatus};
use callboard_supervisors::{
    Backoff, ChildContext, ChildSpec, Exit, Restart, Supervisor, retry_forever, warn_unless_outage,
};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    build::{
        pipeline::{self, PipelineError},
        requeue,
    },
    context::Context,
    ownership::work::{Work, WorkGuard},
    store::{
        deployments,
        steps::{self, Author, Builder},
    },
    world::World,
};

const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Time for a build to end its processes and requeue itself when the node stops.
const STOP_WITHIN: Duration = Duration::from_secs(8);

/// The supervisor of all builds.
pub(crate) fn supervisor(world: Arc<World>) -> ChildSpec {
    let dispatcher = ChildSpec::new("dispatcher", move |child: ChildContext| dispatch(world.clone(), child));
    Supervisor::new("builders").child(dispatcher).into_child(Restart::Permanent)
}

async fn dispatch(world: Arc<World>, child: ChildContext) -> Exit {
    let context = match Context::of_child(world, &child).await {
        Ok(context) => context,
        Err(error) => return Exit::Abnormal(error.to_string()),
    };
    let lifecycle = context.lifecycle();
    tokio::select! {
        () = child.stopping() => Exit::Shutdown,
        () = lifecycle.closing.cancelled() => {
            child.stopping().await;
            Exit::Shutdown
        }
        exit = take_turns(&context, &child) => exit,
    }
}

async fn take_turns(context: &Context, child: &ChildContext) -> Exit {
    let mut recovered = context.lifecycle().recovered.subscribe();
    if recovered.wait_for(|recovered| *recovered).await.is_err() {
        return Exit::Normal;
    }
    loop {
        let Ok(permit) = context.build_permits.clone().acquire_owned().await else { return Exit::Normal };
        match next(context).await {
            Ok(Some((id, builder))) => {
                // Before the builder starts: a claimed build that is not registered is orphaned.
                let guard = context.begin(id, Work::Build);
                let build = build(context.clone(), id, builder, (permit, guard));
                if let Err(reason) = child.supervisor.start_child(build).await {
                    return Exit::Abnormal(reason);
                }
            }
            Ok(None) => {
                drop(permit);
                if context.disk.is_full() {
                    context.clock.sleep(RETRY_AFTER).await;
                } else {
                    context.queued.notified().await;
                }
            }
            Err(error) => {
                warn_unless_outage!(error.is_outage(), %error, "claiming a queued build failed; retrying");
                context.clock.sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// The next deployment that is this node's to build. While its disk is full it takes none: other nodes may.
async fn next(context: &Context) -> Result<Option<(DeploymentId, Builder)>, Failure> {
    requeue::orphaned(context).await?;
    while !context.is_draining() && !context.disk.is_full() && steps::is_queued(&context.database).await? {
        let claimed = steps::claim(&context.database, &Caller::system(), context.nodes.me()).await?;
        if claimed.is_some() {
            return Ok(claimed);
        }
        // Another node was quicker: there may be more.
        tokio::task::yield_now().await;
    }
    Ok(None)
}

fn build(context: Context, id: DeploymentId, builder: Builder, work: (OwnedSemaphorePermit, WorkGuard)) -> ChildSpec {
    let work = Arc::new(Mutex::new(Some(work)));
    let factory = move |_: ChildContext| {
        let (context, work) = (context.clone(), work.lock().take());
        async move {
            // The permit returns at the end, which wakes the dispatcher.
            if let Some((_place, guard)) = work {
                run(&context, id, builder, &guard).await;
            }
            Exit::Normal
        }
    };
    // One of an earlier attempt may not have ended yet.
    ChildSpec::new(format!("build {id} {}", builder.attempt), factory)
        .restart(Restart::Temporary)
        .stop_within(STOP_WITHIN)
}

async fn run(context: &Context, id: DeploymentId, builder: Builder, guard: &WorkGuard) {
    let made = AssertUnwindSafe(pipeline::run(context, id, builder, &guard.cancel)).catch_unwind().await;
    let record = async || match &made {
        Ok(outcome) => settle(context, id, builder, outcome).await,
        Err(_) => {
            let sentence = "the build failed by a fault of the platform; its log has the cause";
            context.fail(id, Author::Builder(builder), sentence).await.map(drop)
        }
    };
    retry_forever(&context.clock, Backoff::constant(RETRY_AFTER), record, |failure, _| {
        warn_unless_outage!(failure.is_outage(), %id, %failure, "recording the end of a build failed; retrying");
    })
    .await;
}

async fn settle(
    context: &Context,
    id: DeploymentId,
    builder: Builder,
    outcome: &Result<(), PipelineError>,
) -> Result<(), Failure> {
    let Some(deployment) = deployments::get(&context.database, id).await? else { return Ok(()) };
    match outcome {
        Ok(()) => {}
        Err(_) if context.lifecycle().closing.is_cancelled() => {
            if steps::requeue(&context.database, id, builder.attempt).await? {
                context.wake_builders();
            }
            return Ok(());
        }
        // The row says so already, unless another node builds it.
        Err(PipelineError::Cancelled) if deployment.status == DeploymentStatus::Cancelled => {
            context.deployment_log(id).heading("Cancelled");
        }
        Err(PipelineError::Cancelled) => return Ok(()),
        Err(PipelineError::Failed { sentence, output }) => {
            let log = context.deployment_log(id);
            for line in output {
                log.detail(line);
            }
            context.fail(id, Author::Builder(builder), sentence).await?;
        }
        Err(PipelineError::Fault(failure)) if failure.is_outage() => {
            // The outage itself is logged once, where it began.
            tracing::debug!(%id, %failure, "build failed by an outage");
            let sentence =
                "something that the build needs, the database or the object store, did not answer; deploy again";
            context.fail(id, Author::Builder(builder), sentence).await?;
        }
        Err(PipelineError::Fault(failure)) => {
            tracing::error!(%id, %failure, "build failed by an internal error");
            let sentence = "the build failed by a fault of the platform; deploy again";
            context.fail(id, Author::Builder(builder), sentence).await?;
        }
    }
    if outcome.is_ok() {
        context.wake(deployment.project_id);
        return Ok(());
    }
    context.refresh_route(deployment.project_id).await
}
