//! A node that is busy with an app at the moment at which another one takes it over.

use std::sync::Arc;

use callboard_platform::cluster::NodeState;
use callboard_supervisors::testing::on_both_engines;

use super::fixture::server;
use super::gate::{Gate, Gated, Moment};
use super::nodes::{GONE, Pair, UP, by_owner, owner, running_here, with_pair};
use crate::MIGRATIONS;

const NEVER_LISTENS: [(&str, &str); 1] = [("Procfile", "web: sleep 1000\n")];

#[actix_rt::test]
async fn a_node_that_lost_an_app_does_not_wait_for_its_new_release_before_it_ends_it() {
    on_both_engines(&[("deploy", &MIGRATIONS)], async |databases| {
        let folder = tempfile::tempdir().unwrap();
        let pair = Pair::new(&databases, folder.path());
        let (a, b) = pair.both().await;
        let app = pair.create("shop");
        a.release(&app, "one").await;
        let (at, first, second) = by_owner(&app, &pair, &a, &b).await;
        // The new release would be waited for long after the end of this test.
        first.configure(&app, |kept| kept.build.health_check_grace_seconds = Some(600));
        first.begin(&app, &NEVER_LISTENS).await.unwrap();
        first.until("both releases run", async || (running_here(first, &app).await.len() == 2).then_some(())).await;
        let mut states = [UP, UP];
        states[at] = GONE;
        pair.tell(&second.members, states);
        second
            .until("the other one has it", async || (owner(second, &app).await == Some(pair.ids[1 - at])).then_some(()))
            .await;
        first
            .until("nothing of it runs any more", async || running_here(first, &app).await.is_empty().then_some(()))
            .await;
        assert_eq!(owner(first, &app).await, Some(pair.ids[1 - at]));
        a.stop().await;
        b.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_standby_does_not_wait_for_a_slow_instance_when_whoever_serves_meanwhile_is_gone() {
    with_pair(async |pair| {
        let (a, b) = pair.both().await;
        let app = pair.create("shop");
        let slow = pair.folder.join("slow");
        let procfile = format!("web: if [ -e {} ]; then sleep 1000; fi; exec python3 server.py\n", slow.display());
        let [_, code, version] = server("one");
        a.configure(&app, |kept| kept.build.health_check_grace_seconds = Some(600));
        a.deploy(&app, &[("Procfile", &procfile), code, version]).await;
        let (at, _, second) = by_owner(&app, pair, &a, &b).await;
        std::fs::write(&slow, "").unwrap();
        let mut states = [UP, UP];
        states[at] = NodeState::Draining;
        pair.tell(&second.members, states);
        let first = if at == 0 { &a } else { &b };
        pair.tell(&first.members, states);
        second
            .until("the standby gets ready", async || (running_here(second, &app).await.len() == 1).then_some(()))
            .await;
        assert_eq!(owner(second, &app).await, Some(pair.ids[at]), "the first one serves meanwhile");
        states[at] = GONE;
        pair.tell(&second.members, states);
        second
            .until("the standby has it", async || (owner(second, &app).await == Some(pair.ids[1 - at])).then_some(()))
            .await;
        a.stop().await;
        b.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn apps_of_a_gone_node_are_taken_over_without_waiting_for_the_log_of_another() {
    with_pair(async |pair| {
        let gate = Gate::new(pair.objects.clone());
        pair.objects = Arc::new(Gated(gate.clone()));
        let a = pair.start(0, 1).await;
        let apps = [pair.create("first"), pair.create("second"), pair.create("third")];
        for app in &apps {
            a.release(app, "one").await;
        }
        gate.arm(Moment::Lists, &format!("apps/{}", apps[0].id));
        let b = pair.start(1, 1).await;
        pair.tell(&b.members, [GONE, UP]);
        gate.until_reached().await;
        for app in &apps[1..] {
            b.healthy(app, "web", 1).await;
        }
        gate.open();
        b.healthy(&apps[0], "web", 1).await;
        a.stop().await;
        b.stop().await;
    })
    .await;
}
