//! A life of the domain on its node: from the start of its children to the end of the last of them. A domain that was
//! given up and is revived lives once more, with everything that says how far a life has come anew.
//!
//! At the stop, what runs is handed over to other nodes, if there are any; then every instance and build ends at the
//! same time, not one after the other. The last child is the first to be stopped: it tells all others and waits for
//! them. The first child is stopped when nothing runs any more: it lets go of what is still this node's, so that others
//! need not wait until the node itself is gone, which one that only gave the domain up never is.

use std::{sync::Arc, time::Duration};

use callboard_supervisors::{ChildContext, ChildSpec, Exit, db::Error};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    store::{owners, steps},
    world::World,
};

const LOOKED_EVERY: Duration = Duration::from_millis(20);
/// How long other nodes are given to start the apps of this one, which serve meanwhile.
const HANDOVER_WITHIN: Duration = Duration::from_secs(8);
/// Beyond what instances are given.
const SLACK: Duration = Duration::from_secs(3);
/// How long the database is given at the end; without it, others take over once the node is gone.
const LET_GO_WITHIN: Duration = Duration::from_secs(1);

/// How far a life has come.
pub(crate) struct Life {
    /// Whether its start is over: builders wait for it.
    pub(crate) recovered: watch::Sender<bool>,
    /// The node takes on nothing new, and hands over what it has.
    pub(crate) leaving: CancellationToken,
    /// Everything ends, and is taken up again at the next start, or by another node.
    pub(crate) closing: CancellationToken,
}

impl Default for Life {
    fn default() -> Self {
        let (leaving, closing) = (CancellationToken::new(), CancellationToken::new());
        Self { recovered: watch::Sender::new(false), leaving, closing }
    }
}

/// The first child.
pub(crate) fn first_child(world: Arc<World>) -> ChildSpec {
    ChildSpec::new("opening", move |child: ChildContext| {
        let world = world.clone();
        async move {
            world.begin_life();
            child.stopping().await;
            world.stage.clear();
            match child.clock.timeout_at(child.clock.instant() + LET_GO_WITHIN, let_go(&world)).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::warn!(%error, "the apps of this node could not be let go of"),
                None => tracing::warn!("the apps of this node could not be let go of in time"),
            }
            Exit::Shutdown
        }
    })
}

async fn let_go(world: &World) -> Result<(), Error> {
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
            // A node that drained has handed over what it could.
            let deadline = tokio::time::Instant::now() + HANDOVER_WITHIN;
            let hands_over = !world.nodes.is_draining();
            let life = world.life();
            life.leaving.cancel();
            while hands_over
                && world.stage.instances() > 0
                && world.nodes.has_heirs()
                && tokio::time::Instant::now() < deadline
            {
                tokio::time::sleep(LOOKED_EVERY).await;
            }
            life.closing.cancel();
            let builders = world.settings.builders;
            while world.stage.instances() > 0 || world.places.available_permits() < builders {
                tokio::time::sleep(LOOKED_EVERY).await;
            }
            world.journals.store_all().await;
            Exit::Shutdown
        }
    })
    .stop_within(within)
}
