//! What of releases, archives and uploads is kept, and who decides it, on both engines.

use std::time::Duration;

use callboard_messages::{
    DeploymentId, OrganizationId, ProjectId,
    deploy::{DeploymentKind, DeploymentStatus, Source},
};
use callboard_supervisors::db::{Database, Transaction};
use uuid::Uuid;

use super::tables::{begin, claim, complete, complete_with, now, on_both, release, system};
use crate::{
    apps::formation::DesiredFormation,
    store::{
        apps::{self, Serving},
        archives::{self, Unswept},
        deployments::{self, NewDeployment},
        releases::{self, ReleaseRow},
        sources,
        steps::{self, BuildOutcome},
    },
};

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
        apps::serve(&mut transaction, project_id, new, DesiredFormation::clone, now()).await.unwrap();
        transaction.commit().await.unwrap();
        let let_go = async |project_id: ProjectId, keep: Option<u32>| {
            let mut transaction = database.begin().await.unwrap();
            let digests = match keep {
                Some(keep) => releases::let_go(&mut transaction, project_id, keep).await.unwrap(),
                None => releases::let_go_all(&mut transaction, project_id).await.unwrap(),
            };
            archives::retire(&mut transaction, digests.clone()).await.unwrap();
            transaction.commit().await.unwrap();
            digests
        };
        assert_eq!(let_go(project_id, Some(2)).await, ["b"]);
        assert_eq!(let_go(project_id, Some(2)).await, [""; 0]);
        assert_eq!(archives::unswept(database).await.unwrap(), [], "the twin needs it");
        assert_eq!(let_go(twin, None).await, ["b"]);
        let unswept = archives::unswept(database).await.unwrap();
        assert_eq!(unswept, [Unswept { digest: "b".to_owned(), generation: 1, swept: 0 }]);
        archives::set_swept(database, &unswept[0]).await.unwrap();
        assert_eq!(archives::unswept(database).await.unwrap(), []);
        let mut kept = let_go(project_id, None).await;
        kept.sort();
        assert_eq!(kept, ["a", "c", "d"]);
    })
    .await;
}

#[actix_rt::test]
async fn an_archive_that_was_let_go_is_not_recorded_and_one_that_was_recorded_is_not_let_go() {
    on_both(async |database| {
        let (project_id, twin) = (ProjectId::new(), ProjectId::new());
        let first = complete(database, project_id, "a").await;
        let id = begin(database, twin).await.unwrap();
        let (_, builder) = claim(database, Uuid::now_v7()).await.unwrap();
        let mut release = release(twin, id, "a");
        assert_eq!(release.generation, archives::generation(database, "a").await.unwrap());

        // Between the look of the builder and its record, the last release that needs the archive is let go.
        let mut transaction = database.begin().await.unwrap();
        let digests = releases::let_go_all(&mut transaction, project_id).await.unwrap();
        archives::retire(&mut transaction, digests).await.unwrap();
        let caller = system();
        let late = steps::built(database, &caller, builder, &release);
        let (_, late) = tokio::join!(
            async {
                // The record waits for the one that holds the row, and then finds what it has done.
                tokio::task::yield_now().await;
                transaction.commit().await.unwrap();
            },
            late
        );
        assert_eq!(late.unwrap(), BuildOutcome::ArchiveGone);
        assert_eq!(releases::get(database, release.id).await.unwrap().map(|release| release.id), None);
        release.generation = archives::generation(database, "a").await.unwrap();
        assert_eq!(release.generation, 1);
        assert_eq!(steps::built(database, &system(), builder, &release).await.unwrap(), BuildOutcome::Rolls(1));
        assert_eq!(releases::get(database, release.id).await.unwrap().unwrap().generation, 1);

        // The other way round: what a release was recorded with meanwhile stays.
        let again = complete_with(database, project_id, "a", 1).await;
        let mut transaction = database.begin().await.unwrap();
        let digests = releases::let_go_all(&mut transaction, project_id).await.unwrap();
        archives::retire(&mut transaction, digests).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(archives::generation(database, "a").await.unwrap(), 1);
        assert_ne!(again.id, first.id);
    })
    .await;
}

