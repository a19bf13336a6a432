//! What an operator sees of the nodes and does about them.

use serde_json::{Value, json};

use crate::harness::{Api, Node, domains, eventually};

fn report<'a>(nodes: &'a Value, name: &str) -> &'a Value {
    nodes["nodes"].as_array().unwrap().iter().find(|report| report["name"] == name).unwrap()
}

pub(super) async fn an_operator_sees_every_node_and_may_hold_a_breaker_of_one(node: &Node) {
    let nodes = eventually("the nodes have seen each other", || async {
        let nodes = node.cli_json(&["nodes"]).await;
        let healthy = nodes["nodes"].as_array().unwrap().iter().filter(|report| report["health"].is_object()).count();
        (healthy == 3).then_some(nodes)
    })
    .await;
    for (name, hosts) in [("node", json!(domains::hosted(0))), ("node-b", json!(domains::hosted(1)))] {
        let report = report(&nodes, name);
        assert_eq!((&report["state"], &report["domains"]), (&json!("up"), &hosts), "{nodes}");
        let trees = report["health"]["tree"]["children"].as_array().unwrap();
        assert!(trees.iter().any(|domain| domain["name"] == "project"), "{report}");
    }
    let text = node.cli(&["nodes"]).await;
    assert!(text.out.contains("node-c") && text.out.contains("ready"), "{text:?}");

    // Its own way to project is closed on one node; the others have theirs.
    node.cli_json(&["nodes", "breaker", "node", "project", "open"]).await;
    let token = node.operator().token.clone();
    let on = |number: usize| Api::new(node.member(number).port, token.clone());
    eventually("the breaker is held", || async { (on(0).get("/projects").await.status == 503).then_some(()) }).await;
    on(1).get("/projects").await.ok();
    on(2).get("/projects").await.ok();
    node.cli_json(&["nodes", "breaker", "node", "project", "released"]).await;
    eventually("it is released", || async { on(0).get("/projects").await.status.is_success().then_some(()) }).await;
    let healthy = node.cli(&["nodes", "revive", "node-b", "project"]).await;
    assert_eq!(healthy.code, Some(1), "{healthy:?}");
    let nobody = node.cli(&["nodes", "revive", "node-x", "project"]).await;
    assert!(nobody.err.contains("there is no node node-x"), "{nobody:?}");
    node.user("somebody").await.get("/cluster").await.refused(403);
}

/// An event of a project that nobody has.
pub(super) fn deletion() -> Value {
    let (id, subject) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
    json!({
        "specversion": "1.0", "id": id, "source": "project", "type": "project.deleted", "subject": subject,
        "time": "2026-11-21T00:00:00Z", "datacontenttype": "application/json",
        "data": { "project_id": subject, "organization_id": uuid::Uuid::now_v7(), "name": "gone", "version": 1 },
    })
}

/// How many events deploy has applied.
pub(super) async fn applied(node: &Node) -> i64 {
    node.ground().count("SELECT COUNT(*) FROM deploy.inbox").await
}

/// Makes a dead letter of something that deploy could not apply.
pub(super) async fn bury(node: &Node, event: &Value) {
    let statement = format!(
        "INSERT INTO cluster.dead_letters (id, burial, burials, domain, event, error, attempts, died_at) \
         VALUES ('{}', '{}', 1, 'deploy', '{event}', 'it was not to be', 5, now())",
        uuid::Uuid::now_v7(),
        uuid::Uuid::now_v7(),
    );
    node.ground().execute(statement).await;
}

pub(super) async fn a_dead_letter_is_listed_shown_replayed_and_dropped(node: &Node) {
    let applied = applied(node).await;
    bury(node, &deletion()).await;
    bury(node, &json!("no event at all")).await;
    let letters = node.cli_json(&["dead-letters", "list"]).await;
    let ids: Vec<&str> = letters.as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap()).collect();
    let [garbage, good] = ids.as_slice() else { panic!("{letters}") };
    let shown = node.cli(&["dead-letters", "show", good]).await;
    assert!(shown.out.contains("project.deleted") && shown.out.contains("it was not to be"), "{shown:?}");

    assert_eq!(node.cli_json(&["dead-letters", "list", "--domain", "deploy"]).await, letters);
    assert_eq!(node.cli_json(&["dead-letters", "list", "--domain", "no&limit=1"]).await, json!([]));

    node.cli_json(&["dead-letters", "replay", good]).await;
    let refused = node.cli(&["dead-letters", "replay", garbage]).await;
    assert!(refused.code == Some(1) && refused.err.contains("no event"), "{refused:?}");
    node.cli_json(&["dead-letters", "drop", garbage]).await;
    assert_eq!(node.cli_json(&["dead-letters", "list"]).await, json!([]));
    node.user("nobody").await.get("/dead-letters").await.refused(403);

    // It was applied: deploy knows the event's id, once.
    eventually("deploy has applied it", || async { (self::applied(node).await == applied + 1).then_some(()) }).await;
}
