//! The database that all nodes share, away for a while.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use crate::harness::{Api, Node, eventually, servers::Postgres, within};

/// How soon everything is answered again once the server is.
const BACK: Duration = Duration::from_secs(2);

/// Asks once; whether it was answered, and otherwise for how long its breaker stays open.
async fn ask(api: &Api, method: Method, path: &str) -> Result<(), u64> {
    let request = api.request(method.clone(), path);
    let name = format!("asked-{}", uuid::Uuid::now_v7().simple());
    let request = if method == Method::POST { request.json(&json!({ "name": name })) } else { request };
    let Ok(answer) = request.send().await else { return Err(0) };
    if answer.status().is_success() {
        return Ok(());
    }
    let wait = answer.headers().get("retry-after").and_then(|wait| wait.to_str().ok()?.parse().ok());
    Err(wait.unwrap_or(0))
}

#[tokio::test]
async fn everything_is_answered_within_two_seconds_of_the_database_s_return() {
    let mut server = Postgres::start().await;
    let url = server.url();
    let node = Node::start_cluster_with(&["--no-sample"], &[("CALLBOARD_DATABASE_URL", &url)]).await;
    let owner = node.user("owner").await;
    let project = owner.create_project("shop").await;
    // Domains of this node and of others, reads and what writes.
    let asked = [
        (Method::GET, "/organizations".to_owned()),
        (Method::GET, "/auth/api-keys".to_owned()),
        (Method::GET, "/projects".to_owned()),
        (Method::GET, format!("/projects/{project}/deployments")),
        (Method::POST, "/projects".to_owned()),
    ];
    server.stop().await;
    eventually("the breakers have opened, and again for longer", || async {
        let waits = asked.iter().map(|(method, path)| ask(&owner, method.clone(), path));
        let waits = futures_util::future::join_all(waits).await;
        waits.iter().any(|wait| wait.is_err_and(|seconds| seconds >= 7)).then_some(())
    })
    .await;
    server.start_again().await;
    let back = Instant::now();
    futures_util::future::join_all(asked.iter().map(async |(method, path)| {
        within(Duration::from_secs(60), path, || async { ask(&owner, method.clone(), path).await.ok() }).await;
        assert!(back.elapsed() < BACK, "{method} {path} was answered after {:?}\n{}", back.elapsed(), node.log());
    }))
    .await;
    node.finish().await;
}
