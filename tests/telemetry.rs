//! What a node tells of itself: traces to a collector, and its log as JSON.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Collector, Node, PASSWORD, collector::Span, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Spans leave soon, so that a test need not wait for them.
fn traced(endpoint: &str) -> [(&str, &str); 2] {
    [("CALLBOARD_OTLP_ENDPOINT", endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "100")]
}

/// The names of the spans from this one up to where the trace came into the node. Nothing while one of them has not
/// arrived: each process sends its own.
fn ancestry(of: &Span, spans: &[Span]) -> Option<Vec<String>> {
    let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    let mut names = vec![of.name.clone()];
    let mut at = of;
    while let Some(above) = by_id.get(at.parent.as_str()) {
        names.push(above.name.clone());
        at = above;
    }
    (at.parent == PARENT).then_some(names)
}

fn named(name: &str, collector: &Collector) -> Option<Span> {
    collector.trace(TRACE).into_iter().find(|span| span.name == name)
}

/// Makes a project within a client's trace; the request's span, and that of the statement that stored the project.
async fn follow(node: &Node, collector: &Collector) -> (Span, Span) {
    let admin = node.admin().await;
    let create = admin
        .request(Method::POST, "/projects")
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
        .json(&json!({ "name": "never-in-a-trace" }));
    admin.send(create).await.ok();
    let (insert, request, names) = eventually("the whole trace has arrived", || async {
        let spans = collector.trace(TRACE);
        let is_insert = |span: &&Span| {
            span.attributes.get("db.statement").is_some_and(|text| text.contains("INSERT INTO projects"))
        };
        let insert = spans.iter().find(is_insert).cloned()?;
        let request = spans.iter().find(|span| span.name == "POST /api/v1/projects").cloned()?;
        let names = ancestry(&insert, &spans)?;
        Some((insert, request, names))
    })
    .await;
    assert_eq!((names[0].as_str(), names[1].as_str()), ("INSERT", "project.create"), "{names:?}");
    assert_eq!(names.last().unwrap(), "POST /api/v1/projects", "{names:?}");
    assert_eq!(request.attributes["http.response.status_code"], "201");
    assert_eq!(request.attributes["http.route"], "/api/v1/projects");
    assert_eq!(request.resource["service.name"], "callboard");
    // A query may hold a token.
    let list = admin.request(Method::GET, "/projects?name=never-in-a-trace");
    admin.send(list.header("traceparent", format!("00-{TRACE}-{PARENT}-01"))).await.ok();
    eventually("the list's span has arrived", || async { named("GET /api/v1/projects", collector) }).await;
    let everything = format!("{:?}", collector.all());
    for secret in ["never-in-a-trace", "admin@example.com", PASSWORD] {
        assert!(!everything.contains(secret), "{secret} is in a trace");
    }
    (request, insert)
}

#[tokio::test]
async fn one_trace_leads_from_the_request_to_the_statement() {
    let collector = Collector::start();
    let endpoint = collector.endpoint();
    let node = Node::start_with(&["--no-sample"], &traced(&endpoint)).await;
    follow(&node, &collector).await;
    node.finish().await;
}

#[tokio::test]
async fn one_trace_leads_through_the_bridge_to_the_statement_of_another_process() {
    let collector = Collector::start();
    let endpoint = collector.endpoint();
    let node = Node::start_cluster_with(&["--no-sample"], &traced(&endpoint)).await;
    let (request, insert) = follow(&node, &collector).await;
    let process = |span: &Span| span.resource["service.instance.id"].clone();
    assert_eq!(process(&request), "node");
    assert_ne!(process(&insert), "node", "the domain is on another node");
    node.finish().await;
}

