//! The tables' own rules, on both engines.

use callboard_messages::{
    Caller, DeploymentId, Limit, OrganizationId, ProjectId, ReleaseId,
    deploy::{DeploymentKind, DeploymentSource, DeploymentStatus},
    project::BuildConfig,
};
use callboard_supervisors::{Clock, db::Database, testing::on_both_engines};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    MIGRATIONS,
    apps::formation::{DesiredFormation, Successor},
    build::detect::{Command, RunEnvironment},
    store::{
        apps::{self, AppState, Ensured, Serving},
        deployments::{self, NewDeployment},
        owners::{self, Owner},
        releases::{self, ReleaseRow},
        steps::{self, Author, BuildOutcome, Builder},
    },
};

pub(super) async fn on_both(body: impl AsyncFn(&Database)) {
    on_both_engines(&[("deploy", &MIGRATIONS)], async |databases| {
        body(&databases.open("deploy").await.unwrap()).await;
    })
    .await;
}

pub(super) fn now() -> DateTime<Utc> {
    Clock::system().now()
}

pub(super) async fn begin(database: &Database, project_id: ProjectId) -> Option<DeploymentId> {
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
        allow_missing: false,
        rebuild: false,
        config: None,
        created_at: now(),
    };
    let mut transaction = database.begin().await.unwrap();
    let name = project_id.to_string();
    let ensured = apps::ensure(&mut transaction, project_id, new.organization_id, &name, now()).await.unwrap();
    assert_ne!(ensured, Ensured::Gone);
    let begins = deployments::insert(&mut transaction, &new).await.unwrap();
    transaction.commit().await.unwrap();
    begins.then_some(new.id)
}

pub(super) fn release(project_id: ProjectId, deployment_id: DeploymentId, digest: &str) -> ReleaseRow {
    ReleaseRow {
        id: ReleaseId::new(),
        project_id,
        version: 0,
        digest: digest.to_owned(),
        generation: 0,
        language: "node".to_owned(),
        processes: [("web".to_owned(), Command::Shell("node .".to_owned()))].into_iter().collect(),
        environment: RunEnvironment::default(),
        build: BuildConfig::default(),
        environment_version: 3,
        deployment_id,
        commit: Some("abc".to_owned()),
        release_command: None,
        build_key: None,
        formation: None,
        kept: true,
        created_at: now(),
    }
}

pub(super) fn system() -> Caller {
    Caller::system()
}

pub(super) async fn claim(database: &Database, node: Uuid) -> Option<(DeploymentId, Builder)> {
    steps::claim(database, &system(), node).await.unwrap()
}

async fn end(database: &Database, author: Author, id: DeploymentId, status: DeploymentStatus) -> bool {
    steps::end(database, &system(), author, id, status, Some("why"), now()).await.unwrap()
}

/// Makes a node the owner of an app.
async fn own(database: &Database, project_id: ProjectId, node: Uuid) -> Owner {
    let app = apps::get(database, project_id).await.unwrap().unwrap();
    let mut transaction = database.begin().await.unwrap();
    let owner = owners::claim(&mut transaction, &app, node).await.unwrap().unwrap();
    transaction.commit().await.unwrap();
    owner
}

/// Takes a deployment from the queue to its end.
pub(super) async fn complete(database: &Database, project_id: ProjectId, digest: &str) -> ReleaseRow {
    complete_with(database, project_id, digest, 0).await
}

pub(super) async fn complete_with(
    database: &Database,
    project_id: ProjectId,
    digest: &str,
    generation: i64,
) -> ReleaseRow {
    let (id, node) = (begin(database, project_id).await.unwrap(), Uuid::now_v7());
    let (claimed, builder) = claim(database, node).await.unwrap();
    assert_eq!(claimed, id);
    let release = ReleaseRow { generation, ..release(project_id, id, digest) };
    let BuildOutcome::Rolls(version) = steps::built(database, &system(), builder, &release).await.unwrap() else {
        panic!("it was not recorded")
    };
    let serving = Serving { release_id: release.id, environment_version: 3, deployment_id: id };
    let owned = (project_id, own(database, project_id, node).await);
    let successor = Successor { processes: &release.processes, formation: None, kind: DeploymentKind::Deploy };
    let desired = |now: &DesiredFormation| successor.desired(now, now);
    assert!(steps::complete(database, &system(), owned, serving, desired, now()).await.unwrap());
    ReleaseRow { version, ..release }
}

