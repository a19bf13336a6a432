//! A node that is killed, and the next one on its folder.

use serde_json::json;

use crate::harness::{App, Node, answered, eventually};

#[tokio::test]
async fn every_app_comes_back_after_the_node_was_killed() {
    let mut node = Node::start().await;
    {
        let shop = App::web(&node, "shop", "one");
        shop.deploy().await;
        node.cli_json(&["scale", "web=2", "--app", "shop"]).await;
        shop.settle("web", 2).await;
        App::example(&node, "static").deploy().await;
    }
    node.kill().await;
    node.start_again().await;
    let (shop, site) = (App::new(&node, "shop", &[]), App::new(&node, "static", &[]));
    shop.settle("web", 2).await;
    site.settle("web", 1).await;
    assert_eq!(shop.version().await, "one");
    site.text("/").await;

    // Each instance is one process: what the killed node left was ended or adopted.
    let python = node.running().iter().filter(|process| process.command.contains("app.py")).count();
    assert_eq!(python, 2, "{:?}", node.running());
    shop.set_version("two");
    shop.deploy().await;
    assert_eq!(shop.version().await, "two");
    node.finish().await;
}

#[tokio::test]
async fn a_deployment_that_the_crash_interrupted_ends_and_the_app_serves() {
    let mut node = Node::start().await;
    let operator = node.operator();
    let go = node.scratch("flags").join("go");
    let id = {
        let app = App::web(&node, "shop", "one");
        app.deploy().await;
        let project = operator.project("shop").await;
        let build = format!("echo begun; test -e {} || sleep 600", go.display());
        let config = json!({ "config": { "build_command": build } });
        operator.put(&format!("/projects/{project}/build-config"), config).await.ok();
        app.set_version("two");
        let begun = app.begin_deploy().await;
        let id = begun["id"].as_str().unwrap().to_owned();
        app.build_says(&id, "begun").await;
        id
    };
    node.kill().await;
    std::fs::write(&go, "").unwrap();
    node.start_again().await;
    let operator = node.operator();
    let ended = answered("the deployment has ended", || async {
        let deployment = operator.look(&format!("/deployments/{id}")).await?;
        let has_ended = ["completed", "failed", "cancelled"].contains(&deployment["status"].as_str().unwrap());
        Ok(has_ended.then_some(deployment))
    })
    .await;
    let app = App::new(&node, "shop", &[]);
    app.settle("web", 1).await;
    let serves = if ended["status"] == "completed" { "two" } else { "one" };
    assert_eq!(app.version().await, serves, "{ended}");
    eventually("what the build had started is gone", || async {
        (!node.running().iter().any(|process| process.command.contains("sleep"))).then_some(())
    })
    .await;
    node.finish().await;
}

#[tokio::test]
async fn a_signed_in_person_stays_signed_in_over_a_crash() {
    let mut node = Node::start().await;
    let admin = node.admin().await;
    admin.create_project("kept").await;
    node.kill().await;
    node.start_again().await;
    assert_eq!(admin.get("/auth/whoami").await.ok()["account"]["email"], "admin@example.com");
    admin.project("kept").await;
    assert!(node.announced["setup_url"].is_null(), "{}", node.announced);
    node.finish().await;
}
