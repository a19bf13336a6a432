//! What a node says of the domains is what a request would meet, also while nobody asks for anything.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Api, Node, answered_within, eventually, get, servers::Postgres, within};

/// Whatever is away is found within this.
const FOUND: Duration = Duration::from_secs(15);
/// How soon everything is answered again once the database is.
const BACK: Duration = Duration::from_secs(2);

/// `/ready` of one of the nodes: the status of the answer, and what it says.
async fn ready(node: &Node, number: usize) -> Result<(StatusCode, Value), String> {
    let asked = get(format!("http://127.0.0.1:{}/ready", node.member(number).port)).await;
    let answer = asked.map_err(|error| error.to_string())?;
    Ok((answer.status(), answer.json().await.map_err(|error| error.to_string())?))
}

/// What it says of a domain: the part that is away, and the sentence.
fn told<'a>(ready: &'a Value, domain: &str) -> (&'a str, &'a str) {
    let all = ready["domains"].as_array().unwrap();
    let of_it = all.iter().find(|of| of["domain"] == domain).unwrap_or_else(|| panic!("no {domain}: {ready}"));
    (of_it["part"].as_str().unwrap_or_default(), of_it["reason"].as_str().unwrap_or_default())
}

/// Waits until a node says this of a domain: the part, and some of the sentence.
async fn says(node: &Node, number: usize, domain: &str, part: &str, sentence: &str) {
    answered_within(FOUND, &format!("{domain} misses {part}"), || async {
        let (status, ready) = ready(node, number).await?;
        let (of, reason) = told(&ready, domain);
        if of != part || !reason.contains(sentence) {
            return Err(ready.to_string());
        }
        // Another node would be no better, and the apps go on.
        assert_eq!((status.as_u16(), &ready["status"]), (200, &Value::from("impaired")), "{ready}");
        Ok(Some(()))
    })
    .await;
}

async fn all_ready(node: &Node, number: usize) {
    answered_within(Duration::from_secs(60), "everything is ready", || async {
        let (_, ready) = ready(node, number).await?;
        if ready["status"] == "ready" { Ok(Some(())) } else { Err(ready.to_string()) }
    })
    .await;
}

/// The value of a series on the first node.
async fn metric(node: &Node, series: &str) -> f64 {
    let text = get(format!("http://127.0.0.1:{}/metrics", node.port)).await.unwrap().text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {series}\n{text}"))
}

/// Lines of the first node's log about the server.
fn lines(node: &Node, what: &str) -> usize {
    node.member(0).log().lines().filter(|line| line.contains("PostgreSQL at") && line.contains(what)).count()
}

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
async fn an_idle_node_says_which_part_is_away_and_everything_is_answered_within_two_seconds_of_its_return() {
    let mut postgres = Postgres::start().await;
    let mut node = Node::start_cluster_with(&["--no-sample"], &[("CALLBOARD_DATABASE_URL", &postgres.url())]).await;
    all_ready(&node, 0).await;
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

    // Both nodes that host project and deploy end without a word.
    node.member_mut(1).kill().await;
    node.member_mut(2).kill().await;
    says(&node, 0, "deploy", "node", "no node").await;
    says(&node, 0, "project", "node", "no node that hosts project is up").await;
    let (_, now) = ready(&node, 0).await.unwrap();
    assert_eq!((told(&now, "auth"), told(&now, "cluster")), (("", ""), ("", "")));
    assert_eq!(metric(&node, "callboard_domain_away{domain=\"project\",part=\"node\"}").await, 1.0);
    assert_eq!(metric(&node, "callboard_domain_ready{domain=\"project\"}").await, 0.0);
    assert_eq!(metric(&node, "callboard_domain_ready{domain=\"auth\"}").await, 1.0);
    let nodes = node.cli(&["nodes"]).await;
    assert!(nodes.out.contains("impaired"), "{nodes:?}");
    assert!(nodes.out.contains("project can't take traffic: no node that hosts project is up"), "{nodes:?}");
    node.start_member(1).await;
    all_ready(&node, 0).await;

    postgres.stop().await;
    says(&node, 0, "auth", "database", "PostgreSQL, which has the data of auth, can't be reached").await;
    says(&node, 0, "gateway", "database", "PostgreSQL, which has the data of gateway, can't be reached").await;
    // Of a domain of another node, which alone knows.
    says(&node, 0, "project", "database", "on node node-b: PostgreSQL, which has the data of project").await;
    let doctor = node.cli(&["doctor"]).await;
    assert!(!doctor.success() && doctor.out.contains("PostgreSQL, which has the data of auth"), "{doctor:?}");

    eventually("the breakers have opened, and again for longer", || async {
        let waits = asked.iter().map(|(method, path)| ask(&owner, method.clone(), path));
        let waits = join_all(waits).await;
        waits.iter().any(|wait| wait.is_err_and(|seconds| seconds >= 7)).then_some(())
    })
    .await;
    postgres.start_again().await;
    let back = Instant::now();
    join_all(asked.iter().map(async |(method, path)| {
        within(Duration::from_secs(60), path, || async { ask(&owner, method.clone(), path).await.ok() }).await;
        assert!(back.elapsed() < BACK, "{method} {path} was answered after {:?}\n{}", back.elapsed(), node.log());
    }))
    .await;
    all_ready(&node, 0).await;
    let said = [lines(&node, "does not answer; what needs it"), lines(&node, "answers again")];
    assert_eq!(said, [1, 1], "an outage is one line when it begins and one when it is over\n{}", node.member(0).log());
    node.finish().await;
}
