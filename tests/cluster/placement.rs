//! Who asks can't tell which node answers.

use std::time::{Duration, Instant};

use bytes::Bytes;
use callboard_bridge::{Bridge, BridgeSettings, ClusterKey};
use callboard_messages::{Caller, OrganizationId, Principal, Scopes, Secret, UserId};
use callboard_supervisors::{
    Runtime,
    remote::{Request, Target},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, Node, PASSWORD};

/// An answer without what is each request's own.
fn told(mut body: Value) -> Value {
    if let Some(fields) = body.as_object_mut() {
        fields.remove("request_id");
    }
    body
}

pub(super) async fn every_node_gives_the_same_answers_and_refusals(node: &Node) {
    let owner = node.user("owner").await;
    let project = owner.create_project("shop").await;
    let token = owner.token.clone().unwrap();
    let mut answers = Vec::new();
    for number in 0..3 {
        let api = Api::new(node.member(number).port, Some(token.clone()));
        let stale = api.request(Method::PATCH, &format!("/projects/{project}")).header("If-Match", "\"9\"");
        let asked = [
            api.get(&format!("/projects/{project}")).await,
            api.get("/projects?limit=5").await,
            api.get("/auth/whoami").await,
            api.get("/organizations").await,
            api.post("/projects", json!({ "name": "shop" })).await,
            api.post("/projects", json!({ "name": "-" })).await,
            api.get(&format!("/projects/{}", uuid::Uuid::nil())).await,
            api.send(stale.json(&json!({ "description": "x" }))).await,
            api.get("/projects?limit=1000").await,
            api.post(&format!("/projects/{project}/rollback"), json!({})).await,
            api.get("/cluster").await,
        ];
        answers.push(asked.map(|answer| (answer.status, told(answer.body))));
    }
    let expected = [200, 200, 200, 200, 409, 422, 404, 412, 422, 409, 403];
    for (number, (status, body)) in answers[0].iter().enumerate() {
        let is_known = status.as_u16() == expected[number] || (expected[number] == 422 && status.as_u16() == 400);
        assert!(is_known, "{number}: {status} {body}");
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
}

pub(super) async fn a_revoked_session_is_dead_on_every_node_within_a_second(node: &Node) {
    let person = node.user("person").await;
    let login = json!({ "email": "person@example.com", "password": PASSWORD });
    let tokens = person.post("/auth/login", login).await.ok();
    let token = tokens["access_token"].as_str().unwrap();
    let on = |number: usize| Api::new(node.member(number).port, Some(token.to_owned()));
    // Each node remembers the token.
    for _ in 0..3 {
        for number in 0..3 {
            on(number).get("/auth/whoami").await.ok();
        }
    }
    on(0).post("/auth/logout", json!({})).await;
    let revoked = tokio::time::Instant::now();
    on(0).get("/auth/whoami").await.refused(401);
    tokio::time::sleep_until(revoked + Duration::from_secs(1)).await;
    for number in 0..3 {
        on(number).get("/auth/whoami").await.refused(401);
    }
    // The other session is not touched.
    person.get("/auth/whoami").await.ok();
}

/// Asks a domain over the bridge as a node of another version would.
async fn ask(bridge: &Bridge, caller: &Caller, operation: &'static str, body: Value) -> Value {
    let domain = operation.split_once('.').unwrap().0;
    let request = Request {
        operation,
        domain,
        target: Target::Domain,
        idempotent: true,
        caller: caller.clone(),
        deadline: Instant::now() + Duration::from_secs(30),
        body: Bytes::from(body.to_string()),
        traceparent: None,
        idempotency_key: None,
    };
    let reply = bridge.transport().call(request).await.unwrap();
    serde_json::from_slice(&reply).unwrap()
}

pub(super) async fn two_versions_of_the_program_understand_each_other(node: &Node) {
    let environment = node.environment();
    let of = |name: &str| environment.iter().find(|(variable, _)| *variable == name).unwrap().1.to_owned();
    let key = ClusterKey::new(of("CALLBOARD_CLUSTER_KEY")).unwrap();
    let id = uuid::Uuid::now_v7();
    let settings = BridgeSettings {
        prefix: of("CALLBOARD_AMQP_PREFIX"),
        ..BridgeSettings::new(Secret::new(of("CALLBOARD_AMQP_URL")), id, key)
    };
    let bridge = Bridge::start(settings).await.unwrap();
    let runtime = Runtime::builder()
        .workers(1)
        .node(id)
        .transport(bridge.transport())
        .events(bridge.events())
        .build(vec![bridge.domain()])
        .unwrap();
    runtime.attach().await;
    crate::harness::eventually("the bridge is connected", || async { bridge.is_connected().then_some(()) }).await;

    let me = node.user("newer").await.get("/auth/whoami").await.ok();
    let id_of = |value: &Value| value.as_str().unwrap().parse::<uuid::Uuid>().unwrap();
    let caller = Caller {
        principal: Principal::User,
        user_id: Some(UserId(id_of(&me["account"]["id"]))),
        organization_id: Some(OrganizationId(id_of(&me["organization_id"]))),
        scopes: Scopes::new(["*"]),
        ..Caller::anonymous()
    };
    // A newer node sends what this one does not know, and leaves out what this one may do without.
    let newer = json!({ "name": "newer", "of_a_later_version": { "deep": [1, 2] } });
    let made = ask(&bridge, &caller, "project.create", newer).await;
    assert_eq!(made["Ok"]["name"], "newer", "{made}");
    assert_eq!(made["Ok"]["description"], "");
    let listed = ask(&bridge, &caller, "project.list", json!({ "of_a_later_version": true })).await;
    assert_eq!(listed["Ok"]["items"][0]["name"], "newer", "{listed}");
    // What only a newer node can answer is told, and what is no such message is too.
    let unknown = ask(&bridge, &caller, "project.of_a_later_version", json!({})).await;
    assert!(unknown["Err"].is_object(), "{unknown}");
    let garbage = ask(&bridge, &caller, "project.create", json!({ "name": 7 })).await;
    assert!(garbage["Err"].is_object(), "{garbage}");

    runtime.stop(Duration::from_secs(5)).await;
    drop(bridge);
    remove_queues_of(node, id).await;
}

/// This node's own, which the ground of the test does not know of.
async fn remove_queues_of(node: &Node, id: uuid::Uuid) {
    let url = crate::harness::servers::amqp_url();
    let connection = lapin::Connection::connect(&url, lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    for of in ["node", "replies", "live"] {
        let queue = format!("{}.{of}.{id}", node.ground().prefix());
        channel.queue_delete(queue.as_str().into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
    }
    connection.close(200, "".into()).await.unwrap();
}
