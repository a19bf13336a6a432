//! The stop of the node: what runs is handed over to other nodes, if there are any; then every instance and build ends
//! at the same time, not one after the other.
//!
//! The last child of the domain is the first to be stopped; it tells all others and waits for them.

use std::{sync::Arc, time::Duration};

use callboard_supervisors::{ChildContext, ChildSpec, Exit};

use crate::context::World;

const LOOKED_EVERY: Duration = Duration::from_millis(20);
/// How long other nodes are given to start the apps of this one, which serve meanwhile.
const HANDOVER_WITHIN: Duration = Duration::from_secs(8);
/// Beyond what instances are given.
const SLACK: Duration = Duration::from_secs(3);

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
            world.leaving.cancel();
            while hands_over
                && world.stage.instances() > 0
                && world.nodes.has_heirs()
                && tokio::time::Instant::now() < deadline
            {
                tokio::time::sleep(LOOKED_EVERY).await;
            }
            world.closing.cancel();
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
