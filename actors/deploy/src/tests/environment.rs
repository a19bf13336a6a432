//! An app's place comes with its project and goes with it.

use std::time::Duration;

use callboard_messages::{
    Caller, Code, OrganizationId, ProjectId,
    deploy::*,
    project::{ProjectDeleted, ProjectFact},
};
use callboard_supervisors::events::CloudEvent;
use chrono::Utc;

use super::fixture::{App, Bench, on_node, server};

fn set_up(app: &App) -> SetupEnvironment {
    SetupEnvironment { project_id: app.id, organization_id: app.owner.organization_id.unwrap(), name: app.name.clone() }
}

async fn routes(bench: &Bench) -> Vec<AppRoute> {
    bench.ask(&Caller::system(), ListRoutes { known: None }).await.unwrap().items.unwrap()
}

#[actix_rt::test]
async fn a_new_project_has_a_place_and_a_route_that_says_so() {
    on_node(async |bench| {
        let app = bench.create("shop");
        for _ in 0..2 {
            bench.ask(&Caller::system(), set_up(&app)).await.unwrap();
        }
        assert_eq!(bench.get(&app, "/").await.unwrap_err(), "Nothing has been deployed to it yet.");
        let route = AppRoute { app: "shop".to_owned(), node: None, state: RouteState::NoRelease };
        assert_eq!(routes(bench).await, [route]);
        bench.release(&app, "one").await;
        let owner = Some(bench.members.me().0);
        let route = AppRoute { app: "shop".to_owned(), node: owner, state: RouteState::Serving };
        assert_eq!(routes(bench).await, [route]);
        let all = bench.ask(&Caller::system(), ListRoutes { known: None }).await.unwrap();
        let again = bench.ask(&Caller::system(), ListRoutes { known: Some(all.version.clone()) }).await.unwrap();
        assert_eq!(again, AppRoutes { version: all.version, items: None });
        let outside = Caller { principal: callboard_messages::Principal::User, ..app.owner.clone() };
        assert_eq!(bench.ask(&outside, set_up(&app)).await.unwrap_err().code(), Code::Forbidden);
    })
    .await;
}

#[actix_rt::test]
async fn what_was_cleaned_up_is_not_brought_back_by_a_message_that_comes_late() {
    on_node(async |bench| {
        let app = bench.create("shop");
        // The undo of a saga may come before the step that it undoes.
        bench.ask(&Caller::system(), CleanupEnvironment { project_id: app.id }).await.unwrap();
        assert_eq!(bench.ask(&Caller::system(), set_up(&app)).await.unwrap_err().code(), Code::NotFound);
        let late = bench.begin(&app, &server("one")).await.unwrap_err();
        assert_eq!(late.code(), Code::NotFound);
        assert_eq!(routes(bench).await, []);
    })
    .await;
}

#[actix_rt::test]
async fn what_is_stored_is_done_whatever_fails_behind_it() {
    on_node(async |bench| {
        let app = bench.create("shop");
        let database = bench.databases.open("deploy").await.unwrap();
        // Showing the route asks for the deployments, making the place does not.
        database.query("ALTER TABLE deployments RENAME TO out_of_reach").execute().await.unwrap();
        let outcome = bench.ask(&Caller::system(), set_up(&app)).await;
        database.query("ALTER TABLE out_of_reach RENAME TO deployments").execute().await.unwrap();
        outcome.unwrap();
        let apps: i64 = database.query("SELECT COUNT(*) FROM apps").fetch_scalar().await.unwrap();
        assert_eq!(apps, 1);
    })
    .await;
}

#[actix_rt::test]
async fn an_app_goes_with_its_project_however_often_it_is_told() {
    on_node(async |bench| {
        let app = bench.create("shop");
        bench.release(&app, "one").await;
        bench.configure(&app, |kept| kept.build.build_command = Some("sleep 1000".to_owned()));
        bench.begin(&app, &server("two")).await.unwrap();
        let project = ProjectFact {
            project_id: app.id,
            organization_id: app.owner.organization_id.unwrap(),
            name: app.name.clone(),
            version: 1,
        };
        let event = CloudEvent::new("project", Utc::now(), &ProjectDeleted(project)).unwrap();
        for _ in 0..2 {
            bench.node.events().redeliver("deploy", event.clone()).await.unwrap();
        }
        bench.until("nothing is left", async || routes(bench).await.is_empty().then_some(())).await;
        let database = bench.databases.open("deploy").await.unwrap();
        bench
            .until("the rows are gone", async || {
                let apps: i64 = database.query("SELECT COUNT(*) FROM apps").fetch_scalar().await.unwrap();
                let deployments: i64 = database.query("SELECT COUNT(*) FROM deployments").fetch_scalar().await.unwrap();
                (apps + deployments == 0).then_some(())
            })
            .await;
        bench
            .until("no object is left", async || {
                let count = bench.object_count("sources").await
                    + bench.object_count("releases").await
                    + bench.object_count("logs").await;
                (count == 0).then_some(())
            })
            .await;
        let other = ProjectFact {
            project_id: ProjectId::new(),
            organization_id: OrganizationId::new(),
            name: "never-deployed".to_owned(),
            version: 1,
        };
        let event = CloudEvent::new("project", Utc::now(), &ProjectDeleted(other)).unwrap();
        tokio::time::timeout(Duration::from_secs(30), bench.node.events().redeliver("deploy", event))
            .await
            .unwrap()
            .unwrap();
    })
    .await;
}