#[tokio::test]
async fn a_request_s_span_ends_with_its_answer() {
    let collector = Collector::start();
    let endpoint = collector.endpoint();
    let node = Node::start_with(&["--no-sample"], &traced(&endpoint)).await;
    let admin = node.admin().await;
    let project = admin.create_project("watched").await;
    let get = |path: &str| admin.request(Method::GET, path).header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    let stream = get(&format!("/live?topics=project:{project}")).header("Accept", "text/event-stream").send();
    let stream = stream.await.unwrap();
    assert_eq!(stream.status(), 200);

    // Spans arrive in the order in which they end.
    admin.send(get("/projects")).await.ok();
    eventually("a later request's span has arrived", || async { named("GET /api/v1/projects", &collector) }).await;
    assert!(named("GET /api/v1/live", &collector).is_none(), "the stream goes on");
    drop(stream);
    let span = eventually("the stream's span has arrived", || async { named("GET /api/v1/live", &collector) }).await;
    assert_eq!(span.attributes["http.response.status_code"], "200");
    node.finish().await;
}

#[tokio::test]
async fn a_collector_that_is_away_costs_no_request_and_one_line_of_the_log() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // It accepts connections and never answers.
    let mut node = Node::start_with(&["--no-sample"], &traced(&endpoint)).await;
    let admin = node.admin().await;
    for _ in 0..200 {
        admin.get("/projects").await.ok();
    }
    let told = |log: String| log.matches("traces can't be sent").count();
    eventually("it is told that traces are lost", || async { (told(node.log()) > 0).then_some(()) }).await;
    drop(listener);
    for _ in 0..200 {
        admin.get("/projects").await.ok();
    }
    let (status, took) = node.stop().await;
    assert!(status.success() && took < Duration::from_secs(20), "{status} after {took:?}");
    // Once for each process.
    let most = if std::env::var("CALLBOARD_TEST_TOPOLOGY").is_ok() { 3 } else { 1 };
    assert!(told(node.log()) <= most, "{}", node.log());
    node.finish().await;
}

#[tokio::test]
async fn the_last_spans_leave_when_the_node_stops() {
    let collector = Collector::start();
    let endpoint = collector.endpoint();
    let settings = [
        ("CALLBOARD_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
        // More than a node has to tell of itself meanwhile.
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100000"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100000"),
    ];
    let mut node = Node::start_with(&["--no-sample"], &settings).await;
    let list = node.operator();
    let list = list.request(Method::GET, "/projects").header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    node.anonymous().send(list).await.ok();
    assert!(collector.trace(TRACE).is_empty(), "they wait for company");
    let began = Instant::now();
    assert!(node.stop().await.0.success());
    assert!(began.elapsed() < Duration::from_secs(24));
    assert!(collector.trace(TRACE).iter().any(|span| span.name == "GET /api/v1/projects"));
    node.finish().await;
}

#[tokio::test]
async fn the_log_is_json_that_names_the_work_and_tells_no_secret() {
    let settings = [("CALLBOARD_LOG_FORMAT", "json"), ("CALLBOARD_LOG", "debug")];
    let node = Node::start_with(&["--no-sample"], &settings).await;
    let admin = node.admin().await;
    let list = admin.request(Method::GET, "/projects").header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
    admin.send(list).await.ok();
    admin.post("/auth/login", json!({ "email": "admin@example.com", "password": "not it at all" })).await.refused(401);

    let lines = || -> Vec<Value> {
        let log = node.log();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    };
    let correlation = uuid::Uuid::parse_str(TRACE).unwrap().to_string();
    let line = eventually("the request is logged", || async {
        let of_list = |line: &Value| line["correlation_id"] == *correlation && line["operation"] == "project.list";
        lines().into_iter().find(of_list)
    })
    .await;
    for name in ["timestamp", "level", "target", "node", "domain"] {
        assert!(line[name].is_string(), "{name}: {line}");
    }
    assert_eq!(line["domain"], "project");
    let refusal = lines().into_iter().find(|line| line["operation"] == "auth.login" && line["domain"] == "auth");
    assert!(refusal.is_some(), "a refused sign-in is named too");
    let log = node.log();
    for secret in [PASSWORD, "not it at all", admin.token.as_deref().unwrap()] {
        assert!(!log.contains(secret), "a secret is logged");
    }
    node.finish().await;
}
