//! Apps at a glance, and sources that are built again.

use callboard_messages::{Caller, Code, Limit, OrganizationId, ProjectId, deploy::*};
use callboard_supervisors::testing::on_both_engines;

use super::fixture::{Bench, on_node};
use super::tables::{begin, on_both};
use crate::{MIGRATIONS, store::apps};

#[actix_rt::test]
async fn an_organization_s_apps_are_listed_with_their_newest_deployment() {
    on_both_engines(&[("deploy", &MIGRATIONS)], async |databases| {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::start(&databases, folder.path()).await;
        let app = bench.create("shop");
        let all = ListApps { project_id: None, limit: Limit::of(100), cursor: None };
        assert!(bench.ask(&app.owner, all.clone()).await.unwrap().items.is_empty(), "nothing was deployed");
        bench.release(&app, "one").await;
        let second = bench.release(&app, "two").await;
        let listed = bench.ask(&app.owner, all.clone()).await.unwrap();
        let [shop] = listed.items.as_slice() else { panic!("{listed:?}") };
        assert_eq!((shop.project_id, shop.url.as_str()), (app.id, "http://shop.test"));
        assert_eq!((shop.last.as_ref(), shop.environment_version), (Some(&second), Some(0)));
        assert_eq!(shop.formation.processes.get("web"), Some(&1));
        let one = ListApps { project_id: Some(app.id), ..all.clone() };
        assert_eq!(bench.ask(&app.owner, one.clone()).await.unwrap().items, listed.items);
        let stranger = Caller { organization_id: Some(OrganizationId::new()), ..Caller::system() };
        assert!(bench.ask(&stranger, one).await.unwrap().items.is_empty());
        assert!(bench.ask(&stranger, all).await.unwrap().items.is_empty());
        bench.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn another_tenant_s_apps_are_not_listed() {
    on_both(async |database| {
        let projects: Vec<ProjectId> = (0..5).map(|_| ProjectId::new()).collect();
        let organization_id = OrganizationId(projects[0].0);
        for project_id in &projects {
            begin(database, *project_id).await.unwrap();
        }
        // Each of them is of an organization of its own.
        let page = apps::owned_page(database, organization_id, None, Limit::of(2)).await.unwrap();
        assert_eq!(page.iter().map(|app| app.project_id).collect::<Vec<_>>(), [projects[0]]);
        let newest = crate::store::deployments::newest_of_each(database, organization_id, projects[0]..=projects[4]);
        assert_eq!(newest.await.unwrap().len(), 1, "another tenant's is not there");
    })
    .await;
}

#[actix_rt::test]
async fn the_source_of_an_earlier_deployment_is_built_again() {
    on_node(async |bench| {
        let app = bench.create("shop");
        let first = bench.release(&app, "one").await;
        bench.release(&app, "two").await;
        let again = bench.ask(&app.owner, Redeploy { deployment_id: first.id }).await.unwrap();
        let again = bench.ended(&app, again.id).await;
        assert_eq!((again.status, again.kind), (DeploymentStatus::Completed, DeploymentKind::Deploy));
        assert_eq!(bench.get(&app, "/").await.unwrap(), "one");
        let restart = bench.ask(&app.owner, Restart { project_id: app.id }).await.unwrap();
        bench.ended(&app, restart.id).await;
        let refused = bench.ask(&app.owner, Redeploy { deployment_id: restart.id }).await.unwrap_err();
        assert_eq!(refused.code(), Code::Invalid);
        let stranger = Caller { organization_id: Some(OrganizationId::new()), ..Caller::system() };
        let refused = bench.ask(&stranger, Redeploy { deployment_id: first.id }).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
    })
    .await;
}
