//! Each node's own disk, of apps that went to another node or are gone.

use std::{path::PathBuf, time::Duration};

use callboard_messages::{Caller, deploy::CleanupEnvironment};

use super::fixture::until;
use super::nodes::{GONE, Pair, UP, by_owner, log, with_pair};

/// The logs that are on a node's disk.
fn logs(pair: &Pair<'_>, at: usize, kind: &str) -> Vec<PathBuf> {
    let folder = pair.folder.join(["a", "b"][at]).join("deploy/logs").join(kind);
    std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

#[actix_rt::test]
async fn a_node_keeps_no_logs_of_apps_that_went_elsewhere_or_are_gone() {
    with_pair(async |pair| {
        pair.change = |settings| {
            settings.disk_swept_every = Duration::from_millis(50);
            settings.build_logs_kept = 1;
        };
        let (a, b) = pair.both().await;
        let app = pair.create("shop");
        let deployment = a.release(&app, "one").await;
        let (at, _, second) = by_owner(&app, pair, &a, &b).await;
        assert_eq!(logs(pair, at, "apps").len(), 1);
        let mut states = [UP, UP];
        states[at] = GONE;
        pair.tell(&second.members, states);
        until("the lines are on the other disk alone", async || {
            (logs(pair, at, "apps").is_empty() && logs(pair, 1 - at, "apps").len() == 1).then_some(())
        })
        .await;
        let lines = log(second, &app).await;
        assert!(lines.contains(&"hello from one".to_owned()), "{lines:?}");

        // Whoever had a part in the first deployment forgets it with the second one.
        second.release(&app, "two").await;
        until("the log of the first deployment is nowhere", async || {
            let all = [0, 1].map(|at| logs(pair, at, "deployments")).concat();
            (!all.iter().any(|folder| folder.ends_with(deployment.id.to_string()))).then_some(())
        })
        .await;
        second.ask(&Caller::system(), CleanupEnvironment { project_id: app.id }).await.unwrap();
        until("nothing is left on any disk", async || {
            let left = [0, 1].map(|at| [logs(pair, at, "apps"), logs(pair, at, "deployments")].concat()).concat();
            left.is_empty().then_some(())
        })
        .await;
        a.stop().await;
        b.stop().await;
    })
    .await;
}
