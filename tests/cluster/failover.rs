//! A node is killed, or told to stop, and the others go on.

use std::time::Duration;

use futures_util::join;
use tokio::time::Instant;

use crate::harness::{Api, App, Node, Visitors, visit, within};

/// What the platform promises.
const TAKEN_OVER: Duration = Duration::from_secs(10);
/// The deadline of an operation, and what a busy machine needs beside it.
const DEADLINE: Duration = Duration::from_secs(15);

/// Which of the members runs the app.
pub(super) fn owner_of(node: &Node, app: &str) -> usize {
    let runs = |number: &usize| {
        crate::harness::processes::below(&node.member(*number).data())
            .iter()
            .any(|process| process.command.contains("app.py"))
    };
    (0..3).find(runs).unwrap_or_else(|| panic!("nobody runs {app}: {:?}", node.running()))
}

/// Requests to a domain that a killed node hosted, and to another, are answered by the first node soon, and no request
/// takes longer than it may meanwhile.
async fn domains_are_answered_by_another(owner: &Api, path: &str) {
    let killed = Instant::now();
    let mut last_failure = None;
    while killed.elapsed() < TAKEN_OVER + Duration::from_secs(3) {
        let asked = Instant::now();
        let answer = owner.get(path).await;
        assert!(asked.elapsed() < DEADLINE, "a request took {:?}", asked.elapsed());
        if !answer.status.is_success() {
            last_failure = Some((killed.elapsed(), answer.text));
        }
        // What the killed node did not host is not touched.
        owner.get("/auth/whoami").await.ok();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if let Some((after, text)) = last_failure {
        assert!(after < TAKEN_OVER, "still failing after {after:?}: {text}");
    }
}

/// The app is answered again soon, by another process.
async fn app_runs_on_another(port: u16) {
    within(TAKEN_OVER, "the app answers again", || async move {
        let answer = visit(port, "shop", "/").await.ok()?;
        let status = answer.status();
        let text = answer.text().await.ok()?;
        (status == 200 && text.starts_with("one")).then_some(())
    })
    .await;
}

/// A node is told to stop under load, which costs nobody a request.
async fn leaves_unnoticed(node: &mut Node, leaving: usize, owner: &Api, path: &str) {
    let visitors = Visitors::come(node.port, "shop");
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let asking = {
        let (owner, path) = (owner.clone(), path.to_owned());
        tokio::spawn(async move {
            let mut asked = 0;
            while !*stopped.borrow_and_update() {
                owner.get(&path).await.ok();
                owner.get("/auth/whoami").await.ok();
                asked += 1;
                // Below what one person may ask.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            asked
        })
    };
    let (status, took) = node.member_mut(leaving).stop().await;
    assert!(status.success(), "it ended with {status}");
    assert!(took < crate::harness::member::STOP, "it took {took:?}");
    stop.send(true).unwrap();
    assert!(asking.await.unwrap() > 0);
    visitors.leave_content().await;
    let name = node.member(leaving).name;
    within(TAKEN_OVER, "the others know that it has left", || async {
        let nodes = node.cli_json(&["nodes"]).await;
        let report = nodes["nodes"].as_array().unwrap().iter().find(|report| report["name"] == name)?.clone();
        (report["state"] == "gone").then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_killed_node_did_another_does_and_one_that_is_told_to_stop_costs_nobody_a_request() {
    let mut node = Node::start_cluster().await;
    App::web(&node, "shop", "one").deploy().await;
    for number in 0..3 {
        let answer = visit(node.member(number).port, "shop", "/").await.unwrap();
        assert_eq!(answer.status(), 200, "by node {number}");
    }
    let owner = node.user("owner").await;
    let path = format!("/projects/{}", owner.create_project("other").await);
    // Both nodes that host project have answered.
    for _ in 0..20 {
        owner.get(&path).await.ok();
    }

    let killed = owner_of(&node, "shop");
    node.member_mut(killed).kill().await;
    join!(domains_are_answered_by_another(&owner, &path), app_runs_on_another(node.port));
    let log = node.cli_json(&["logs", "--app", "shop"]).await;
    let lines: Vec<&str> = log["items"].as_array().unwrap().iter().filter_map(|line| line["text"].as_str()).collect();
    assert!(lines.iter().any(|line| line.contains("taken over by")), "{lines:?}");
    assert!(
        lines.iter().any(|line| line.contains("version one listens")),
        "what was logged before is there: {lines:?}"
    );

    // The node that comes back leaves the app where it is, and nothing of its own old instance is left.
    node.start_member(killed).await;
    App::new(&node, "shop", &[]).settle("web", 1).await;
    within(Duration::from_secs(60), "one instance is left", || async {
        let running = node.running();
        (running.iter().filter(|process| process.command.contains("app.py")).count() == 1).then_some(())
    })
    .await;
    owner.get(&path).await.ok();

    let leaving = owner_of(&node, "shop");
    assert_ne!(leaving, killed);
    leaves_unnoticed(&mut node, leaving, &owner, &path).await;
    node.finish().await;
}