#[actix_rt::test]
async fn one_deployment_of_a_project_runs_at_a_time() {
    on_both(async |database| {
        let (one, other) = (ProjectId::new(), ProjectId::new());
        let first = begin(database, one).await.unwrap();
        assert_eq!(begin(database, one).await, None);
        begin(database, other).await.unwrap();
        assert_eq!(deployments::running(database, one).await.unwrap(), Some((first, DeploymentStatus::Queued)));
        assert!(end(database, Author::Anyone, first, DeploymentStatus::Failed).await);
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
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        let claims = [one, other, one, other].map(|node| claim(database, node));
        let claims = futures_util::future::join_all(claims).await;
        let mut claimed: Vec<_> = claims.into_iter().flatten().collect();
        // Two builders may both look at the oldest: then one of them comes back empty, and looks again.
        while steps::is_queued(database).await.unwrap() {
            claimed.extend(claim(database, one).await);
        }
        claimed.sort_by_key(|(id, _)| *id);
        assert_eq!(claimed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [first, second]);
        let (_, builder) = claimed[0];
        assert_eq!(builder.attempt, 1);

        assert!(steps::requeue(database, first, 1).await.unwrap());
        assert!(!steps::requeue(database, first, 1).await.unwrap());
        let (again, next) = claim(database, other).await.unwrap();
        assert_eq!((again, next), (first, Builder { node: other, attempt: 2 }));
        // What the first builder of it still does changes nothing.
        assert!(!steps::requeue(database, first, 1).await.unwrap());
        assert!(!end(database, Author::Builder(builder), first, DeploymentStatus::Failed).await);
        let late = release(deployments::get(database, first).await.unwrap().unwrap().project_id, first, "d");
        assert_eq!(steps::built(database, &system(), builder, &late).await.unwrap(), BuildOutcome::Lost);
        steps::set_commit(database, first, builder, "late").await.unwrap();
        assert_eq!(deployments::get(database, first).await.unwrap().unwrap().commit, None);
        let builds = steps::builds(database).await.unwrap();
        assert_eq!(
            builds.iter().map(|build| (build.id, build.node, build.attempt)).collect::<Vec<_>>(),
            [(first, Some(other), 2), (second, Some(claimed[1].1.node), 1)]
        );
        assert_eq!(steps::built(database, &system(), next, &late).await.unwrap(), BuildOutcome::Rolls(1));
        assert!(
            !end(database, Author::Builder(next), first, DeploymentStatus::Failed).await,
            "one that was not told that it rolls does not end it"
        );
        let row = deployments::get(database, first).await.unwrap().unwrap();
        assert_eq!(row.status, DeploymentStatus::Rolling);
    })
    .await;
}

#[actix_rt::test]
async fn an_owner_that_was_replaced_changes_nothing_any_more() {
    on_both(async |database| {
        let (project_id, one, other) = (ProjectId::new(), Uuid::now_v7(), Uuid::now_v7());
        let first = complete(database, project_id, "one").await;
        let id = begin(database, project_id).await.unwrap();
        let (_, builder) = claim(database, one).await.unwrap();
        let second = release(project_id, id, "two");
        assert_eq!(steps::built(database, &system(), builder, &second).await.unwrap(), BuildOutcome::Rolls(2));

        let before = own(database, project_id, one).await;
        let read = apps::get(database, project_id).await.unwrap().unwrap();
        assert!(read.is_owned_by(before));
        let after = own(database, project_id, other).await;
        assert!(after.token > before.token);
        let mut transaction = database.begin().await.unwrap();
        assert!(owners::claim(&mut transaction, &read, one).await.unwrap().is_none(), "the row was read before");
        assert!(!owners::fence(&mut transaction, project_id, before).await.unwrap());
        drop(transaction);
        assert!(!owners::release(database, project_id, before).await.unwrap());
        assert!(!owners::offer(database, project_id, before).await.unwrap());
        assert!(!end(database, Author::Owner(before), id, DeploymentStatus::Failed).await);
        let serving = Serving { release_id: second.id, environment_version: 3, deployment_id: id };
        let (late, owned) = ((project_id, before), (project_id, after));
        assert!(!steps::complete(database, &system(), late, serving, DesiredFormation::clone, now()).await.unwrap());
        let app = apps::get(database, project_id).await.unwrap().unwrap();
        assert_eq!(app.serving.unwrap().release_id, first.id);
        assert!(steps::complete(database, &system(), owned, serving, DesiredFormation::clone, now()).await.unwrap());
        assert!(owners::release(database, project_id, after).await.unwrap());
    })
    .await;
}

#[actix_rt::test]
async fn an_app_that_is_offered_gets_one_standby() {
    on_both(async |database| {
        let (project_id, nodes) = (ProjectId::new(), [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()]);
        complete(database, project_id, "one").await;
        let owner = own(database, project_id, nodes[0]).await;
        let read = apps::get(database, project_id).await.unwrap().unwrap();
        assert!(!owners::stand_by(database, &read, nodes[1]).await.unwrap(), "it is not offered");
        assert!(owners::offer(database, project_id, owner).await.unwrap());
        let read = apps::get(database, project_id).await.unwrap().unwrap();
        assert!(owners::stand_by(database, &read, nodes[1]).await.unwrap());
        assert!(!owners::stand_by(database, &read, nodes[2]).await.unwrap());
        let candidates = owners::candidates(database).await.unwrap();
        assert_eq!(candidates.len(), 1);
        assert_eq!(
            (candidates[0].0.standby_node, candidates[0].0.offered, candidates[0].1),
            (Some(nodes[1]), true, None)
        );
        let next = own(database, project_id, nodes[1]).await;
        let app = apps::get(database, project_id).await.unwrap().unwrap();
        assert!(app.is_owned_by(next) && !app.offered && app.standby_node.is_none());
    })
    .await;
}

