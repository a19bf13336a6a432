//! The release command: once before a rollout, and what its end means for it.

use std::{path::Path, time::Duration};

use callboard_messages::{DeploymentId, Limit, deploy::*};
use callboard_platform::cluster::NodeState;
use callboard_supervisors::testing::on_both_engines;

use super::fixture::{App, Bench, SERVER, on_node, on_sqlite, until};
use super::nodes::{Pair, by_owner};
use super::projects::Projects;
use crate::MIGRATIONS;

/// The server with this version, and a release command that notes each of its runs in a file.
fn released(version: &'static str, notes: &Path, command: &str) -> [(&'static str, String); 3] {
    let procfile = format!("release: echo {version} >> {}; {command}\nweb: python3 server.py\n", notes.display());
    [("Procfile", procfile), ("server.py", SERVER.to_owned()), ("VERSION", version.to_owned())]
}

fn files<'a>(files: &'a [(&'static str, String); 3]) -> [(&'a str, &'a str); 3] {
    [0, 1, 2].map(|index| (files[index].0, files[index].1.as_str()))
}

fn runs(notes: &Path) -> String {
    std::fs::read_to_string(notes).unwrap_or_default().replace('\n', " ").trim().to_owned()
}

/// Waits until the log of a deployment has this: its last lines follow its end.
async fn says(bench: &Bench, app: &App, id: DeploymentId, text: &str) {
    bench.until(text, async || bench.build_log(app, id).await.contains(text).then_some(())).await;
}

#[actix_rt::test]
async fn it_runs_once_before_the_rollout_as_the_app_will_and_never_for_what_was_released_before() {
    on_both_engines(&[("deploy", &MIGRATIONS)], async |databases| {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(&databases, folder.path()).await;
        let (app, notes) = (bench.create("shop"), folder.path().join("notes"));
        bench.set_env(&app, "GREETING", " hello-there-1");
        let command =
            "cat VERSION; echo; echo \"it says$GREETING\"; test -w . && test -d \"$TMPDIR\" && test -z \"$PORT\"";
        let first = bench.deploy(&app, &files(&released("one", &notes, command))).await;
        let log = bench.build_log(&app, first.id).await;
        assert_eq!(first.status, DeploymentStatus::Completed, "{log}");
        let (heading, rest) = log.split_once("-----> Running the release command").expect(&log);
        assert!(heading.contains("-----> Releasing v1") && rest.contains("-----> Released v1"), "{log}");
        assert!(rest.contains("       one\n") && rest.contains("it says ***GREETING***"), "{log}");
        assert_eq!(runs(&notes), "one");
        let releases = ListReleases { project_id: app.id, limit: Limit::default(), cursor: None };
        let releases = bench.ask(&app.owner, releases).await.unwrap().items;
        assert!(releases[0].release_command.as_ref().is_some_and(|shown| shown.starts_with("echo one")));

        let second = bench.deploy(&app, &files(&released("two", &notes, "true"))).await;
        assert_eq!(second.status, DeploymentStatus::Completed);
        assert_eq!(runs(&notes), "one two");
        bench.scale(&app, &[("web", 2)]).await.unwrap();
        bench.healthy(&app, "web", 2).await;
        let restart = bench.ask(&app.owner, Restart { project_id: app.id }).await.unwrap();
        assert_eq!(bench.ended(&app, restart.id).await.status, DeploymentStatus::Completed);
        let back = bench.ask(&app.owner, Rollback { project_id: app.id, version: None }).await.unwrap();
        assert_eq!(bench.ended(&app, back.id).await.status, DeploymentStatus::Completed);
        assert_eq!(runs(&notes), "one two", "not for a scale, a restart or a rollback");
        // What it has written is gone with its folder.
        bench
            .until("only the instance has a folder", async || {
                let left = std::fs::read_dir(bench.folder.join("deploy/instances")).unwrap().count();
                (left == 1).then_some(())
            })
            .await;
        bench.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn its_failure_fails_the_deployment_and_the_old_release_serves() {
    on_sqlite(async |databases, folder| {
        let change = |settings: &mut crate::DeploySettings| settings.instances.release_time = Duration::from_secs(2);
        let bench = Bench::start_with(databases, folder, Projects::default(), change).await;
        let (app, notes) = (bench.create("shop"), folder.join("notes"));
        let first = bench.deploy(&app, &files(&released("zero", &notes, "echo no database >&2; exit 3"))).await;
        assert_eq!(first.status, DeploymentStatus::Failed);
        let error = first.error.unwrap();
        assert!(error.starts_with("the release command `echo zero"), "{error}");
        assert!(error.contains("status 3") && error.ends_with("it said: no database"), "{error}");
        says(&bench, &app, first.id, "nothing serves: no deployment of this app has succeeded").await;

        bench.release(&app, "one").await;
        let slow = bench.deploy(&app, &files(&released("two", &notes, "sleep 1000"))).await;
        let error = slow.error.unwrap();
        assert!(error.contains("did not end within 2 seconds"), "{error}");
        let missing = bench.deploy(&app, &files(&released("three", &notes, "nosuchprogram"))).await;
        let error = missing.error.unwrap();
        assert!(error.contains("the program `nosuchprogram` was not found"), "{error}");
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one");
        says(&bench, &app, missing.id, "v2 serves as before").await;
        let releases = ListReleases { project_id: app.id, limit: Limit::default(), cursor: None };
        let releases = bench.ask(&app.owner, releases).await.unwrap().items;
        let statuses: Vec<ReleaseStatus> = releases.iter().map(|release| release.status).collect();
        assert_eq!(
            statuses,
            [ReleaseStatus::Failed, ReleaseStatus::Failed, ReleaseStatus::Serving, ReleaseStatus::Failed]
        );
        assert!(releases[0].error.as_ref().is_some_and(|error| error.contains("nosuchprogram")));
        bench.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_cancelled_deployment_ends_it() {
    on_node(async |bench| {
        let (app, notes) = (bench.create("shop"), bench.folder.join("notes"));
        let begun = bench.begin(&app, &files(&released("one", &notes, "sleep 1000"))).await.unwrap();
        until("it runs", async || (runs(&notes) == "one").then_some(())).await;
        bench.ask(&app.owner, CancelDeployment { deployment_id: begun.id }).await.unwrap();
        bench
            .until("its folder is gone", async || {
                let left = std::fs::read_dir(bench.folder.join("deploy/instances")).unwrap().count();
                (left == 0).then_some(())
            })
            .await;
        bench.release(&app, "two").await;
    })
    .await;
}

#[actix_rt::test]
async fn a_node_that_takes_over_runs_it_again_unless_it_had_succeeded() {
    on_both_engines(&[("deploy", &MIGRATIONS)], async |databases| {
        let folder = tempfile::tempdir().unwrap();
        let pair = Pair::new(&databases, folder.path());
        let (a, b) = pair.both().await;
        let app = pair.create("shop");
        let (notes, go) = (folder.path().join("notes"), folder.path().join("go"));
        let command = format!("until test -e {}; do sleep 0.05; done", go.display());
        let begun = a.begin(&app, &files(&released("one", &notes, &command))).await.unwrap();
        until("it runs", async || (runs(&notes) == "one").then_some(())).await;
        let (at, _, second) = by_owner(&app, &pair, &a, &b).await;
        let mut states = [NodeState::Up, NodeState::Up];
        states[at] = NodeState::Gone;
        pair.tell(&second.members, states);
        until("the other node runs it", async || (runs(&notes) == "one one").then_some(())).await;
        std::fs::write(&go, "").unwrap();
        let ended = second.ended(&app, begun.id).await;
        let log = second.build_log(&app, begun.id).await;
        assert_eq!(ended.status, DeploymentStatus::Completed, "{:?}\n{log}", ended.error);
        assert!(log.contains("it runs again"), "{log}");
        assert_eq!(runs(&notes), "one one");
        a.stop().await;
        b.stop().await;
    })
    .await;
}
