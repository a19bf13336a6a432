//! The command line, as scripts and people use it.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::harness::{App, Node, PASSWORD, eventually};

#[tokio::test]
async fn every_verb_prints_one_document_with_json() {
    let node = Node::start().await;
    let me = node.cli_json(&["whoami"]).await;
    assert_eq!(me["account"]["administrator"], true);
    assert_eq!(node.cli_json(&["projects"]).await, json!([]));
    assert_eq!(node.cli_json(&["create", "shop"]).await["name"], "shop");
    let app = App::web(&node, "shop", "one");
    let deployed = app.deploy().await;
    for field in ["id", "status", "url"] {
        assert!(deployed[field].is_string(), "{field}: {deployed}");
    }
    assert_eq!(app.ps().await["formation"]["processes"]["web"], 1);
    assert_eq!(node.cli_json(&["releases", "--app", "shop"]).await[0]["version"], 1);
    assert_eq!(node.cli_json(&["open", "--app", "shop"]).await["url"], deployed["url"]);
    assert!(node.cli_json(&["build-log", "--app", "shop"]).await["items"].is_array());
    assert!(node.cli_json(&["logs", "--app", "shop"]).await["items"].is_array());
    assert!(node.cli_json(&["env", "list", "--app", "shop"]).await["variables"].is_array());
    assert_eq!(node.cli_json(&["scale", "web=2", "--app", "shop"]).await["processes"]["web"], 2);
    assert_eq!(node.cli_json(&["restart", "--app", "shop"]).await["status"], "completed");
    assert_eq!(node.cli_json(&["stop", "--app", "shop"]).await["processes"]["web"], 0);
    assert!(node.cli_json(&["config"]).await.as_array().unwrap().len() > 10);
    let domains = node.cli_json(&["domains"]).await;
    let auth = domains.as_array().unwrap().iter().find(|domain| domain["name"] == "auth").unwrap();
    assert_eq!(auth["database_variable"], "CALLBOARD_AUTH_DATABASE_URL", "{auth}");
    assert!(auth["operations"].as_array().unwrap().contains(&json!("auth.login")), "{auth}");
    assert_eq!((&auth["everywhere"], &auth["threads"]), (&json!(false), &json!(0)), "{auth}");
    assert_eq!(node.cli_json(&["destroy", "--yes", "--app", "shop"]).await["destroyed"], true);
    node.finish().await;
}

