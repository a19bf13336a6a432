//! The dashboard as people use it: in headless Chromium, which scripts beside this file drive through playwright-core.
//! `scripts/browser` installs both; without them these tests say so.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{App, Node, PASSWORD};

/// How long a scenario may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(240);

/// Where `scripts/browser` puts what drives the browser.
fn tools() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_callboard")).parent().and_then(Path::parent).unwrap();
    let tools = target.join("browser");
    assert!(
        tools.join("installed").exists(),
        "what drives the browser is missing in {}: run scripts/browser",
        tools.display()
    );
    tools
}

/// Runs a scenario against the node, with what it is told besides.
async fn run(node: &Node, scenario: &str, besides: Value) {
    let mut told = json!({
        "origin": format!("http://127.0.0.1:{}", node.port),
        "password": PASSWORD,
        "tools": tools(),
        "development": node.shared().is_none(),
        "shots": std::env::var_os("CALLBOARD_TEST_SHOTS").map(PathBuf::from),
    });
    let both = told.as_object_mut().unwrap();
    both.extend(besides.as_object().unwrap().clone());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser").join(scenario);
    let child = Command::new("node")
        .arg(script)
        .env("CALLBOARD_BROWSER_TEST", told.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("Node.js runs: scripts/packages installs it");
    let ended = tokio::time::timeout(WITHIN, child.wait_with_output()).await;
    let Output { status, stdout, stderr } = ended.expect("the scenario ends in time").unwrap();
    let (out, error) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{scenario}: {status}\n{out}{error}\n{}", node.log());
    print!("{out}");
}

/// The set-up link, by the address that the scenario uses.
fn setup(node: &Node) -> String {
    let link = node.announced["setup_url"].as_str().expect("a set-up link");
    let (_, token) = link.split_once("/setup").expect("a path");
    format!("http://127.0.0.1:{}/setup{token}", node.port)
}

#[tokio::test]
async fn somebody_who_never_opens_a_terminal_runs_an_app() {
    let node = Node::start().await;
    let folder = |version: &str| {
        let app = App::web(&node, &format!("{version}/shop"), version);
        app.write("node_modules/left/out.js", "left out");
        app.folder
    };
    run(&node, "walk.mjs", json!({ "setup": setup(&node), "app": folder("one"), "second": folder("two") })).await;
    node.finish().await;
}

#[tokio::test]
async fn every_page_keeps_to_its_width_is_read_without_a_script_and_loses_nothing_typed() {
    let node = Node::start().await;
    node.admin().await;
    let app = App::web(&node, "uploaded", "one");
    let archive = node.scratch("archive").join("uploaded.tar.gz");
    std::fs::write(&archive, app.packed()).unwrap();
    run(&node, "keeps.mjs", json!({ "archive": archive, "folder": app.folder })).await;
    node.finish().await;
}

#[tokio::test]
async fn a_long_log_scrolls_and_a_page_that_slept_catches_up() {
    let node = Node::start().await;
    let admin = node.admin().await;
    let app = App::web(&node, "long", "one");
    let project = admin.create_project("long").await;
    let deployment = admin.deploy_archive(&project, app.packed()).await.ok();
    run(&node, "log.mjs", json!({ "deployment": deployment["id"] })).await;
    node.finish().await;
}
