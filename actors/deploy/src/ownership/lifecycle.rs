//! The lifecycle of the domain on its node: recovery, drain, close. A domain that was given up and is revived begins a new
//! lifecycle.
//!
//! At the stop, apps are handed over to other nodes, if there are any; then all instances and builds end at the same time.
//! The last child is the first to be stopped: it signals drain and close and waits for the others. The first child is
//! stopped when nothing runs any more: it releases what this node still owns, so that others need not wait until the node
//! itself is gone, which one that only gave the domain up never is.

use std::{sync::Arc, time::Duration};

use callboard_supervisors::{ChildContext, ChildSpec, Exit, db::Error};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    store::{owners, steps},
    world::World,
};

const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Time for other nodes to start the apps of this one, which serve on meanwhile.
const HANDOVER_WITHIN: Duration = Duration::from_secs(8);
/// Added to drain and grace of the instances.
const SLACK: Duration = Duration::from_secs(3);
/// Limit of the last statements; without them, others take over once the node is gone.
const RELEASE_WITHIN: Duration = Duration::from_secs(1);

/// How far a lifecycle has come.
pub(crate) struct Lifecycle {
    /// Whether recovery is over: builders wait for it.
    pub(crate) recovered: watch::Sender<bool>,
    /// The node claims nothing new, and hands over its apps.
    pub(crate) draining: CancellationToken,
    /// Instances and builds end; the next start, or another node, takes them up again.
    pub(crate) closing: CancellationToken,
}

impl Default for Lifecycle {
    fn default() -> Self {
        let (draining, closing) = (CancellationToken::new(), CancellationToken::new());
        Self { recovered: watch::Sender::new(false), draining, closing }
    }
}

/// The first child.
pub(crate) fn first_child(world: Arc<World>) -> ChildSpec {
    ChildSpec::new("opening", move |child: ChildContext| {
        let world = world.clone();
        async move {
            world.begin_lifecycle();
            child.stopping().await;
            world.apps.clear();
            match child.clock.timeout_at(child.clock.instant() + RELEASE_WITHIN, release_ownership(&world)).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::warn!(%error, "releasing the apps of this node failed"),
                None => tracing::warn!("releasing the apps of this node timed out"),
            }
            Exit::Shutdown
        }
    })
}

async fn release_ownership(world: &World) -> Result<(), Error> {
    let (database, me) = (world.databases.open(crate::DOMAIN).await?, world.nodes.me());
    steps::requeue_all(&database, me).await?;
    owners::release_all(&database, me).await
}

/// The last child.
pub(crate) fn last_child(world: Arc<World>) -> ChildSpec {
    let instances = &world.settings.instances;
    let within = HANDOVER_WITHIN + instances.drain_at_stop + instances.stop_grace + SLACK;
    ChildSpec::new("closing", move |child: ChildContext| {
        let world = world.clone();
        async move {
            child.stopping().await;
            // A drained node has handed over what it could.
            let deadline = tokio::time::Instant::now() + HANDOVER_WITHIN;
            let hands_over = !world.nodes.is_draining();
            let lifecycle = world.lifecycle();
            lifecycle.draining.cancel();
            while hands_over
                && world.apps.instances() > 0
                && world.nodes.can_hand_over()
                && tokio::time::Instant::now() < deadline
            {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            lifecycle.closing.cancel();
            let builders = world.settings.builders;
            while world.apps.instances() > 0 || world.build_permits.available_permits() < builders {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            world.journals.store_all().await;
            Exit::Shutdown
        }
    })
    .stop_within(within)
}
