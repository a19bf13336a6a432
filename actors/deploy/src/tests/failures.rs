//! What goes wrong leaves what serves, and says why.

use callboard_messages::{CallError, Code, deploy::*};
use callboard_supervisors::testing::Warnings;

use super::fixture::{Bench, on_node, on_sqlite, server};

async fn fails_with(bench: &Bench, app: &super::fixture::App, files: &[(&str, &str)], words: &[&str]) {
    let deployment = bench.deploy(app, files).await;
    let log = bench.build_log(app, deployment.id).await;
    assert_eq!(deployment.status, DeploymentStatus::Failed, "{log}");
    let error = deployment.error.unwrap();
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    assert!(log.contains(" !     "), "{log}");
}

#[actix_rt::test]
async fn a_failed_deployment_leaves_the_old_release_serving() {
    on_node(async |bench| {
        let app = bench.create("shop");
        bench.release(&app, "one").await;
        let ends_at_once = [("Procfile", "web: echo no database; exit 3\n")];
        fails_with(bench, &app, &ends_at_once, &["exited at once with status 3", "no database"]).await;
        bench.configure(&app, |kept| kept.build.health_check_grace_seconds = Some(4));
        let never_listens = [("Procfile", "web: echo waiting; sleep 1000\n")];
        fails_with(bench, &app, &never_listens, &["did not listen on PORT", "waiting"]).await;
        fails_with(bench, &app, &[("README", "nothing")], &["nothing in the source tells what this app is"]).await;
        bench.configure(&app, |kept| kept.build.build_command = Some("echo compiling; exit 9".to_owned()));
        fails_with(bench, &app, &server("two"), &["status 9", "compiling"]).await;
        bench.configure(&app, |kept| {
            kept.build.build_command = None;
            kept.build.health_check_grace_seconds = None;
        });

        assert_eq!(bench.get(&app, "/").await.unwrap(), "one");
        let instances = bench.healthy(&app, "web", 1).await;
        assert_eq!((instances[0].release_version, instances[0].restarts), (1, 0), "the old instance was not touched");
        bench.release(&app, "three").await;
        assert_eq!(bench.get(&app, "/").await.unwrap(), "three");
    })
    .await;
}

#[actix_rt::test]
async fn when_a_later_instance_fails_the_old_ones_come_back() {
    on_node(async |bench| {
        let app = bench.create("shop");
        bench.release(&app, "one").await;
        bench.scale(&app, &[("web", 2)]).await.unwrap();
        bench.healthy(&app, "web", 2).await;
        // The second instance of this one does not start. It says why on one stream: which of two is read last is chance.
        let marker = bench.folder.join("started").display().to_string();
        let procfile = format!(
            "web: if mkdir {marker} 2>/dev/null; then exec python3 server.py; else echo one is enough; exit 4; fi\n"
        );
        let [_, code, _] = server("two");
        let deployment = bench.deploy(&app, &[("Procfile", &procfile), code, ("VERSION", "two")]).await;
        assert_eq!(deployment.status, DeploymentStatus::Failed);
        let error = deployment.error.unwrap();
        assert!(error.contains("one is enough"), "{error}");
        bench
            .until("two of the old release serve", async || {
                let instances = bench.instances(&app).await;
                let old =
                    |instance: &Instance| instance.release_version == 1 && instance.status == InstanceStatus::Healthy;
                (instances.len() == 2 && instances.iter().all(old)).then_some(())
            })
            .await;
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one");
    })
    .await;
}

#[actix_rt::test]
async fn a_first_deployment_that_fails_leaves_no_app() {
    on_node(async |bench| {
        let app = bench.create("shop");
        fails_with(bench, &app, &[("Procfile", "web: exit 1\n")], &["exited at once"]).await;
        bench.until("nothing runs", async || bench.instances(&app).await.is_empty().then_some(())).await;
        bench
            .until("visitors are told", async || {
                let told = bench.get(&app, "/").await.unwrap_err();
                (told == "Nothing has been deployed to it yet.").then_some(())
            })
            .await;
        let restart = bench.ask(&app.owner, Restart { project_id: app.id }).await;
        assert_eq!(restart.unwrap_err(), CallError::Refused(DeployError::NoRelease));
        bench.release(&app, "one").await;
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one");
    })
    .await;
}

#[actix_rt::test]
async fn a_running_build_can_be_cancelled_and_leaves_nothing() {
    on_node(async |bench| {
        let app = bench.create("shop");
        bench.configure(&app, |kept| kept.build.build_command = Some("echo begun; sleep 1000".to_owned()));
        let deployment = bench.begin(&app, &server("one")).await.unwrap();
        bench
            .until("the build has begun", async || {
                bench.build_log(&app, deployment.id).await.contains("       begun").then_some(())
            })
            .await;
        let again = bench.begin(&app, &server("two")).await.unwrap_err();
        assert_eq!(again, CallError::Refused(DeployError::InProgress(deployment.id)));

        let cancel = CancelDeployment { deployment_id: deployment.id };
        for _ in 0..2 {
            let cancelled = bench.ask(&app.owner, cancel.clone()).await.unwrap();
            assert_eq!(cancelled.status, DeploymentStatus::Cancelled);
        }
        bench
            .until("the build's folder is gone", async || {
                let left = std::fs::read_dir(bench.folder.join("deploy/work")).unwrap().count();
                (left == 0).then_some(())
            })
            .await;
        bench.configure(&app, |kept| kept.build.build_command = None);
        let done = bench.release(&app, "three").await;
        let late = bench.ask(&app.owner, CancelDeployment { deployment_id: done.id }).await;
        assert_eq!(late.unwrap_err(), CallError::Refused(DeployError::AlreadyEnded));
    })
    .await;
}

