//! The four examples, deployed as they are.

use std::fs;

use crate::harness::{App, Node, eventually};

/// Deploys an example, changes what it says, and deploys it again.
async fn deploys_and_changes(name: &str, file: &str, process: &str) {
    let node = Node::start().await;
    let app = App::example(&node, name);
    let first = app.deploy().await;
    assert_eq!(first["release_version"], 1);
    assert!(first["url"].as_str().unwrap().starts_with(&format!("http://{name}.localhost:")), "{first}");
    app.settle(process, 1).await;
    let before = app.text("/").await;
    assert!(before.contains("Callboard"), "{before}");

    let source = fs::read_to_string(app.folder.join(file)).unwrap();
    app.write(file, &source.replace("Callboard", "Newboard"));
    assert_eq!(app.deploy().await["release_version"], 2);
    assert!(app.text("/").await.contains("Newboard"));
    app.settle(process, 1).await;
    node.finish().await;
}

#[tokio::test]
async fn the_static_example_deploys_and_changes() {
    deploys_and_changes("static", "index.html", "web").await;
}

#[tokio::test]
async fn the_node_example_deploys_and_changes() {
    deploys_and_changes("node", "server.js", "web").await;
}

#[tokio::test]
async fn the_python_example_deploys_and_changes() {
    deploys_and_changes("python", "app.py", "web").await;
}

#[tokio::test]
async fn the_procfile_example_runs_its_two_process_types() {
    let node = Node::start().await;
    let app = App::example(&node, "procfile");
    app.deploy().await;
    app.settle("web", 1).await;
    node.cli_json(&["scale", "worker=2", "--app", "procfile"]).await;
    let workers = app.settle("worker", 2).await;
    assert!(workers.iter().all(|worker| worker["pid"].is_u64()), "{workers:?}");
    assert!(app.ask("/").await.status().is_success());
    eventually("both workers write to the log", || async {
        let logs = node.cli_json(&["logs", "--app", "procfile", "-n", "1000"]).await;
        let lines = logs["items"].as_array().unwrap().clone();
        let wrote = |who: &str| lines.iter().any(|line| line["from"] == who);
        (wrote("worker.1") && wrote("worker.2")).then_some(())
    })
    .await;
    node.finish().await;
}

#[tokio::test]
async fn a_static_site_keeps_its_hidden_files_to_itself() {
    let node = Node::start().await;
    let app = App::example(&node, "static");
    app.write(".env", "SECRET=1");
    app.write("page/index.html", "a page");
    app.deploy().await;
    assert_eq!(app.ask("/.env").await.status(), 404);
    assert_eq!(app.ask("/..%2f..%2fetc%2fpasswd").await.status(), 404);
    assert_eq!(app.text("/page/").await, "a page");
    node.finish().await;
}
