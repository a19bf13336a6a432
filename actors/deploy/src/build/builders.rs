//! The builder pool: takes queued deployments, oldest first, so many at a time as the node allows.
//!
//! The queue is the table, and builders of all nodes take from it: a signal only says that it is worth a look. Each build is a child of its own, so that one
//! that fails in a way nobody foresaw ends its own deployment and no other.

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
        pipeline::{self, MakeError},
        requeue,
    },
    context::Context,
    ownership::work::{Errand, Work},
    store::{
        deployments,
        steps::{self, Author, Builder},
    },
    world::World,
};

const RETRY_AFTER: Duration = Duration::from_secs(1);
/// What a build gets to end its processes and tell so when the node stops.
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
    let life = context.life();
    tokio::select! {
        () = child.stopping() => Exit::Shutdown,
        () = life.closing.cancelled() => {
            child.stopping().await;
            Exit::Shutdown
        }
        exit = take_turns(&context, &child) => exit,
    }
}

async fn take_turns(context: &Context, child: &ChildContext) -> Exit {
    let mut recovered = context.life().recovered.subscribe();
    if recovered.wait_for(|recovered| *recovered).await.is_err() {
        return Exit::Normal;
    }
    loop {
        let Ok(place) = context.places.clone().acquire_owned().await else { return Exit::Normal };
        match next(context).await {
            Ok(Some((id, builder))) => {
                // Before the builder is there: from now on somebody works at it, or it is nobody's.
                let errand = context.begin(id, Work::Build);
                let build = build(context.clone(), id, builder, (place, errand));
                if let Err(reason) = child.supervisor.start_child(build).await {
                    return Exit::Abnormal(reason);
                }
            }
            Ok(None) => {
                drop(place);
                if context.disk.is_full() {
                    context.clock.sleep(RETRY_AFTER).await;
                } else {
                    context.queued.notified().await;
                }
            }
            Err(error) => {
                warn_unless_outage!(error.is_outage(), %error, "the queue of builds could not be read; trying again");
                context.clock.sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// The next deployment that is this node's to build. While its disk is full it takes none: other nodes may.
async fn next(context: &Context) -> Result<Option<(DeploymentId, Builder)>, Failure> {
    requeue::orphaned(context).await?;
    while !context.is_leaving() && !context.disk.is_full() && steps::is_queued(&context.database).await? {
        let claimed = steps::claim(&context.database, &Caller::system(), context.nodes.me()).await?;
        if claimed.is_some() {
            return Ok(claimed);
        }
        // Another node was quicker: there may be more.
        tokio::task::yield_now().await;
    }
    Ok(None)
}

fn build(context: Context, id: DeploymentId, builder: Builder, work: (OwnedSemaphorePermit, Errand)) -> ChildSpec {
    let work = Arc::new(Mutex::new(Some(work)));
    let factory = move |_: ChildContext| {
        let (context, work) = (context.clone(), work.lock().take());
        async move {
            // There may be more in the queue: whoever waits for a place looks.
            if let Some((_place, errand)) = work {
                run(&context, id, builder, &errand).await;
            }
            Exit::Normal
        }
    };
    // One of an earlier attempt may not have ended yet.
    ChildSpec::new(format!("build {id} {}", builder.attempt), factory)
        .restart(Restart::Temporary)
        .stop_within(STOP_WITHIN)
}

async fn run(context: &Context, id: DeploymentId, builder: Builder, errand: &Errand) {
    let made = AssertUnwindSafe(pipeline::make(context, id, builder, &errand.cancel)).catch_unwind().await;
    let record = async || match &made {
        Ok(outcome) => settle(context, id, builder, outcome).await,
        Err(_) => {
            let sentence = "the build failed by a fault of the platform; its log has the cause";
            context.fail(id, Author::Builder(builder), sentence).await.map(drop)
        }
    };
    retry_forever(&context.clock, Backoff::constant(RETRY_AFTER), record, |failure, _| {
        warn_unless_outage!(failure.is_outage(), %id, %failure, "the end of a build could not be recorded; trying again");
    })
    .await;
}

async fn settle(
    context: &Context,
    id: DeploymentId,
    builder: Builder,
    outcome: &Result<(), MakeError>,
) -> Result<(), Failure> {
    let Some(deployment) = deployments::get(&context.database, id).await? else { return Ok(()) };
    match outcome {
        Ok(()) => {}
        Err(_) if context.life().closing.is_cancelled() => {
            if steps::requeue(&context.database, id, builder.attempt).await? {
                context.wake_builders();
            }
            return Ok(());
        }
        // The row says so already, unless another node builds it.
        Err(MakeError::Cancelled) if deployment.status == DeploymentStatus::Cancelled => {
            context.deployment_log(id).heading("Cancelled");
        }
        Err(MakeError::Cancelled) => return Ok(()),
        Err(MakeError::Failed { sentence, output }) => {
            let log = context.deployment_log(id);
            for line in output {
                log.detail(line);
            }
            context.fail(id, Author::Builder(builder), sentence).await?;
        }
        Err(MakeError::Fault(failure)) if failure.is_outage() => {
            // Of which a line is in the log already.
            tracing::debug!(%id, %failure, "a build met an outage");
            let sentence =
                "something that the build needs, the database or the object store, did not answer; deploy again";
            context.fail(id, Author::Builder(builder), sentence).await?;
        }
        Err(MakeError::Fault(failure)) => {
            tracing::error!(%id, %failure, "a build failed by a fault of the platform");
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
