//! What Prometheus reads: a node's metrics, the rules, and the dashboard, in Prometheus' own judgement.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use reqwest::Method;

use crate::harness::{
    Api, App, Node,
    servers::{build_folder, program},
};

const TOKEN: &str = "token-of-the-metrics-tests";

/// What asks for metrics.
const PROMETHEUS: [&str; 2] = ["docker/prometheus/rules/callboard.yaml", "docker/grafana/dashboards/callboard.json"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs Prometheus' checker; what it said.
fn promtool(arguments: &[&str], input: &str) -> Result<String, String> {
    let folder = build_folder().join("prometheus");
    let program = program("promtool", &[folder.to_str().unwrap()], "run scripts/promtool");
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(root().join("docker/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(said) } else { Err(said) }
}

async fn scrape(port: u16) -> String {
    let api = Api::new(port, Some(TOKEN.to_owned()));
    let answer = api.send(api.raw(Method::GET, "/metrics")).await;
    assert!(answer.status.is_success(), "{} {}", answer.status, answer.text);
    answer.text
}

/// Of the node, or of the three.
fn ports(node: &Node) -> Vec<u16> {
    let is_cluster = std::env::var("CALLBOARD_TEST_TOPOLOGY").is_ok_and(|topology| topology == "cluster");
    (0..if is_cluster { 3 } else { 1 }).map(|number| node.member(number).port).collect()
}

/// The series of a scrape that Prometheus accepts.
fn series(metrics: &str) -> BTreeSet<&str> {
    assert_eq!(promtool(&["check", "metrics"], metrics).as_deref(), Ok(""), "{metrics}");
    let mut seen = BTreeSet::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').unwrap().0;
        assert!(seen.insert(series), "{series} is there twice");
    }
    seen
}

#[tokio::test]
async fn prometheus_accepts_the_metrics_of_a_node_that_works() {
    let node = Node::start_with(&["--no-sample"], &[("CALLBOARD_METRICS_TOKEN", TOKEN)]).await;
    let app = App::example(&node, "static");
    app.deploy().await;
    assert!(app.text("/").await.contains("Callboard"));
    // An app is counted where it runs, which is one of the nodes.
    let mut all = String::new();
    for port in ports(&node) {
        let metrics = scrape(port).await;
        let seen = series(&metrics);
        assert!(seen.iter().any(|series| series.starts_with("callboard_domain_up")), "{metrics}");
        all += &metrics;
    }
    for name in [
        "callboard_http_requests_total",
        "callboard_http_request_duration_seconds_bucket",
        "callboard_operation_calls_total",
        "callboard_operation_duration_seconds_sum",
        "callboard_shard_queue_depth",
        "callboard_shard_in_flight_limit",
        "callboard_domain_up",
        "callboard_blocking_queue_limit",
        "callboard_outbox_lag_seconds",
        "callboard_router_requests_total",
    ] {
        assert!(all.lines().any(|line| line.starts_with(name)), "{name} is missing\n{all}");
    }
    let asked = asked_labels();
    assert!(asked.len() > 10, "{asked:?}");
    let mut compared = 0;
    for (metric, label) in asked {
        let mut series =
            all.lines().filter(|line| line.strip_prefix(&*metric).is_some_and(|rest| rest.starts_with('{')));
        // What a node has nothing to tell of has no series yet.
        let Some(first) = series.next() else { continue };
        compared += 1;
        let has = |line: &str| line.contains(&format!("{{{label}=\"")) || line.contains(&format!(",{label}=\""));
        assert!(has(first) || series.any(has), "{metric} is asked for by {label}, which it does not have: {first}");
    }
    assert!(compared > 10, "only {compared} labels were compared");
    node.finish().await;
}

#[tokio::test]
async fn a_metrics_token_closes_the_metrics_to_everybody_else() {
    let node = Node::start_with(&["--no-sample"], &[("CALLBOARD_METRICS_TOKEN", TOKEN)]).await;
    scrape(node.port).await;
    let anonymous = node.anonymous();
    anonymous.send(anonymous.raw(Method::GET, "/metrics")).await.refused(401);
    let wrong = anonymous.with_token("another-token-entirely");
    wrong.send(wrong.raw(Method::GET, "/metrics")).await.refused(401);
    let operator = node.operator();
    assert!(operator.send(operator.raw(Method::GET, "/metrics")).await.status.is_success());
    let user = node.user("somebody").await;
    user.send(user.raw(Method::GET, "/metrics")).await.refused(403);
    node.finish().await;
}

#[test]
fn the_rules_fire_when_they_should_and_only_then() {
    for arguments in
        [["check", "rules", "rules/callboard.yaml"].as_slice(), &["check", "config", "--syntax-only", "prometheus.yml"]]
    {
        promtool(arguments, "").unwrap_or_else(|said| panic!("{said}"));
    }
    promtool(&["test", "rules", "tests/callboard.yaml"], "").unwrap_or_else(|said| panic!("{said}"));
    let alerts = |file: &str, word: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(root().join("docker/prometheus").join(file)).unwrap();
        text.lines().filter_map(|line| Some(line.trim().strip_prefix(word)?.trim().to_owned())).collect()
    };
    let rules = alerts("rules/callboard.yaml", "- alert:");
    let cases = alerts("tests/callboard.yaml", "- name:");
    assert!(!rules.is_empty());
    for rule in rules {
        for case in ["fires", "does not fire"] {
            let begins = format!("{rule} {case}");
            assert!(cases.iter().any(|told| told.starts_with(&begins)), "there is no case in which {begins}");
        }
    }
}

/// Every metric of ours that a text speaks of, without what a histogram adds to its name.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let names = text.match_indices("callboard_").filter(|(at, _)| !text[..*at].ends_with(is_name)).map(|(at, _)| {
        let name = text[at..].split(|c| !is_name(c)).next().unwrap();
        ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
    });
    names.collect()
}

