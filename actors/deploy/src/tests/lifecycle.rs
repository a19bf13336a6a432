//! The domain is given up on a node, and revived.

use std::sync::{Arc, atomic::Ordering};

use callboard_messages::deploy::*;
use callboard_supervisors::Runtime;

use super::fixture::{App, Bench, until};
use super::gate::{Gate, Gated};
use super::nodes::{GONE, UP, owner, with_pair};

fn is_ready(node: &Runtime) -> bool {
    node.ready().iter().all(|domain| domain.ready)
}

/// Asks for what panics until the domain is given up.
async fn exhaust(bench: &Bench, gate: &Gate, app: &App) {
    gate.panics.store(true, Ordering::SeqCst);
    until("the domain is given up", async || {
        let logs = GetLogs { project_id: app.id, after: Some(0), limit: None };
        let _ = bench.ask(&app.owner, logs).await;
        let tree = bench.node.tree();
        tree.children.iter().any(|domain| domain.state == "unavailable").then_some(())
    })
    .await;
    gate.panics.store(false, Ordering::SeqCst);
}

#[actix_rt::test]
async fn what_a_given_up_domain_ran_is_taken_over_and_once_revived_it_deploys_again() {
    with_pair(async |pair| {
        let gate = Gate::new(pair.objects.clone());
        pair.objects = Arc::new(Gated(gate.clone()));
        let a = pair.start(0, 1).await;
        pair.tell(&a.members, [UP, GONE]);
        let app = pair.create("shop");
        a.release(&app, "one").await;
        exhaust(&a, &gate, &app).await;

        // The node itself is not gone.
        let b = pair.start(1, 1).await;
        until("the other one runs it", async || (owner(&b, &app).await == Some(pair.ids[1])).then_some(())).await;
        b.healthy(&app, "web", 1).await;
        assert_eq!(b.get(&app, "/").await.unwrap(), "one");

        pair.tell(&b.members, [GONE, UP]);
        b.stop().await;
        until("it is revived", async || a.node.revive(crate::DOMAIN).then_some(())).await;
        until("it is ready", async || is_ready(&a.node).then_some(())).await;
        a.healthy(&app, "web", 1).await;
        assert_eq!(owner(&a, &app).await, Some(pair.ids[0]));
        a.release(&app, "two").await;
        assert_eq!(a.get(&app, "/").await.unwrap(), "two");
        a.stop().await;
    })
    .await;
}
