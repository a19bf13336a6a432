//! Apps that once brought a node, or their owner's understanding, down: each ends as it should, and costs nobody else.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{App, Node, answered};

/// Deploys the folder, which must fail; the sentence that tells why.
async fn failure(node: &Node, app: &App<'_>) -> String {
    let ran = node.cli(&["deploy", app.folder.to_str().unwrap(), "--app", &app.name]).await;
    assert!(!ran.success(), "{ran:?}");
    let operator = node.operator();
    let project = operator.project(&app.name).await;
    let page = operator.get(&format!("/projects/{project}/deployments")).await.ok();
    page["items"][0]["error"].as_str().unwrap_or_else(|| panic!("no sentence: {page}")).to_owned()
}

/// What npm adds to the output of a script that has failed.
const NOTICE: &str = "npm notice\\nnpm notice New major version of npm available!\\nnpm notice\\n";

#[tokio::test]
async fn a_failure_is_told_by_its_reason_and_not_by_what_stands_around_it() {
    // A folder of root's among those of PATH: whatever shell looks for a program must not be stopped by it.
    let closed = tempfile::tempdir().unwrap();
    fs::create_dir(closed.path().join("bin")).unwrap();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let path = format!("{}/bin:{}", closed.path().display(), std::env::var("PATH").unwrap());
    let variables = [("CALLBOARD_BUILD_SIZE", "48MiB"), ("PATH", path.as_str())];
    let node = Node::start_with(&["--no-sample"], &variables).await;

    let script = format!("echo the-real-reason >&2; printf '{NOTICE}' >&2; exit 3");
    let package = json!({ "private": true, "scripts": { "start": script } }).to_string();
    let told = failure(&node, &App::new(&node, "noticed", &[("package.json", &package)])).await;
    assert!(told.contains("the-real-reason") && told.contains("status 3") && !told.contains("npm notice"), "{told}");

    let thrown = [("server.js", "throw new TypeError('no such table')"), ("Procfile", "web: node server.js\n")];
    let told = failure(&node, &App::new(&node, "thrown", &thrown)).await;
    assert!(told.contains("TypeError: no such table") && !told.contains("Node.js v"), "{told}");

    let told = failure(&node, &App::new(&node, "missing", &[("Procfile", "web: nosuchprogram\n")])).await;
    assert!(told.contains("the program `nosuchprogram` was not found") && !told.contains("ermission"), "{told}");

    // No file of it is large, and nothing of it is in the release.
    let grows = "for at in $HOME/a $HOME/b $TMPDIR/c; do head -c 20M /dev/zero > $at; done; sleep 600";
    let package = json!({ "private": true, "scripts": { "build": grows, "start": "node s.js" } }).to_string();
    let told = failure(&node, &App::new(&node, "large", &[("package.json", &package)])).await;
    assert!(told.contains("48 MiB") && told.contains("HOME and TMPDIR included"), "{told}");
    node.finish().await;
}

/// Whether there is anything left to be removed.
fn is_removing(data: &Path) -> bool {
    fs::read_dir(data.join("deploy/trash")).is_ok_and(|mut entries| entries.next().is_some())
}

const HOG: &str = r#"
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

held = []

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/hog":
            while True:
                held.append(b"x" * 4_000_000)
        body = json.dumps(dict(os.environ)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

#[tokio::test]
async fn an_app_that_takes_much_costs_the_others_nothing() {
    let node = Node::start_with(&["--no-sample"], &[("CALLBOARD_INSTANCE_MEMORY", "64MiB")]).await;
    let (operator, data) = (node.operator(), node.data());
    let other = App::web(&node, "other", "one");
    other.deploy().await;
    other.settle("web", 1).await;
    let of_other = format!("/projects/{}/instances", operator.project("other").await);

    // A home of very many files, and the owner's own variables while it is filled and afterwards.
    node.cli_json(&["create", "hog"]).await;
    for variable in ["OWN=of the owner", "NODE_ENV=staging"] {
        node.cli_json(&["env", "set", variable, "--plain", "--app", "hog"]).await;
    }
    let fill = "import os\nfor d in range(120):\n    os.mkdir(f\"{os.environ['HOME']}/{d}\")\n    for i in range(1000):\n        \
                open(f\"{os.environ['HOME']}/{d}/{i}\", 'w').close()\n";
    let build = json!({ "config": { "build_command": "echo $OWN, $NODE_ENV; python3 fill.py" } });
    operator.put(&format!("/projects/{}/build-config", operator.project("hog").await), build).await.ok();
    let hog = App::new(&node, "hog", &[("app.py", HOG), ("fill.py", fill), ("Procfile", "web: python3 app.py\n")]);
    let deployed = hog.deploy().await;
    assert!(is_removing(&data), "the deployment was done before the home was removed");
    let mut answers = 0;
    loop {
        let asked = Instant::now();
        operator.get(&of_other).await.ok();
        assert!(asked.elapsed() < Duration::from_secs(1), "an answer took {:?}", asked.elapsed());
        other.text("/").await;
        if !is_removing(&data) {
            break;
        }
        answers += 1;
    }
    assert!(answers > 0, "nothing was asked while the home was removed");
    hog.build_says(deployed["id"].as_str().unwrap(), "of the owner, staging").await;
    let found: Value = serde_json::from_str(&hog.text("/").await).unwrap();
    assert_eq!((&found["OWN"], &found["NODE_ENV"]), (&json!("of the owner"), &json!("staging")));

    let before = hog.settle("web", 1).await;
    drop(hog.ask("/hog").await);
    let after = answered("it was ended for its memory and runs again", || async {
        let healthy = hog.healthy("web").await?;
        Ok(healthy.into_iter().find(|instance| instance["restarts"].as_u64() > before[0]["restarts"].as_u64()))
    })
    .await;
    let why = after["last_exit"].as_str().unwrap();
    assert!(why.contains("it used more than its 64 MiB of memory"), "{why}");
    assert_eq!(other.settle("web", 1).await[0]["restarts"], 0);
    node.finish().await;
}

#[tokio::test]
async fn a_deployment_beside_two_builds_says_at_once_what_it_waits_for_and_who_may_end_it() {
    // Of several nodes each would build.
    let node = Node::start_on(|_| ()).await;
    let slow = json!({ "private": true, "scripts": { "build": "sleep 600", "start": "node s.js" } }).to_string();
    let mut begun = Vec::new();
    for name in ["cpuhog", "sleeper"] {
        let app = App::new(&node, name, &[("package.json", &slow), ("s.js", "")]);
        let deployment = app.begin_deploy().await;
        app.build_says(deployment["id"].as_str().unwrap(), "$ npm run build").await;
        begun.push(name);
    }
    let third = App::web(&node, "third", "one");
    let deployment = third.begin_deploy().await;
    let log = node.operator().look(&format!("/deployments/{}/logs", deployment["id"].as_str().unwrap())).await.unwrap();
    let text = log.to_string();
    for says in [
        "Waiting: all 2 builders",
        "2 builds are ahead",
        "callboard cancel --app cpuhog",
        "callboard cancel --app sleeper",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    for name in begun {
        assert!(node.cli(&["cancel", "--app", name]).await.success());
    }
    answered("the third is built", || async {
        let deployment = node.operator().look(&format!("/deployments/{}", deployment["id"].as_str().unwrap())).await?;
        Ok((deployment["status"] == "completed").then_some(()))
    })
    .await;
    node.finish().await;
}
