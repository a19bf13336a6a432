//! The tables' own rules, on both engines.

use callboard_messages::{
    DeploymentId, OrganizationId, ProjectId, ReleaseId,
    deploy::{DeploymentKind, DeploymentSource, DeploymentStatus, Source},
    project::BuildConfig,
};
use callboard_supervisors::{Clock, db::Database, testing::on_both_engines};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    MIGRATIONS,
    detect::{Command, RunEnvironment},
    store::{
        apps::{self, AppState, Serving},
        deployments::{self, NewDeployment},
        releases::{self, ReleaseRow},
        sources,
    },
};

async fn on_both(body: impl AsyncFn(&Database)) {
    on_both_engines(&[("deploy", &MIGRATIONS)], async |databases| {
        body(&databases.open("deploy").await.unwrap()).await;
    })
    .await;
}

fn now() -> DateTime<Utc> {
    Clock::system().now()
}

async fn begin(database: &Database, project_id: ProjectId) -> Result<DeploymentId, bool> {
    let new = NewDeployment {
        id: DeploymentId::new(),
        project_id,
        organization_id: OrganizationId(project_id.0),
        kind: DeploymentKind::Deploy,
        status: DeploymentStatus::Queued,
        source: Some(DeploymentSource::Git { url: "https://example.org/a".to_owned(), reference: None }),
        release_id: None,
        environment_version: None,
        commit: None,
        created_at: now(),
    };
    let mut transaction = database.begin().await.unwrap();
    apps::ensure(&mut transaction, project_id, new.organization_id, &project_id.to_string(), now()).await.unwrap();
    deployments::insert(&mut transaction, &new).await.map_err(|error| deployments::is_in_progress(&error))?;
    transaction.commit().await.unwrap();
    Ok(new.id)
}

fn release(project_id: ProjectId, deployment_id: DeploymentId, digest: &str) -> ReleaseRow {
    ReleaseRow {
        id: ReleaseId::new(),
        project_id,
        version: 0,
        digest: digest.to_owned(),
        language: "node".to_owned(),
        processes: [("web".to_owned(), Command::Shell("node .".to_owned()))].into_iter().collect(),
        environment: RunEnvironment::default(),
        build: BuildConfig::default(),
        environment_version: 3,
        deployment_id,
        commit: Some("abc".to_owned()),
        kept: true,
        created_at: now(),
    }
}

/// Takes a deployment from the queue to its end.
async fn complete(database: &Database, project_id: ProjectId, digest: &str) -> ReleaseRow {
    let id = begin(database, project_id).await.unwrap();
    assert_eq!(deployments::claim(database).await.unwrap(), Some(id));
    let release = release(project_id, id, digest);
    let version = deployments::built(database, &release).await.unwrap().unwrap();
    let serving = Serving { release_id: release.id, environment_version: 3, deployment_id: id };
    let formation = [("web".to_owned(), 1)].into();
    assert!(deployments::complete(database, project_id, serving, &formation, now()).await.unwrap());
    ReleaseRow { version, ..release }
}

#[actix_rt::test]
async fn one_deployment_of_a_project_runs_at_a_time() {
    on_both(async |database| {
        let (one, other) = (ProjectId::new(), ProjectId::new());
        let first = begin(database, one).await.unwrap();
        assert_eq!(begin(database, one).await, Err(true));
        begin(database, other).await.unwrap();
        assert_eq!(deployments::running(database, one).await.unwrap(), Some((first, DeploymentStatus::Queued)));
        assert!(deployments::end(database, first, DeploymentStatus::Failed, Some("why"), now()).await.unwrap());
        begin(database, one).await.unwrap();
        let row = deployments::get(database, first).await.unwrap().unwrap();
        assert_eq!((row.status, row.error.as_deref()), (DeploymentStatus::Failed, Some("why")));
        assert!(row.finished_at.is_some());
    })
    .await;
}

#[actix_rt::test]
async fn a_deployment_is_claimed_once_the_oldest_first() {
    on_both(async |database| {
        let first = begin(database, ProjectId::new()).await.unwrap();
        let second = begin(database, ProjectId::new()).await.unwrap();
        let claims = futures_util::future::join_all((0..4).map(|_| deployments::claim(database))).await;
        let mut claimed: Vec<_> = claims.into_iter().filter_map(|claim| claim.unwrap()).collect();
        // Two builders may both look at the oldest: then one of them comes back empty, and looks again.
        while let Some(id) = deployments::claim(database).await.unwrap() {
            claimed.push(id);
        }
        claimed.sort();
        assert_eq!(claimed, [first, second]);
        assert!(deployments::requeue(database, first).await.unwrap());
        assert_eq!(deployments::claim(database).await.unwrap(), Some(first));
        let standing = deployments::standing(database, DeploymentStatus::Building).await.unwrap();
        assert_eq!(
            standing.iter().map(|(id, _, attempts)| (*id, *attempts)).collect::<Vec<_>>(),
            [(first, 2), (second, 1)]
        );
    })
    .await;
}

