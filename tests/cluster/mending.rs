//! What an operator mends by hand, over plain HTTP, and what nobody else may.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::operating::{applied, bury, deletion};
use crate::harness::{Api, App, Node, eventually, visit};

/// Every one of these, and its answer to somebody with an organization and nothing more, by session and by key.
async fn are_for_operators(node: &Node, asked: &[(Method, &str)]) {
    let tenant = node.user(&format!("tenant-{}", Uuid::now_v7().simple())).await;
    let key = tenant.post("/auth/api-keys", json!({ "name": "all", "scopes": ["project:write"] })).await.ok();
    let program = tenant.with_token(key["secret"].as_str().unwrap());
    for (method, path) in asked {
        for somebody in [&tenant, &program] {
            let request = somebody.request(method.clone(), path);
            // A body that is not wrong, so that what is told is about who asks.
            let body = if path.ends_with("/breaker") { json!({ "hold": "open" }) } else { json!({}) };
            let answer = somebody.send(if *method == Method::GET { request } else { request.json(&body) }).await;
            let problem = answer.refused(403);
            assert_eq!(problem["code"], "forbidden", "{method} {path}");
        }
    }
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect()
}

pub(super) async fn dead_letters_are_listed_shown_replayed_and_dropped(node: &Node) {
    let operator = node.operator();
    let (event, applied) = (deletion(), applied(node).await);
    bury(node, &event).await;
    bury(node, &json!("no event at all")).await;

    let newest = operator.get("/dead-letters?limit=1").await.ok();
    let cursor = newest["next"].as_str().unwrap_or_else(|| panic!("{newest}"));
    let oldest = operator.get(&format!("/dead-letters?limit=1&cursor={cursor}")).await.ok();
    let (garbage, good) = (ids(&newest)[0], ids(&oldest)[0]);
    assert!(oldest["next"].is_null(), "{oldest}");
    assert_eq!(ids(&operator.get("/dead-letters?domain=deploy").await.ok()), [garbage, good]);
    assert_eq!(operator.get("/dead-letters?domain=auth").await.ok()["items"], json!([]));
    let shown = operator.get(&format!("/dead-letters/{good}")).await.ok();
    assert_eq!((&shown["event"], &shown["domain"], &shown["attempts"]), (&event, &json!("deploy"), &json!(5)));

    for query in ["limit=0", "limit=101", "limit=all", "cursor=x", "colour=red"] {
        assert_eq!(operator.get(&format!("/dead-letters?{query}")).await.refused(400)["code"], "invalid", "{query}");
    }
    let unknown = Uuid::now_v7().to_string();
    for (id, status, code) in [(unknown.as_str(), 404, "not_found"), ("not-an-id", 400, "invalid")] {
        let path = format!("/dead-letters/{id}");
        for answer in [
            operator.get(&path).await,
            operator.post(&format!("{path}/replay"), json!({})).await,
            operator.delete(&path).await,
        ] {
            assert_eq!(answer.refused(status)["code"], code, "{id}");
        }
    }
    let replay = format!("/dead-letters/{good}/replay");
    operator.post(&replay, json!({ "twice": true })).await.refused(400);
    let of_letter = format!("/dead-letters/{good}");
    are_for_operators(
        node,
        &[
            (Method::GET, "/dead-letters"),
            (Method::GET, &of_letter),
            (Method::POST, &replay),
            (Method::DELETE, &of_letter),
            (Method::GET, "/cluster"),
            (Method::GET, "/actors"),
        ],
    )
    .await;

    assert!(operator.post(&replay, json!({})).await.status.is_success());
    operator.post(&replay, json!({})).await.refused(404);
    let refused = operator.post(&format!("/dead-letters/{garbage}/replay"), json!({})).await.refused(409);
    assert!(refused["detail"].as_str().unwrap().contains("it is no event"), "{refused}");
    assert!(operator.delete(&format!("/dead-letters/{garbage}")).await.status.is_success());
    operator.delete(&format!("/dead-letters/{garbage}")).await.refused(404);
    assert_eq!(operator.get("/dead-letters").await.ok()["items"], json!([]));
    eventually("deploy has applied it", || async { (self::applied(node).await == applied + 1).then_some(()) }).await;
}

/// The creation of a project that has come to a stand before its first step.
async fn stick(node: &Node, owner: &Api, name: &str) -> Uuid {
    let me = owner.get("/auth/whoami").await.ok();
    let (id, organization) = (Uuid::now_v7(), &me["organization_id"]);
    let project = json!({
        "id": id, "organization_id": organization, "name": name, "description": "", "version": 1,
        "created_at": "2026-11-21T00:00:00Z", "updated_at": "2026-11-21T00:00:00Z",
    });
    let caller = json!({ "correlation_id": Uuid::now_v7(), "organization_id": organization });
    let statement = format!(
        "INSERT INTO project.sagas (id, name, state, status, position, in_doubt, trouble, caller, token, beat,                                     created_at, updated_at)          VALUES ('{id}', 'project.create', '{project}', 'stuck', 0, FALSE, 'it was not to be', '{caller}', 1, 1,                  now(), now())"
    );
    node.ground().execute(statement).await;
    id
}

