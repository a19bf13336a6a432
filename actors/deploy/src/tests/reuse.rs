//! What is not done twice: builds of the same source, and downloads between builds.

use callboard_messages::{DeploymentId, Limit, ProjectId, ReleaseId, deploy::*};
use uuid::Uuid;

use super::fixture::{App, Bench, on_node, server};
use super::tables::{begin, claim, complete, on_both, release, system};
use crate::store::{
    archives, caches, deployments, releases,
    steps::{self, Ahead, BuildOutcome},
};

async fn deploy(bench: &Bench, app: &App, files: &[(&str, &str)], rebuild: bool) -> (Deployment, String) {
    let source = DeploymentSource::Archive { source_id: bench.upload(app, files).await };
    let create = CreateDeployment { project_id: app.id, source, allow_missing: false, rebuild, config: None };
    let begun = bench.ask(&app.owner, create).await.unwrap();
    let ended = bench.ended(app, begun.id).await;
    let log = bench.build_log(app, begun.id).await;
    assert_eq!(ended.status, DeploymentStatus::Completed, "{log}");
    (ended, log)
}

#[actix_rt::test]
async fn an_unchanged_source_with_an_unchanged_configuration_is_not_built_again() {
    on_node(async |bench| {
        let app = bench.create("shop");
        let (first, _) = deploy(bench, &app, &server("one"), false).await;
        let (again, log) = deploy(bench, &app, &server("one"), false).await;
        assert_eq!((again.release_id, again.release_version), (first.release_id, Some(1)));
        assert!(
            log.contains("-----> Not built: v1 was built from the same source") && !log.contains("Packing"),
            "{log}"
        );
        assert!(log.contains("callboard deploy --rebuild"), "{log}");
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one");
        // Anything that a build may depend on is another build.
        let (other, log) = deploy(bench, &app, &server("two"), false).await;
        assert!(other.release_version == Some(2) && log.contains("Packing"), "{log}");
        let (forced, log) = deploy(bench, &app, &server("two"), true).await;
        assert!(forced.release_version == Some(3) && log.contains("Packing"), "{log}");
        bench.set_env(&app, "GREETING", " b");
        let (variables, _) = deploy(bench, &app, &server("two"), false).await;
        assert_eq!(variables.release_version, Some(4));
        assert_eq!(bench.get(&app, "/").await.unwrap(), "two b");
        bench.configure(&app, |kept| kept.build.build_command = Some("true".to_owned()));
        let (configured, _) = deploy(bench, &app, &server("two"), false).await;
        assert_eq!(configured.release_version, Some(5));
        // What another project has built is nothing to this one.
        let twin = bench.create("twin");
        let (twins, log) = deploy(bench, &twin, &server("two"), false).await;
        assert!(twins.release_version == Some(1) && log.contains("Packing"), "{log}");
    })
    .await;
}

#[actix_rt::test]
async fn a_build_finds_what_the_one_before_has_left_until_it_is_cleared() {
    on_node(async |bench| {
        let app = bench.create("shop");
        let build = "cat \"$npm_config_cache/left\" 2>/dev/null || echo nothing; \
                     mkdir -p \"$npm_config_cache\" && cat VERSION > \"$npm_config_cache/left\"; test \"$(cat VERSION)\" != bad";
        bench.configure(&app, |kept| kept.build.build_command = Some(build.to_owned()));
        let (_, log) = deploy(bench, &app, &server("one"), false).await;
        assert!(log.contains("       nothing\n"), "{log}");
        let (_, log) = deploy(bench, &app, &server("two"), false).await;
        assert!(log.contains("       one\n"), "{log}");
        // Downloads of a build that failed are kept as well.
        let failed = bench.deploy(&app, &server("bad")).await;
        assert_eq!(failed.status, DeploymentStatus::Failed);
        let (_, log) = deploy(bench, &app, &server("three"), false).await;
        assert!(log.contains("       bad\n"), "{log}");
        let other = bench.create("other");
        bench.configure(&other, |kept| kept.build.build_command = Some(build.to_owned()));
        let (_, log) = deploy(bench, &other, &server("one"), false).await;
        assert!(log.contains("       nothing\n"), "{log}");
        bench.ask(&app.owner, ClearCache { project_id: app.id }).await.unwrap();
        let (_, log) = deploy(bench, &app, &server("four"), false).await;
        assert!(log.contains("       nothing\n"), "{log}");
        let stranger = other.owner.clone();
        assert!(bench.ask(&stranger, ClearCache { project_id: app.id }).await.is_err());
        let folder = bench.folder.join("deploy/caches").join(app.id.to_string());
        assert!(folder.exists());
        bench.ask(&callboard_messages::Caller::system(), CleanupEnvironment { project_id: app.id }).await.unwrap();
        assert!(!folder.exists(), "it goes with its project");
        let page = ListReleases { project_id: other.id, limit: Limit::default(), cursor: None };
        assert_eq!(bench.ask(&other.owner, page).await.unwrap().items.len(), 1);
    })
    .await;
}

