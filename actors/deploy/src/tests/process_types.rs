//! Releases that lack a process type, and what is wanted of it meanwhile.

use callboard_messages::{Code, Limit, deploy::*};
use callboard_supervisors::testing::on_both_engines;

use super::fixture::{App, Bench, SERVER, on_node, server};
use crate::MIGRATIONS;

/// The server, whose one process type is misspelt.
fn misspelt(version: &str) -> [(&str, &str); 3] {
    [("Procfile", "wbe: python3 server.py\n"), ("server.py", SERVER), ("VERSION", version)]
}

async fn force(bench: &Bench, app: &App, version: &str) -> Deployment {
    let begun = bench.begin_with(app, &misspelt(version), true).await.unwrap();
    bench.ended(app, begun.id).await
}

async fn formation(bench: &Bench, app: &App) -> Formation {
    bench.ask(&app.owner, ListInstances { project_id: app.id }).await.unwrap().formation
}

fn wanted(processes: &[(&str, u32)], missing: &[(&str, u32)]) -> Formation {
    let counts = |of: &[(&str, u32)]| of.iter().map(|(process, count)| ((*process).to_owned(), *count)).collect();
    Formation { processes: counts(processes), missing: counts(missing) }
}

#[actix_rt::test]
async fn a_release_without_what_runs_is_refused_and_forced_it_is_rolled_back_with_its_formation() {
    on_both_engines(&[("deploy", &MIGRATIONS)], async |databases| {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(&databases, folder.path()).await;
        let app = bench.create("shop");
        bench.release(&app, "one").await;
        bench.scale(&app, &[("web", 2), ("worker", 1)]).await.unwrap();
        let before = bench.healthy(&app, "web", 2).await;

        let refused = bench.deploy(&app, &misspelt("two")).await;
        assert_eq!((refused.status, refused.release_id), (DeploymentStatus::Failed, None), "not even built");
        let sentence = refused.error.unwrap();
        for words in ["no process type web (2 wanted), worker (1 wanted), only wbe", "Procfile", "--allow-missing"] {
            assert!(sentence.contains(words), "{sentence}");
        }
        assert_eq!(bench.healthy(&app, "web", 2).await, before, "what served serves on");

        let forced = force(&bench, &app, "two").await;
        let log = bench.build_log(&app, forced.id).await;
        assert_eq!(forced.status, DeploymentStatus::Completed, "{log}");
        assert!(log.contains("web=2 stays wanted") && log.contains("no instance is wanted"), "{log}");
        assert_eq!(formation(&bench, &app).await, wanted(&[("wbe", 0)], &[("web", 2), ("worker", 1)]));
        bench.until("nothing runs", async || bench.instances(&app).await.is_empty().then_some(())).await;

        let back = bench.ask(&app.owner, Rollback { project_id: app.id, version: None }).await.unwrap();
        assert_eq!(bench.ended(&app, back.id).await.status, DeploymentStatus::Completed);
        bench.healthy(&app, "web", 2).await;
        bench.healthy(&app, "worker", 1).await;
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one");
        assert_eq!(formation(&bench, &app).await, wanted(&[("web", 2), ("worker", 1)], &[]));
        bench.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_rollback_runs_as_many_as_its_release_did() {
    on_node(async |bench| {
        let app = bench.create("shop");
        bench.release(&app, "one").await;
        bench.scale(&app, &[("web", 2)]).await.unwrap();
        bench.release(&app, "two").await;
        bench.scale(&app, &[("web", 1), ("worker", 1)]).await.unwrap();
        let back = bench.ask(&app.owner, Rollback { project_id: app.id, version: None }).await.unwrap();
        assert_eq!(bench.ended(&app, back.id).await.status, DeploymentStatus::Completed);
        bench.healthy(&app, "web", 2).await;
        bench.healthy(&app, "worker", 0).await;
        let releases = ListReleases { project_id: app.id, limit: Limit::default(), cursor: None };
        let releases = bench.ask(&app.owner, releases).await.unwrap().items;
        assert_eq!(releases[0].formation, Some(wanted(&[("web", 1), ("worker", 1)], &[]).processes), "what v2 ran");
    })
    .await;
}

#[actix_rt::test]
async fn what_is_wanted_of_a_missing_process_type_runs_with_the_next_release_that_has_it_unless_it_is_given_up() {
    on_node(async |bench| {
        let app = bench.create("shop");
        bench.release(&app, "one").await;
        bench.scale(&app, &[("worker", 1)]).await.unwrap();
        force(bench, &app, "two").await;
        // Once forced, nothing that runs is lost any more.
        assert_eq!(bench.deploy(&app, &misspelt("three")).await.status, DeploymentStatus::Completed);
        assert_eq!(formation(bench, &app).await, wanted(&[("wbe", 0)], &[("web", 1), ("worker", 1)]));
        assert_eq!(bench.scale(&app, &[("worker", 2)]).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(bench.scale(&app, &[("worker", 0)]).await.unwrap(), wanted(&[("wbe", 0)], &[("web", 1)]));
        assert_eq!(bench.scale(&app, &[("worker", 0)]).await.unwrap_err().code(), Code::NotFound);

        assert_eq!(bench.deploy(&app, &server("four")).await.status, DeploymentStatus::Completed);
        bench.healthy(&app, "web", 1).await;
        bench.healthy(&app, "worker", 0).await;
        assert_eq!(bench.get(&app, "/").await.unwrap(), "four");
    })
    .await;
}