#[actix_rt::test]
async fn each_step_tells_what_it_made_true_in_order() {
    on_both(async |database| {
        let project_id = ProjectId::new();
        let id = begin(database, project_id).await.unwrap();
        let mut transaction = database.begin().await.unwrap();
        deployments::tell_begun(&mut transaction, &system(), id).await.unwrap();
        transaction.commit().await.unwrap();
        let (_, builder) = claim(database, Uuid::now_v7()).await.unwrap();
        assert!(end(database, Author::Builder(builder), id, DeploymentStatus::Failed).await);
        assert!(!end(database, Author::Builder(builder), id, DeploymentStatus::Failed).await, "it has ended");
        complete(database, project_id, "one").await;
        let told: Vec<(String,)> = database
            .query("SELECT type FROM outbox WHERE aggregate = $1 ORDER BY position")
            .bind(project_id)
            .fetch_all()
            .await
            .unwrap();
        let told: Vec<&str> = told.iter().map(|(name,)| name.as_str()).collect();
        assert_eq!(
            told,
            [
                "deployment.queued",
                "deployment.building",
                "deployment.failed",
                "deployment.building",
                "deployment.started",
                "deployment.completed",
            ]
        );
    })
    .await;
}

#[actix_rt::test]
async fn an_app_that_was_removed_can_not_come_back() {
    on_both(async |database| {
        let (project_id, organization_id) = (ProjectId::new(), OrganizationId::new());
        let mut transaction = database.begin().await.unwrap();
        for expected in [Ensured::Made, Ensured::There] {
            let ensured = apps::ensure(&mut transaction, project_id, organization_id, "shop", now()).await.unwrap();
            assert_eq!(ensured, expected);
        }
        for _ in 0..2 {
            apps::condemn(&mut transaction, project_id, now()).await.unwrap();
        }
        apps::erase(&mut transaction, project_id).await.unwrap();
        let ensured = apps::ensure(&mut transaction, project_id, organization_id, "shop", now()).await.unwrap();
        assert_eq!(ensured, Ensured::Gone);
        transaction.commit().await.unwrap();
        assert!(apps::get(database, project_id).await.unwrap().is_none());
    })
    .await;
}

#[actix_rt::test]
async fn a_cancelled_deployment_neither_gets_a_release_nor_serves() {
    on_both(async |database| {
        let project_id = ProjectId::new();
        let id = begin(database, project_id).await.unwrap();
        let (_, builder) = claim(database, Uuid::now_v7()).await.unwrap();
        assert!(end(database, Author::Anyone, id, DeploymentStatus::Cancelled).await);
        let late = release(project_id, id, "d");
        assert_eq!(steps::built(database, &system(), builder, &late).await.unwrap(), BuildOutcome::Lost);
        assert!(releases::get(database, late.id).await.unwrap().is_none());
        let serving = Serving { release_id: late.id, environment_version: 1, deployment_id: id };
        let owned = (project_id, own(database, project_id, Uuid::now_v7()).await);
        assert!(!steps::complete(database, &system(), owned, serving, DesiredFormation::clone, now()).await.unwrap());
        assert!(apps::get(database, project_id).await.unwrap().unwrap().serving.is_none());
        assert!(!end(database, Author::Anyone, id, DeploymentStatus::Failed).await);
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
            (app.serving.unwrap().release_id, app.desired.counts.clone()),
            (first.id, Some([("web".to_owned(), 1)].into()))
        );
        let five =
            DesiredFormation { counts: Some([("web".to_owned(), 5)].into()), missing: [("bot".to_owned(), 2)].into() };
        assert!(apps::set_desired(database, &app, Some(five.clone()), AppState::Running, now()).await.unwrap());
        assert!(
            !apps::set_desired(database, &app, None, AppState::Stopped, now()).await.unwrap(),
            "the row was read before"
        );
        let second = complete(database, project_id, "two").await;
        assert_eq!((first.version, second.version), (1, 2));
        let app = apps::get(database, project_id).await.unwrap().unwrap();
        assert_eq!(app.desired, five);
        assert_eq!(releases::get(database, first.id).await.unwrap().unwrap().formation, five.counts, "what it ran");
        let read = releases::by_version(database, project_id, 2).await.unwrap().unwrap();
        assert_eq!((read.processes, read.build, read.commit), (second.processes, second.build, second.commit));
        assert_eq!(releases::served_before(database, project_id, second.id).await.unwrap().unwrap().id, first.id);
        let before_first = releases::served_before(database, project_id, first.id).await.unwrap().unwrap();
        assert_eq!(before_first.id, second.id, "what served last, whatever its number");
        let page = deployments::page(database, project_id, None, Limit::of(1)).await.unwrap();
        assert_eq!(page.iter().map(|row| row.release_version).collect::<Vec<_>>(), [Some(2), Some(1)]);
        let mut transaction = database.begin().await.unwrap();
        apps::condemn(&mut transaction, project_id, now()).await.unwrap();
        transaction.commit().await.unwrap();
        assert!(apps::owned(database, project_id, app.organization_id).await.unwrap().is_none());
    })
    .await;
}