#[actix_rt::test]
async fn sources_belong_to_a_project_and_the_newest_are_kept() {
    on_both(async |database| {
        let (project_id, other) = (ProjectId::new(), ProjectId::new());
        let organization_id = OrganizationId::new();
        let mut ids = Vec::new();
        for _ in 0..5 {
            let source = Source { id: Uuid::now_v7(), size: 1, sha256: "x".to_owned() };
            assert!(sources::insert(database, project_id, organization_id, &source, now()).await.unwrap());
            assert!(sources::insert(database, project_id, organization_id, &source, now()).await.unwrap());
            assert!(!sources::insert(database, other, organization_id, &source, now()).await.unwrap());
            ids.push(source.id);
        }
        assert!(!sources::exists(database, other, ids[0]).await.unwrap());
        let forget = async |in_use: Option<Uuid>| {
            let mut transaction = database.begin().await.unwrap();
            let gone = sources::forget_old(&mut transaction, project_id, 3, in_use).await.unwrap();
            transaction.commit().await.unwrap();
            gone
        };
        assert_eq!(forget(Some(ids[0])).await, ids[1..2]);
        assert!(sources::exists(database, project_id, ids[0]).await.unwrap(), "a deployment is to be built of it");
        assert!(!sources::exists(database, project_id, ids[1]).await.unwrap());
        assert_eq!(forget(None).await, ids[..2], "until its object is gone");
        for id in &ids[..2] {
            sources::erase(database, *id).await.unwrap();
        }
        sources::erase(database, ids[2]).await.unwrap();
        assert!(forget(None).await.is_empty());
        assert!(sources::exists(database, project_id, ids[2]).await.unwrap());
    })
    .await;
}

/// A rollback to a release, to before its commit; `None` when its archive is no longer kept.
async fn bring_back(database: &Database, release: &ReleaseRow) -> Option<Transaction> {
    let mut transaction = database.begin().await.unwrap();
    apps::hold(&mut transaction, release.project_id).await.unwrap();
    if !releases::is_kept(&mut transaction, release.id).await.unwrap() {
        return None;
    }
    let new = NewDeployment {
        id: DeploymentId::new(),
        project_id: release.project_id,
        organization_id: OrganizationId(release.project_id.0),
        kind: DeploymentKind::Rollback,
        status: DeploymentStatus::Rolling,
        source: None,
        release_id: Some(release.id),
        environment_version: Some(3),
        commit: None,
        allow_missing: false,
        rebuild: false,
        config: None,
        created_at: now(),
    };
    assert!(deployments::insert(&mut transaction, &new).await.unwrap());
    Some(transaction)
}

/// What lets all but the newest release go, to before its commit.
async fn keep_the_newest(database: &Database, project_id: ProjectId) -> (Vec<String>, Transaction) {
    let mut transaction = database.begin().await.unwrap();
    apps::hold(&mut transaction, project_id).await.unwrap();
    let mut digests = releases::let_go(&mut transaction, project_id, 1).await.unwrap();
    digests.sort();
    (digests, transaction)
}

#[actix_rt::test]
async fn a_release_is_either_brought_back_or_let_go_whoever_is_first() {
    /// Time in which the second one would come to its end if the first one did not hold it.
    const TRIED: Duration = Duration::from_millis(300);
    on_both(async |database| {
        for back_first in [true, false] {
            let project_id = ProjectId::new();
            let old = complete(database, project_id, "a").await;
            for digest in ["b", "c"] {
                complete(database, project_id, digest).await;
            }
            if back_first {
                let first = bring_back(database, &old).await.unwrap();
                let second = keep_the_newest(database, project_id);
                tokio::pin!(second);
                assert!(tokio::time::timeout(TRIED, &mut second).await.is_err(), "it waits");
                first.commit().await.unwrap();
                assert_eq!(second.await.0, ["b"]);
            } else {
                let (digests, first) = keep_the_newest(database, project_id).await;
                assert_eq!(digests, ["a", "b"]);
                let second = bring_back(database, &old);
                tokio::pin!(second);
                assert!(tokio::time::timeout(TRIED, &mut second).await.is_err(), "it waits");
                first.commit().await.unwrap();
                assert!(second.await.is_none());
            }
        }
    })
    .await;
}