#[actix_rt::test]
async fn a_running_rollout_can_be_cancelled_and_the_old_release_serves() {
    on_node(async |bench| {
        let app = bench.create("shop");
        bench.release(&app, "one").await;
        let deployment = bench.begin(&app, &[("Procfile", "web: sleep 1000\n")]).await.unwrap();
        bench
            .until("the new instance is starting", async || {
                bench.instances(&app).await.iter().any(|instance| instance.release_version == 2).then_some(())
            })
            .await;
        bench.ask(&app.owner, CancelDeployment { deployment_id: deployment.id }).await.unwrap();
        let instances = bench.healthy(&app, "web", 1).await;
        assert_eq!((instances[0].release_version, instances[0].restarts), (1, 0));
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one");
    })
    .await;
}

#[actix_rt::test]
async fn deployments_of_other_apps_wait_for_a_builder_and_a_queued_one_can_be_cancelled() {
    on_sqlite(async |databases, folder| {
        let bench = Bench::start_with(databases, folder, super::projects::Projects::default(), |settings| {
            settings.builders = 1;
        })
        .await;
        let (busy, waits, goes) = (bench.create("busy"), bench.create("waits"), bench.create("goes"));
        bench.configure(&busy, |kept| kept.build.build_command = Some("sleep 1000".to_owned()));
        let first = bench.begin(&busy, &server("one")).await.unwrap();
        bench
            .until("the first one builds", async || {
                let now = bench.ask(&busy.owner, GetDeployment { deployment_id: first.id }).await.unwrap();
                (now.status == DeploymentStatus::Building).then_some(())
            })
            .await;
        let queued = bench.begin(&waits, &server("one")).await.unwrap();
        let cancelled = bench.ask(&waits.owner, CancelDeployment { deployment_id: queued.id }).await.unwrap();
        assert_eq!(cancelled.status, DeploymentStatus::Cancelled);
        let next = bench.begin(&goes, &server("two")).await.unwrap();
        bench.ask(&busy.owner, CancelDeployment { deployment_id: first.id }).await.unwrap();
        assert_eq!(bench.ended(&goes, next.id).await.status, DeploymentStatus::Completed);
        bench.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn sources_that_cannot_be_are_refused_at_once() {
    on_sqlite(async |databases, folder| {
        let bench = Bench::start_with(databases, folder, super::projects::Projects::default(), |settings| {
            settings.source_bytes = 10;
        })
        .await;
        let app = bench.create("shop");
        let id = uuid::Uuid::now_v7();
        let register = |size| RegisterSource { project_id: app.id, source: Source { id, size, sha256: String::new() } };
        assert_eq!(
            bench.ask(&app.owner, register(11)).await.unwrap_err(),
            CallError::Refused(DeployError::TooLarge(10))
        );
        assert_eq!(bench.ask(&app.owner, register(9)).await.unwrap_err().code(), Code::NotFound, "it was not uploaded");
        let source = DeploymentSource::Archive { source_id: id };
        let create =
            CreateDeployment { project_id: app.id, source, allow_missing: false, rebuild: false, config: None };
        assert_eq!(bench.ask(&app.owner, create).await.unwrap_err().code(), Code::NotFound);
        let source = DeploymentSource::Git { url: "file:///etc".to_owned(), reference: None };
        let create =
            CreateDeployment { project_id: app.id, source, allow_missing: false, rebuild: false, config: None };
        assert_eq!(bench.ask(&app.owner, create).await.unwrap_err().code(), Code::Invalid);
        bench.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn builds_that_meet_an_outage_of_the_object_store_say_so_and_the_log_says_it_once() {
    let warnings = Warnings::collect();
    on_node(async |bench| {
        let said = || warnings.with("the object store").len();
        let before = said();
        let mut begun = Vec::new();
        for name in ["shop", "blog"] {
            let app = bench.create(name);
            let source_id = bench.upload(&app, &server("one")).await;
            begun.push((app, source_id));
        }
        // Nothing can be read or written there.
        let (store, away) = (bench.folder.join("objects"), bench.folder.join("away"));
        std::fs::rename(&store, &away).unwrap();
        std::fs::write(&store, "").unwrap();
        for (app, source_id) in &begun {
            let source = DeploymentSource::Archive { source_id: *source_id };
            let create =
                CreateDeployment { project_id: app.id, source, allow_missing: false, rebuild: false, config: None };
            let deployment = bench.ask(&app.owner, create).await.unwrap();
            let error = bench.ended(app, deployment.id).await.error.unwrap();
            assert!(error.contains("the object store, did not answer"), "{error}");
        }
        assert_eq!(said() - before, 1, "{:?}", warnings.with(""));
        std::fs::remove_file(&store).unwrap();
        std::fs::rename(&away, &store).unwrap();
        bench.release(&begun[0].0, "one").await;
        assert_eq!(said() - before, 1, "{:?}", warnings.with(""));
    })
    .await;
}