#[actix_rt::test]
async fn a_cancelled_deployment_neither_gets_a_release_nor_serves() {
    on_both(async |database| {
        let project_id = ProjectId::new();
        let id = begin(database, project_id).await.unwrap();
        deployments::claim(database).await.unwrap();
        deployments::end(database, id, DeploymentStatus::Cancelled, None, now()).await.unwrap();
        let late = release(project_id, id, "d");
        assert_eq!(deployments::built(database, &late).await.unwrap(), None);
        assert!(releases::get(database, late.id).await.unwrap().is_none());
        let serving = Serving { release_id: late.id, environment_version: 1, deployment_id: id };
        assert!(!deployments::complete(database, project_id, serving, &Default::default(), now()).await.unwrap());
        assert!(apps::get(database, project_id).await.unwrap().unwrap().serving.is_none());
        assert!(!deployments::end(database, id, DeploymentStatus::Failed, None, now()).await.unwrap());
    })
    .await;
}

#[actix_rt::test]
async fn a_completed_deployment_is_what_serves_and_keeps_the_formation() {
    on_both(async |database| {
        let project_id = ProjectId::new();
        let first = complete(database, project_id, "one").await;
        let app = apps::get(database, project_id).await.unwrap().unwrap();
        assert_eq!(
            (app.serving.unwrap().release_id, app.formation.clone()),
            (first.id, Some([("web".to_owned(), 1)].into()))
        );
        let wanted = Some([("web".to_owned(), 5)].into());
        assert!(apps::want(database, &app, wanted, AppState::Running, now()).await.unwrap());
        assert!(!apps::want(database, &app, None, AppState::Stopped, now()).await.unwrap(), "the row was read before");
        let second = complete(database, project_id, "two").await;
        assert_eq!((first.version, second.version), (1, 2));
        let app = apps::get(database, project_id).await.unwrap().unwrap();
        assert_eq!(app.formation, Some([("web".to_owned(), 5)].into()));
        let read = releases::by_version(database, project_id, 2).await.unwrap().unwrap();
        assert_eq!((read.processes, read.build, read.commit), (second.processes, second.build, second.commit));
        assert_eq!(releases::before(database, project_id, 2).await.unwrap().unwrap().id, first.id);
        assert!(releases::before(database, project_id, 1).await.unwrap().is_none());
        let page = deployments::page(database, project_id, Uuid::max(), 1).await.unwrap();
        assert_eq!(page.iter().map(|row| row.release_version).collect::<Vec<_>>(), [Some(2), Some(1)]);
        apps::condemn(database, project_id, now()).await.unwrap();
        assert!(apps::owned(database, project_id, app.organization_id).await.unwrap().is_none());
    })
    .await;
}

#[actix_rt::test]
async fn the_newest_releases_and_what_serves_are_kept() {
    on_both(async |database| {
        let (project_id, twin) = (ProjectId::new(), ProjectId::new());
        let mut all = Vec::new();
        for digest in ["a", "b", "c", "d"] {
            all.push(complete(database, project_id, digest).await);
        }
        complete(database, twin, "b").await;
        // The oldest one serves again.
        let new = Serving { release_id: all[0].id, environment_version: 3, deployment_id: all[0].deployment_id };
        let mut transaction = database.begin().await.unwrap();
        apps::serve(&mut transaction, project_id, new, &Default::default(), now()).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(releases::let_go(database, project_id, 2).await.unwrap(), ["b"]);
        assert_eq!(releases::let_go(database, project_id, 2).await.unwrap(), [""; 0]);
        assert!(releases::is_needed(database, "a").await.unwrap());
        assert!(releases::is_needed(database, "b").await.unwrap(), "by the twin");
        releases::let_go_all(database, twin).await.unwrap();
        assert!(!releases::is_needed(database, "b").await.unwrap());
        let mut kept = releases::digests(database, project_id).await.unwrap();
        kept.sort();
        assert_eq!(kept, ["a", "c", "d"]);
    })
    .await;
}

#[actix_rt::test]
async fn sources_belong_to_a_project_and_the_newest_are_kept() {
    on_both(async |database| {
        let (project_id, other) = (ProjectId::new(), ProjectId::new());
        let organization_id = OrganizationId::new();
        let mut ids = Vec::new();
        for _ in 0..4 {
            let source = Source { id: Uuid::now_v7(), size: 1, sha256: "x".to_owned() };
            assert!(sources::insert(database, project_id, organization_id, &source, now()).await.unwrap());
            assert!(sources::insert(database, project_id, organization_id, &source, now()).await.unwrap());
            assert!(!sources::insert(database, other, organization_id, &source, now()).await.unwrap());
            ids.push(source.id);
        }
        assert!(!sources::exists(database, other, ids[0]).await.unwrap());
        let mut gone = sources::forget_old(database, project_id, 3).await.unwrap();
        gone.sort();
        assert_eq!(gone, ids[..1]);
    })
    .await;
}