pub(super) async fn a_stuck_saga_is_listed_and_goes_on_when_it_is_retried(node: &Node) {
    let (operator, owner) = (node.operator(), node.user("owner").await);
    let id = stick(node, &owner, "shop").await;
    let listed = operator.get("/sagas?status=stuck").await.ok();
    assert_eq!(ids(&listed), [id.to_string()]);
    let saga = &listed["items"][0];
    assert_eq!((&saga["name"], &saga["status"]), (&json!("project.create"), &json!("stuck")));
    assert_eq!((&saga["step"], &saga["trouble"]), (&json!("record"), &json!("it was not to be")), "{saga}");
    owner.get(&format!("/projects/{id}")).await.refused(404);
    assert_eq!(ids(&operator.get("/sagas?domain=project").await.ok()), [id.to_string()]);
    operator.get("/sagas?domain=auth").await.refused(404);

    for query in ["status=sad", "limit=0", "limit=101", "cursor=x", "colour=red"] {
        assert_eq!(operator.get(&format!("/sagas?{query}")).await.refused(400)["code"], "invalid", "{query}");
    }
    let retry = format!("/sagas/{id}/retry");
    let unknown = operator.post(&format!("/sagas/{}/retry", Uuid::now_v7()), json!({})).await.refused(404);
    assert_eq!(unknown["code"], "not_found");
    operator.post("/sagas/not-an-id/retry", json!({})).await.refused(400);
    operator.post(&retry, json!({ "twice": true })).await.refused(400);
    are_for_operators(node, &[(Method::GET, "/sagas"), (Method::POST, &retry)]).await;

    let retried = operator.post(&retry, json!({})).await.ok();
    assert_eq!((&retried["id"], &retried["status"]), (&json!(id), &json!("running")));
    eventually("the project is there", || async {
        owner.get(&format!("/projects/{id}")).await.status.is_success().then_some(())
    })
    .await;
    assert_eq!(ids(&operator.get("/sagas?status=done").await.ok()), [id.to_string()]);
    let again = operator.post(&retry, json!({})).await.refused(409);
    assert!(again["detail"].as_str().unwrap().contains("the saga is done"), "{again}");
}

/// What the node says of one of its domains.
fn is_ready(health: &Value, domain: &str) -> Option<bool> {
    let domains = health["domains"].as_array()?;
    domains.iter().find(|told| told["domain"] == domain)?["ready"].as_bool()
}

pub(super) async fn a_domain_that_a_node_gave_up_is_revived_from_another(node: &mut Node) {
    let operator = node.operator();
    let id = node.member(2).id().unwrap();
    let (path, revive) = (format!("/cluster/nodes/{id}"), format!("/cluster/nodes/{id}/domains/auth/revive"));
    assert_eq!(operator.post(&revive, json!({})).await.refused(409)["code"], "conflict");
    operator.post(&format!("{path}/domains/nothing/revive"), json!({})).await.refused(404);
    operator.post(&format!("/cluster/nodes/{}/domains/auth/revive", Uuid::now_v7()), json!({})).await.refused(404);
    operator.post(&format!("{path}/domains/auth/breaker"), json!({ "hold": "tight" })).await.refused(400);
    let breaker = format!("{path}/domains/auth/breaker");
    are_for_operators(node, &[(Method::GET, &path), (Method::POST, &revive), (Method::POST, &breaker)]).await;

    // Without this table auth can't begin; what runs already goes on with what it knows.
    assert!(node.member_mut(2).stop().await.0.success());
    node.ground().execute("ALTER TABLE auth.signing_keys RENAME TO away".to_owned()).await;
    node.spawn_member(2);
    let health = eventually("the node gives auth up", || async {
        let health = operator.get(&path).await.body;
        let trees = health["tree"]["children"].as_array()?;
        let auth = trees.iter().find(|domain| domain["name"] == "auth")?;
        let others_go_on = is_ready(&health, "project")?;
        (auth["state"] == "unavailable" && others_go_on).then_some(health.clone())
    })
    .await;
    assert_eq!(is_ready(&health, "auth"), Some(false), "{health}");
    let domains = health["domains"].as_array().unwrap();
    let auth = domains.iter().find(|domain| domain["domain"] == "auth").unwrap();
    assert!(auth["reason"].as_str().unwrap().contains("signing_keys"), "{health}");
    node.ground().execute("ALTER TABLE auth.away RENAME TO signing_keys".to_owned()).await;

    assert!(operator.post(&revive, json!({})).await.status.is_success());
    node.member_mut(2).ready().await;
    Api::new(node.member(2).port, operator.token.clone()).get("/auth/whoami").await.ok();
}

pub(super) async fn a_node_that_hosts_no_domain_is_a_gateway_to_those_of_others(node: &mut Node) {
    let number = node.join("gateway", "none").await;
    let gateway = node.member(number);
    let anonymous = Api::new(gateway.port, None);
    let ready = anonymous.send(anonymous.raw(Method::GET, "/ready")).await.ok();
    assert_eq!(ready["status"], "ready", "{ready}");
    let invited = json!({ "email": "guest@example.com" });
    let invitation = gateway.operator().post("/auth/invitations", invited).await.ok();
    let owner = anonymous.register("guest@example.com", invitation["token"].as_str()).await;
    let project = owner.create_project("of-the-gateway").await;
    assert_eq!(owner.get(&format!("/projects/{project}")).await.ok()["name"], "of-the-gateway");
    owner.get(&format!("/projects/{project}/instances")).await.ok();

    App::web(node, "shelf", "one").deploy().await;
    let answer = visit(gateway.port, "shelf", "/").await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().starts_with("one"));
    let nodes = gateway.operator().get("/cluster").await.ok();
    let report = nodes["nodes"].as_array().unwrap().iter().find(|report| report["name"] == "gateway").unwrap();
    assert_eq!((&report["domains"], &nodes["answered_by"]), (&json!([]), &report["id"]));
}
