//! One node lets an archive go at the moment at which another begins to use the same, on both engines.

use std::sync::Arc;

use callboard_messages::{Caller, Limit, deploy::*};
use callboard_supervisors::testing::on_both_engines;
use futures_util::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, path::Path};

use super::fixture::{App, Bench, server, until};
use super::gate::{Gate, Gated, Moment};
use super::nodes::{Pair, by_owner};
use crate::MIGRATIONS;

async fn digest(bench: &Bench, app: &App) -> String {
    let list = ListReleases { project_id: app.id, limit: Limit::default(), cursor: None };
    bench.ask(&app.owner, list).await.unwrap().items.remove(0).digest
}

/// Waits until the store has these releases and no others.
async fn until_stored(gate: &Gate, mut expected: Vec<String>) {
    expected.sort();
    until("the store has what is needed", async || {
        let objects: Vec<ObjectMeta> = gate.inner.list(Some(&Path::from("releases"))).try_collect().await.unwrap();
        let mut names: Vec<String> =
            objects.iter().filter_map(|object| object.location.filename().map(str::to_owned)).collect();
        names.sort();
        (names == expected).then_some(())
    })
    .await;
}

/// New instances find the archive.
async fn restarts(bench: &Bench, app: &App) {
    let restart = bench.ask(&app.owner, Restart { project_id: app.id }).await.unwrap();
    let ended = bench.ended(app, restart.id).await;
    assert_eq!(ended.status, DeploymentStatus::Completed, "{:?}", ended.error);
}

async fn on_a_pair(body: impl AsyncFn(&Pair<'_>, &Gate, &Bench, &Bench)) {
    on_both_engines(&[("deploy", &MIGRATIONS)], async |databases| {
        let folder = tempfile::tempdir().unwrap();
        let mut pair = Pair::new(&databases, folder.path());
        let gate = Gate::new(pair.objects.clone());
        pair.objects = Arc::new(Gated(gate.clone()));
        pair.change = |settings| settings.releases_kept = 1;
        let (a, b) = pair.both().await;
        body(&pair, &gate, &a, &b).await;
        a.stop().await;
        b.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn what_is_let_go_late_is_not_what_another_app_was_released_with_meanwhile() {
    on_a_pair(async |pair, gate, a, b| {
        let (shop, twin) = (pair.create("shop"), pair.create("twin"));
        a.release(&shop, "one").await;
        let one = digest(a, &shop).await;
        gate.arm(Moment::Removes, &one);
        a.release(&shop, "two").await;
        gate.until_reached().await;
        let two = digest(a, &shop).await;
        // A node of the two is about to remove the archive when the same is released as another app.
        b.release(&twin, "one").await;
        gate.open();
        until_stored(gate, vec![format!("{two}.tar.gz"), format!("{one}.1.tar.gz")]).await;
        restarts(b, &twin).await;
        let (_, serves, _) = by_owner(&twin, pair, a, b).await;
        assert_eq!(serves.get(&twin, "/").await.unwrap(), "one");
        for app in [&shop, &twin] {
            b.ask(&Caller::system(), CleanupEnvironment { project_id: app.id }).await.unwrap();
        }
        until_stored(gate, Vec::new()).await;
    })
    .await;
}

#[actix_rt::test]
async fn an_archive_that_is_let_go_after_a_builder_has_found_it_is_stored_again() {
    on_a_pair(async |pair, gate, a, b| {
        let (shop, twin) = (pair.create("shop"), pair.create("twin"));
        a.release(&shop, "one").await;
        let one = digest(a, &shop).await;
        gate.arm(Moment::Found, &one);
        let begun = b.begin(&twin, &server("one")).await.unwrap();
        gate.until_reached().await;
        // The other builder makes another release, after which nobody needs the first one.
        a.release(&shop, "two").await;
        let two = digest(a, &shop).await;
        until_stored(gate, vec![format!("{two}.tar.gz")]).await;
        gate.open();
        let ended = b.ended(&twin, begun.id).await;
        assert_eq!(ended.status, DeploymentStatus::Completed, "{:?}", ended.error);
        until_stored(gate, vec![format!("{two}.tar.gz"), format!("{one}.1.tar.gz")]).await;
        restarts(b, &twin).await;
        let (_, serves, _) = by_owner(&twin, pair, a, b).await;
        assert_eq!(serves.get(&twin, "/").await.unwrap(), "one");
    })
    .await;
}