#[actix_rt::test]
async fn a_release_is_reused_by_its_key_as_long_as_it_is_kept_and_by_its_builder_alone() {
    on_both(async |database| {
        let project = ProjectId::new();
        complete(database, project, "plain").await;
        let id = begin(database, project).await.unwrap();
        let (_, builder) = claim(database, Uuid::now_v7()).await.unwrap();
        let built =
            crate::store::releases::ReleaseRow { build_key: Some("key".to_owned()), ..release(project, id, "d") };
        assert!(matches!(steps::built(database, &system(), builder, &built).await.unwrap(), BuildOutcome::Rolls(2)));
        steps::end(
            database,
            &system(),
            steps::Author::Anyone,
            id,
            DeploymentStatus::Failed,
            None,
            super::tables::now(),
        )
        .await
        .unwrap();
        let found =
            async |project, key: &str| releases::by_build_key(database, project, key).await.unwrap().map(|row| row.id);
        assert_eq!(found(project, "key").await, Some(built.id));
        assert_eq!((found(project, "other").await, found(ProjectId::new(), "key").await), (None, None));

        let again = begin(database, project).await.unwrap();
        let (_, next) = claim(database, Uuid::now_v7()).await.unwrap();
        let reuse = async |builder, release_id: ReleaseId| {
            steps::reused(database, &system(), builder, (project, again), (release_id, 7)).await.unwrap()
        };
        assert_eq!(reuse(builder, built.id).await, BuildOutcome::Lost, "the builder of another deployment");
        assert_eq!(reuse(next, ReleaseId::new()).await, BuildOutcome::ArchiveGone);
        assert!(matches!(reuse(next, built.id).await, BuildOutcome::Rolls(_)));
        let row = deployments::get(database, again).await.unwrap().unwrap();
        assert_eq!(
            (row.status, row.release_version, row.environment_version),
            (DeploymentStatus::Rolling, Some(2), Some(7))
        );
        // What rolls is kept, whatever else is let go.
        let mut transaction = database.begin().await.unwrap();
        let gone = releases::let_go(&mut transaction, project, 0).await.unwrap();
        archives::retire(&mut transaction, gone).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(found(project, "key").await, Some(built.id));
        let page = releases::page(database, project, None, Limit::default()).await.unwrap();
        let statuses: Vec<ReleaseStatus> = page.into_iter().map(|row| row.view(None).status).collect();
        assert_eq!(statuses, [ReleaseStatus::Failed, ReleaseStatus::Served]);
    })
    .await;
}

#[actix_rt::test]
async fn builds_that_come_before_are_told_and_a_cleared_cache_begins_anew() {
    on_both(async |database| {
        let projects = [ProjectId::new(), ProjectId::new(), ProjectId::new()];
        let node = Uuid::now_v7();
        let mut ids: Vec<DeploymentId> = Vec::new();
        for project in projects {
            ids.push(begin(database, project).await.unwrap());
        }
        claim(database, node).await.unwrap();
        let ahead = steps::ahead(database, ids[2], 10).await.unwrap();
        let told = |build: &Ahead| (build.name.clone(), build.building, build.builder_node);
        assert_eq!(
            ahead.iter().map(told).collect::<Vec<_>>(),
            [(projects[0].to_string(), true, Some(node)), (projects[1].to_string(), false, None)]
        );
        assert_eq!(steps::ahead(database, ids[0], 1).await.unwrap().len(), 1);
        assert_eq!(caches::generation(database, projects[0]).await.unwrap(), 0);
        caches::clear(database, projects[0]).await.unwrap();
        assert_eq!(caches::generation(database, projects[0]).await.unwrap(), 1);
        assert_eq!(caches::generation(database, projects[1]).await.unwrap(), 0);
    })
    .await;
}
