//! From a source to an app that answers, and on to the next release and back.

use callboard_messages::{Caller, Code, DeploymentId, Limit, OrganizationId, ProjectId, deploy::*};
use callboard_supervisors::testing::on_both_engines;
use futures_util::StreamExt;

use super::fixture::{Bench, on_node, on_sqlite, server};
use super::projects::Projects;
use crate::MIGRATIONS;

#[actix_rt::test]
async fn a_deployed_app_answers_is_replaced_and_rolled_back() {
    on_both_engines(&[("deploy", &MIGRATIONS)], async |databases| {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(&databases, folder.path()).await;
        let app = bench.create("shop");
        assert_eq!(bench.ask(&app.owner, ListInstances { project_id: app.id }).await.unwrap().url, "http://shop.test");

        let mut live = bench.live().subscribe(&format!("project:{}", app.id), None);
        let first = bench.release(&app, "one").await;
        assert_eq!((first.release_version, first.url.as_str()), (Some(1), "http://shop.test"));
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one");
        let mut seen = Vec::new();
        while seen.last().map(String::as_str) != Some("completed") {
            let event = live.next().await.unwrap().unwrap();
            if event.kind == "deployment" {
                let status = event.data["status"].as_str().unwrap().to_owned();
                if seen.last() != Some(&status) {
                    seen.push(status);
                }
            }
        }
        // Each announcement tells the state at its own time, so a builder that is quick hides the one before it.
        let order = ["queued", "building", "rolling", "completed"];
        let places: Vec<_> = seen.iter().map(|status| order.iter().position(|known| known == status)).collect();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{seen:?}");
        assert!(seen.len() >= 2, "{seen:?}");

        let log = bench.build_log(&app, first.id).await;
        for line in [
            "-----> Unpacking the source",
            "app detected",
            "web.1 is healthy",
            "-----> Released v1",
            "http://shop.test",
        ] {
            assert!(log.contains(line), "{line} is not in\n{log}");
        }
        bench
            .until("the app's own lines are in its log", async || {
                let logs =
                    bench.ask(&app.owner, GetLogs { project_id: app.id, after: None, limit: None }).await.unwrap();
                logs.items.iter().any(|line| line.from == "web.1" && line.text == "hello from one").then_some(())
            })
            .await;

        let second = bench.release(&app, "two").await;
        assert_eq!(second.release_version, Some(2));
        assert_eq!(bench.get(&app, "/").await.unwrap(), "two", "a completed deployment is all that answers");
        let releases = bench
            .ask(&app.owner, ListReleases { project_id: app.id, limit: Limit::default(), cursor: None })
            .await
            .unwrap();
        let shown: Vec<_> = releases.items.iter().map(|release| (release.version, release.current)).collect();
        assert_eq!(shown, [(2, true), (1, false)]);
        assert!(releases.items[0].processes.contains_key("worker"));

        let back = bench.ask(&app.owner, Rollback { project_id: app.id, version: None }).await.unwrap();
        assert_eq!(back.kind, DeploymentKind::Rollback);
        let back = bench.ended(&app, back.id).await;
        assert_eq!((back.status, back.release_version), (DeploymentStatus::Completed, Some(1)));
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one");
        let page = bench
            .ask(&app.owner, ListDeployments { project_id: app.id, limit: Limit::of(2), cursor: None })
            .await
            .unwrap();
        assert_eq!(page.items.iter().map(|deployment| deployment.id).collect::<Vec<_>>(), [back.id, second.id]);
        let rest = ListDeployments { project_id: app.id, limit: Limit::of(2), cursor: page.next };
        assert_eq!(bench.ask(&app.owner, rest).await.unwrap().items[0].id, first.id);

        // What served a moment ago is the newer one.
        let forth = bench.ask(&app.owner, Rollback { project_id: app.id, version: None }).await.unwrap();
        assert_eq!(bench.ended(&app, forth.id).await.release_version, Some(2));
        let back = bench.ask(&app.owner, Rollback { project_id: app.id, version: None }).await.unwrap();
        assert_eq!(bench.ended(&app, back.id).await.release_version, Some(1));

        let again = bench.ask(&app.owner, Rollback { project_id: app.id, version: Some(1) }).await;
        assert_eq!(again.unwrap_err().code(), Code::Invalid);
        let missing = bench.ask(&app.owner, Rollback { project_id: app.id, version: Some(9) }).await;
        assert_eq!(missing.unwrap_err().code(), Code::NotFound);
        bench.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_release_runs_with_its_own_environment_and_a_restart_with_the_newest() {
    on_node(async |bench| {
        let app = bench.create("shop");
        bench.set_env(&app, "GREETING", " a");
        bench.release(&app, "one").await;
        bench.set_env(&app, "GREETING", " b");
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one a");
        let restart = bench.ask(&app.owner, Restart { project_id: app.id }).await.unwrap();
        assert_eq!(bench.ended(&app, restart.id).await.status, DeploymentStatus::Completed);
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one b");
        bench.release(&app, "two").await;
        bench.set_env(&app, "GREETING", " c");
        let back = bench.ask(&app.owner, Rollback { project_id: app.id, version: Some(1) }).await.unwrap();
        bench.ended(&app, back.id).await;
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one a");
    })
    .await;
}

#[actix_rt::test]
async fn the_same_content_is_stored_once_and_old_releases_are_let_go() {
    on_node(async |bench| {
        let (app, twin) = (bench.create("shop"), bench.create("twin"));
        bench.release(&app, "one").await;
        bench.release(&twin, "one").await;
        assert_eq!(bench.object_count("releases").await, 1);
        bench.release(&twin, "two").await;
        bench.ask(&app.owner, CleanupEnvironment { project_id: app.id }).await.unwrap();
        assert_eq!(bench.object_count("releases").await, 2, "the twin still needs both");
        assert_eq!(bench.get(&twin, "/").await.unwrap(), "two");
        let back = bench.ask(&twin.owner, Rollback { project_id: twin.id, version: None }).await.unwrap();
        assert_eq!(bench.ended(&twin, back.id).await.status, DeploymentStatus::Completed);
        assert_eq!(bench.get(&twin, "/").await.unwrap(), "one");
    })
    .await;
}

#[actix_rt::test]
async fn cleaning_up_leaves_nothing_and_may_be_repeated() {
    on_node(async |bench| {
        let app = bench.create("shop");
        let deployment = bench.release(&app, "one").await;
        bench.scale(&app, &[("web", 2), ("worker", 1)]).await.unwrap();
        bench.healthy(&app, "web", 2).await;
        for _ in 0..2 {
            bench.ask(&Caller::system(), CleanupEnvironment { project_id: app.id }).await.unwrap();
        }
        assert!(bench.routes.get("shop").is_none());
        assert_eq!(bench.object_count("sources").await + bench.object_count("releases").await, 0);
        let database = bench.databases.open("deploy").await.unwrap();
        for count in [
            "SELECT COUNT(*) FROM apps",
            "SELECT COUNT(*) FROM deployments",
            "SELECT COUNT(*) FROM releases",
            "SELECT COUNT(*) FROM sources",
        ] {
            assert_eq!(database.query(count).fetch_scalar::<i64>().await.unwrap(), 0, "{count}");
        }
        let logs = bench.folder.join("deploy/logs");
        assert!(!logs.join("deployments").join(deployment.id.to_string()).exists());
        assert!(!logs.join("apps").join(app.id.to_string()).exists());
        bench
            .until("the instances' folders are gone", async || {
                let left = std::fs::read_dir(bench.folder.join("deploy/instances")).unwrap().count();
                (left == 0).then_some(())
            })
            .await;
    })
    .await;
}

#[actix_rt::test]
async fn another_tenant_sees_nothing_and_changes_nothing() {
    on_node(async |bench| {
        let app = bench.create("shop");
        let deployment = bench.release(&app, "one").await;
        let source_id = bench.upload(&app, &server("two")).await;
        let stranger = Caller { organization_id: Some(OrganizationId::new()), ..Caller::system() };
        let project_id = app.id;
        macro_rules! not_there {
            ($($message:expr),* $(,)?) => {
                $(assert_eq!(bench.ask(&stranger, $message).await.unwrap_err().code(), Code::NotFound);)*
            };
        }
        let deployment_id = deployment.id;
        not_there!(
            GetDeployment { deployment_id },
            CancelDeployment { deployment_id },
            GetBuildLog { deployment_id, after: None, limit: None },
            ListDeployments { project_id, limit: Limit::default(), cursor: None },
            ListReleases { project_id, limit: Limit::default(), cursor: None },
            ListInstances { project_id },
            GetLogs { project_id, after: None, limit: None },
            Rollback { project_id, version: None },
            Scale { project_id, processes: [("web".to_owned(), 0)].into() },
            Stop { project_id },
            Restart { project_id },
            CreateDeployment::of(project_id, DeploymentSource::Archive { source_id }),
            RegisterSource { project_id, source: Source { id: source_id, size: 1, sha256: String::new() } },
        );
        // Nor can a source of another project be deployed.
        let other = bench.create("other");
        let borrowed = CreateDeployment::of(other.id, DeploymentSource::Archive { source_id });
        assert_eq!(bench.ask(&other.owner, borrowed).await.unwrap_err().code(), Code::NotFound);
        let nowhere = GetDeployment { deployment_id: DeploymentId::new() };
        assert_eq!(bench.ask(&app.owner, nowhere).await.unwrap_err().code(), Code::NotFound);
        let nowhere = ListInstances { project_id: ProjectId::new() };
        assert_eq!(bench.ask(&app.owner, nowhere).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one");
    })
    .await;
}

#[actix_rt::test]
async fn a_request_that_comes_again_finds_the_deployment_that_it_began() {
    on_node(async |bench| {
        let app = bench.create("shop");
        let source = DeploymentSource::Archive { source_id: bench.upload(&app, &server("one")).await };
        let attempt = Caller { request: Some(uuid::Uuid::now_v7()), ..app.owner.clone() };
        let create = || CreateDeployment::of(app.id, source.clone());
        // Twice at the same time, as when a message is delivered twice, and once more when it has ended.
        let (first, second) = futures_util::join!(bench.ask(&attempt, create()), bench.ask(&attempt, create()));
        let begun = first.unwrap();
        assert_eq!(second.unwrap().id, begun.id);
        bench.ended(&app, begun.id).await;
        assert_eq!(bench.ask(&attempt, create()).await.unwrap().id, begun.id);
        let all =
            bench.ask(&app.owner, ListDeployments { project_id: app.id, limit: Limit::default(), cursor: None }).await;
        assert_eq!(all.unwrap().items.len(), 1);
    })
    .await;
}

#[actix_rt::test]
async fn a_deployment_that_waits_says_at_once_for_what() {
    on_sqlite(async |databases, folder| {
        let projects = Projects::default();
        let bench = Bench::start_with(databases, folder, projects, |settings| settings.builders = 1).await;
        let [first, second, third] = ["first", "second", "third"].map(|name| bench.create(name));
        let go = folder.join("go").display().to_string();
        bench.configure(&first, |kept| {
            kept.build.build_command = Some(format!("until test -e {go}; do sleep 0.05; done"));
        });
        let begun = bench.begin(&first, &server("one")).await.unwrap();
        bench
            .until("it is being built", async || {
                let deployment = bench.ask(&first.owner, GetDeployment { deployment_id: begun.id }).await.unwrap();
                (deployment.status == DeploymentStatus::Building).then_some(())
            })
            .await;
        let mut waiting = Vec::new();
        for (app, place) in
            [(&second, "this deployment is the next one"), (&third, "one other deployment comes before")]
        {
            let begun = bench.begin(app, &server("one")).await.unwrap();
            let log = bench.build_log(app, begun.id).await;
            let says = format!("-----> Waiting: the only builder of the node alone is busy; {place}");
            assert!(log.starts_with(&says), "{log}");
            waiting.push((app, begun.id));
        }
        assert!(!bench.build_log(&first, begun.id).await.contains("Waiting"));
        std::fs::write(&go, "").unwrap();
        for (app, id) in waiting {
            assert_eq!(bench.ended(app, id).await.status, DeploymentStatus::Completed);
        }
        bench.stop().await;
    })
    .await;
}