#[tokio::test]
async fn what_was_built_before_is_not_built_again_and_a_failed_release_looks_failed() {
    let node = Node::start().await;
    let app = App::web(&node, "shop", "one");
    let folder = app.folder.to_str().unwrap();
    let first = node.cli(&["deploy", folder, "--app", "shop"]).await;
    assert!(first.success() && first.out.contains("Packing the release"), "{first:?}");
    let again = node.cli(&["deploy", folder, "--app", "shop"]).await;
    assert!(again.success() && again.out.contains("Not built: v1") && !again.out.contains("Packing"), "{again:?}");
    let rebuilt = node.cli(&["deploy", folder, "--app", "shop", "--rebuild"]).await;
    assert!(rebuilt.success() && rebuilt.out.contains("Packing the release"), "{rebuilt:?}");

    app.write("Procfile", "release: echo no database >&2; exit 4\nweb: python3 app.py\n");
    let failed = node.cli(&["deploy", folder, "--app", "shop"]).await;
    assert!(failed.err.contains("the release command") && failed.err.contains("no database"), "{failed:?}");
    assert!(failed.err.contains("v2 serves as before"), "{failed:?}");
    let releases = node.cli_json(&["releases", "--app", "shop"]).await;
    let statuses: Vec<&str> =
        releases.as_array().unwrap().iter().map(|release| release["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["failed", "serving", "served"], "{releases}");
    let shown = node.cli(&["releases", "--app", "shop"]).await.out;
    assert!(shown.lines().any(|line| line.starts_with("v3") && line.contains("failed")), "{shown}");

    let other = App::new(&node, "other", &[("Procfile", "web: exit 3\n")]);
    let failed = node.cli(&["deploy", other.folder.to_str().unwrap(), "--app", "other"]).await;
    assert!(failed.err.contains("nothing serves: no deployment of this app has succeeded yet"), "{failed:?}");
    let cleared = node.cli_json(&["cache", "clear", "--app", "shop"]).await;
    assert_eq!(cleared["cleared"], true);
    node.finish().await;
}

#[tokio::test]
async fn a_failed_verb_prints_one_document_with_json() {
    let node = Node::start().await;
    let app = App::new(&node, "boxed", &[("Dockerfile", "FROM scratch\n")]);
    let failed = node.cli(&["deploy", app.folder.to_str().unwrap(), "--app", "boxed", "--json"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let document = failed.json();
    for field in ["id", "status", "url"] {
        assert!(document[field].is_string(), "{field}: {document}");
    }
    assert!(document["error"]["message"].as_str().unwrap().contains("Dockerfile"), "{document}");
    let folder = app.folder.to_str().unwrap();
    for (arguments, status, code) in [
        (&["rollback", "v99", "--app", "boxed"][..], 1, "conflict"),
        (&["rollback", "--app", "nosuch"], 1, "failed"),
        (&["deploy", "/no/such/folder"], 2, "usage"),
        (&["deploy", folder, "--app", "Bad_Name"], 1, "invalid"),
        (&["create", "Bad_Name"], 1, "invalid"),
        (&["create", "boxed"], 1, "conflict"),
        (&["scale", "web"], 2, "usage"),
        (&["no-such-verb"], 2, "usage"),
        (&["destroy", "--app", "boxed"], 2, "usage"),
        (&["config", "--config", "/no/such/file"], 2, "usage"),
    ] {
        let ran = node.cli(&[arguments, &["--json"]].concat()).await;
        assert_eq!(ran.code, Some(status), "{arguments:?}: {ran:?}");
        assert!(ran.err.starts_with("error: "), "{arguments:?}: {ran:?}");
        let error = &ran.json()["error"];
        assert_eq!(error["code"], code, "{arguments:?}: {ran:?}");
        assert!(ran.err.contains(error["message"].as_str().unwrap()), "{arguments:?}: {ran:?}");
    }
    let refused = node.cli(&["create", "Bad_Name", "--json"]).await.json();
    assert!(refused["error"]["request_id"].is_string(), "{refused}");
    node.finish().await;
}

#[tokio::test]
async fn a_deploy_tells_its_steps_and_ends_with_the_url() {
    let node = Node::start().await;
    let app = App::web(&node, "shop", "one");
    // Without --app the folder's name is the app's.
    let ran = node.cli(&["deploy", app.folder.to_str().unwrap()]).await;
    assert!(ran.success(), "{ran:?}");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with("-----> Created the app shop"), "{ran:?}");
    assert!(lines.iter().filter(|line| line.starts_with("-----> ")).count() > 3, "{ran:?}");
    assert_eq!(lines.last().unwrap().trim(), format!("http://shop.localhost:{}", node.port), "{ran:?}");
    assert!(ran.err.is_empty() && !ran.out.contains('\u{1b}'), "{ran:?}");
    node.finish().await;
}

#[tokio::test]
async fn logs_are_followed_as_they_are_written_through_a_crash_of_the_node() {
    let mut node = Node::start().await;
    let mut child = {
        let app = App::web(&node, "chatty", "one");
        app.deploy().await;
        node.cli_child(&["logs", "-f", "--app", "chatty"])
    };
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async |text: &str| loop {
        let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("no line with {text:?}")).unwrap().expect("the follower goes on");
        if line.contains(text) {
            return line;
        }
    };
    assert!(next("version one listens").await.contains("web.1"));
    {
        let app = App::new(&node, "chatty", &[]);
        app.set_version("two");
        app.write("Procfile", "web: python3 app.py\n");
        app.deploy().await;
    }
    next("version two listens").await;
    node.kill().await;
    node.start_again().await;
    next("version two listens").await;
    child.kill().await.unwrap();
    node.finish().await;
}

#[tokio::test]
async fn a_person_signs_in_by_password_and_by_key_and_out_again() {
    let node = Node::start().await;
    let admin = node.admin().await;
    let url = node.announced["url"].as_str().unwrap();
    let wrong = node.cli_elsewhere(&["login", url], "admin@example.com\nwrong password\n").await;
    assert_eq!(wrong.code, Some(3), "{wrong:?}");
    let input = format!("admin@example.com\n{PASSWORD}\n");
    let signed_in = node.cli_elsewhere(&["login", url, "--name", "here"], &input).await;
    assert!(signed_in.success(), "{signed_in:?}");
    let me = node.cli_elsewhere(&["whoami", "--json", "--context", "here"], "").await;
    assert_eq!(me.json()["account"]["email"], "admin@example.com");

    let key = admin.post("/auth/api-keys", json!({ "name": "ci", "scopes": ["project:read"] })).await.ok();
    let secret = key["secret"].as_str().unwrap();
    let by_key = node.cli_elsewhere(&["login", url, "--name", "ci", "--token", "-"], &format!("{secret}\n")).await;
    assert!(by_key.success(), "{by_key:?}");
    let projects = node.cli_elsewhere(&["projects", "--context", "ci"], "").await;
    assert!(projects.success(), "{projects:?}");
    let refused = node.cli_elsewhere(&["create", "x", "--context", "ci"], "").await;
    assert_eq!(refused.code, Some(1), "{refused:?}");

    // An access token that is no longer good is renewed without a word, and its successor is kept.
    let saved = node.home().join(".config/callboard/contexts.toml");
    let contexts = std::fs::read_to_string(&saved).unwrap();
    let old = contexts.lines().find(|line| line.starts_with("access_token = \"ey")).unwrap();
    std::fs::write(&saved, contexts.replace(old, "access_token = \"stale\"")).unwrap();
    for _ in 0..2 {
        let renewed = node.cli_elsewhere(&["whoami", "--context", "here"], "").await;
        assert!(renewed.success() && renewed.err.is_empty(), "{renewed:?}");
    }
    assert!(!std::fs::read_to_string(&saved).unwrap().contains("stale"));

    let variables = [("CALLBOARD_URL", url), ("CALLBOARD_TOKEN", secret)];
    let by_variables = node.cli_with(&["projects", "--json"], &variables).await;
    assert_eq!(by_variables.json(), json!([]));

    assert!(node.cli_elsewhere(&["logout", "--context", "here"], "").await.success());
    assert_eq!(node.cli_elsewhere(&["whoami", "--context", "here"], "").await.code, Some(2));
    assert_eq!(admin.get("/auth/sessions").await.ok().as_array().unwrap().len(), 1);
    node.finish().await;
}

/// What the saved contexts hold by which nodes know this device: account and token.
fn devices(node: &Node) -> Vec<(String, String)> {
    use std::os::unix::fs::PermissionsExt;
    let saved = node.home().join(".config/callboard/contexts.toml");
    assert_eq!(std::fs::metadata(&saved).unwrap().permissions().mode() & 0o777, 0o600);
    let saved: toml::Table = std::fs::read_to_string(&saved).unwrap().parse().unwrap();
    let text = |device: &toml::Value, key: &str| device[key].as_str().unwrap().to_owned();
    let devices = saved.get("devices").and_then(toml::Value::as_array).into_iter().flatten();
    devices.map(|device| (text(device, "email"), text(device, "token"))).collect()
}

#[tokio::test]
async fn a_device_that_has_signed_in_is_known_to_the_account_the_next_time() {
    let node = Node::start().await;
    node.admin().await;
    node.user("bob").await;
    let url = node.announced["url"].as_str().unwrap();
    let sign_in = async |email: &str| {
        let input = format!("{email}\n{PASSWORD}\n");
        let signed_in = node.cli_elsewhere(&["login", url, "--name", "here"], &input).await;
        assert!(signed_in.success(), "{signed_in:?}");
        assert!(!format!("{signed_in:?}").contains("device"), "{signed_in:?}");
        devices(&node)
    };
    let first = sign_in("admin@example.com").await;
    assert_eq!(first.len(), 1, "{first:?}");
    // A device that shows what it was given is given the same again, and any other one a new one.
    assert_eq!(sign_in("admin@example.com").await, first);
    assert!(node.cli_elsewhere(&["logout", "--context", "here"], "").await.success());
    assert_eq!(devices(&node), first, "it is no part of the session");
    assert_eq!(sign_in("Admin@example.com").await[0].1, first[0].1);
    let both = sign_in("bob@example.com").await;
    assert!(both.len() == 2 && both[0].1 != both[1].1, "{both:?}");
    node.finish().await;
}

#[tokio::test]
async fn the_exit_status_says_what_is_wrong() {
    let mut node = Node::start().await;
    let code = async |arguments: &[&str]| node.cli(arguments).await.code;
    assert_eq!(code(&["deploy", "/no/such/folder"]).await, Some(2));
    assert_eq!(node.cli_json(&["projects"]).await, json!([]), "what can't be sent makes no app");
    for address in
        ["file:///etc", "https://user:password@example.com/a.git", "ssh://example.com/a", "git@example.com:a"]
    {
        assert_eq!(code(&["deploy", address]).await, Some(2), "{address}");
    }
    assert_eq!(node.cli_json(&["projects"]).await, json!([]), "nor does an address that no node takes");
    assert_eq!(code(&["scale", "web"]).await, Some(2));
    assert_eq!(code(&["no-such-verb"]).await, Some(2));
    assert_eq!(code(&["ps", "--app", "nothing"]).await, Some(1));
    assert_eq!(code(&["completions", "bash"]).await, Some(0));
    let nowhere = node.cli_elsewhere(&["projects"], "").await;
    assert_eq!(nowhere.code, Some(3), "{nowhere:?}");
    assert!(nowhere.err.contains("callboard dev"), "{nowhere:?}");
    node.stop().await;
    let gone = node.cli(&["projects"]).await;
    assert_eq!(gone.code, Some(4), "{gone:?}");
    assert!(gone.out.is_empty() && gone.err.starts_with("error: "), "{gone:?}");
    node.finish().await;
}

#[tokio::test]
async fn the_doctor_sees_the_node_that_runs_and_a_key_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let node = Node::start().await;
    let healthy = node.cli(&["doctor"]).await;
    assert!(healthy.success() && healthy.out.contains("runs at"), "{healthy:?}");
    let key = node.data().join("master.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ill = node.cli(&["doctor", "--json"]).await;
    assert_eq!(ill.code, Some(1), "{ill:?}");
    let findings = ill.json();
    let problem = findings.as_array().unwrap().iter().find(|finding| finding["level"] == "problem").unwrap();
    assert!(problem["mend"].as_str().unwrap().starts_with("chmod 600"), "{problem}");
    node.finish().await;
}

#[tokio::test]
async fn a_deploy_that_is_interrupted_goes_on_without_its_watcher() {
    let node = Node::start().await;
    let app = App::web(&node, "shop", "one");
    let operator = node.operator();
    let project = operator.create_project("shop").await;
    // However slow the machine is, the build is still under way when its watcher goes.
    let go = node.scratch("flags").join("go");
    let build = format!("echo begun; until test -e {}; do sleep 0.1; done", go.display());
    let config = json!({ "config": { "build_command": build } });
    operator.put(&format!("/projects/{project}/build-config"), config).await.ok();
    let child = node.cli_child(&["deploy", app.folder.to_str().unwrap(), "--app", "shop"]);
    eventually("the build runs", || async {
        let log = node.cli(&["build-log", "--app", "shop"]).await;
        log.out.lines().any(|line| line.trim() == "begun").then_some(())
    })
    .await;
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGINT).unwrap();
    let ended = child.wait_with_output().await.unwrap();
    assert_eq!(ended.status.code(), Some(130));
    assert!(String::from_utf8(ended.stderr).unwrap().contains("callboard cancel"));
    std::fs::write(&go, "").unwrap();
    let followed = node.cli(&["build-log", "--follow", "--app", "shop"]).await;
    assert!(followed.success(), "{followed:?}");
    assert_eq!(app.version().await, "one");
    node.finish().await;
}