/// What rules and dashboard select metrics of ours by: the metric, and the name of a label.
fn asked_labels() -> BTreeSet<(String, String)> {
    let mut asked = BTreeSet::new();
    for file in PROMETHEUS {
        // In the dashboard, which is JSON, quotes are escaped.
        let text = fs::read_to_string(root().join(file)).unwrap().replace("\\\"", "\"");
        for (at, _) in text.match_indices("callboard_") {
            let Some((metric, rest)) = text[at..].split_once('{') else { continue };
            if !metric.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                continue;
            }
            let labels = rest.split_once('}').unwrap().0;
            // Values have no commas and no equals signs.
            let names = labels.split(',').filter_map(|label| label.split(['=', '!']).next());
            // Those that Prometheus adds.
            let names = names.map(str::trim).filter(|name| !["", "job", "instance"].contains(name));
            asked.extend(names.map(|name| (metric.to_owned(), name.to_owned())));
        }
    }
    asked
}

fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// Whether a source registers a metric, by its name or by `callboard_<area>_{name}` and what is left of it.
fn registers(source: &str, metric: &str) -> bool {
    let whole = |name: &str| source.contains(&format!("\"{name}\""));
    let in_parts = || {
        let mut parts = metric.splitn(3, '_');
        let (Some(_), Some(area), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { return false };
        let short = rest.strip_suffix("_total").unwrap_or(rest);
        source.contains(&format!("callboard_{area}_{{name}}")) && (whole(rest) || whole(short))
    };
    whole(metric) || in_parts()
}

#[test]
fn rules_and_dashboard_speak_of_metrics_that_exist() {
    let mut code = Vec::new();
    for folder in ["supervisors", "platform", "http", "bridge", "cache", "actors", "src"] {
        sources(&root().join(folder), &mut code);
    }
    for file in PROMETHEUS {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let names = metrics_in(&text);
        assert!(names.len() > 10, "{names:?}");
        let missing: Vec<_> = names.iter().filter(|name| !code.iter().any(|source| registers(source, name))).collect();
        assert!(missing.is_empty(), "{file} speaks of {missing:?}, which nothing registers");
    }
}
