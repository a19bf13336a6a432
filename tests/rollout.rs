//! What happens to an app while people use it.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{App, Node, Visitors, answered, eventually};

fn pid(instance: &Value) -> i32 {
    i32::try_from(instance["pid"].as_i64().unwrap()).unwrap()
}

#[tokio::test]
async fn nobody_sees_a_failure_during_rollout_scale_restart_and_rollback() {
    let node = Node::start().await;
    let app = App::web(&node, "busy", "one");
    app.deploy().await;
    let visitors = Visitors::come(node.port, "busy");

    app.set_version("two");
    app.deploy().await;
    node.cli_json(&["scale", "web=3", "--app", "busy"]).await;
    app.settle("web", 3).await;
    node.cli_json(&["restart", "--app", "busy"]).await;
    app.settle("web", 3).await;
    node.cli_json(&["scale", "web=1", "--app", "busy"]).await;
    app.settle("web", 1).await;
    let back = node.cli_json(&["rollback", "--app", "busy"]).await;
    assert_eq!((&back["kind"], &back["status"]), (&json!("rollback"), &json!("completed")), "{back}");
    assert_eq!(app.version().await, "one");

    let seen = visitors.leave_content().await;
    assert_eq!(seen.versions, ["one", "two"].map(str::to_owned).into());
    node.finish().await;
}

#[tokio::test]
async fn a_killed_instance_comes_back_and_the_other_one_serves_meanwhile() {
    let node = Node::start().await;
    let app = App::web(&node, "sturdy", "one");
    app.deploy().await;
    node.cli_json(&["scale", "web=2", "--app", "sturdy"]).await;
    let before = app.settle("web", 2).await;
    let victim = pid(&before[0]);
    node.signal(victim, Signal::SIGKILL);
    let after = answered("the killed instance is replaced", || async {
        let now = app.healthy("web").await?;
        Ok((now.len() == 2 && now.iter().all(|instance| pid(instance) != victim)).then_some(now))
    })
    .await;
    assert!(after.iter().any(|instance| instance["restarts"] == 1 && instance["last_exit"].is_string()), "{after:?}");
    assert_eq!(app.version().await, "one");
    node.finish().await;
}

#[tokio::test]
async fn an_app_that_ends_by_itself_is_started_again() {
    let node = Node::start().await;
    let app = App::web(&node, "faint", "one");
    app.deploy().await;
    let before = pid(&app.settle("web", 1).await[0]);
    drop(app.ask("/exit").await);
    answered("the app answers again", || async {
        let now = app.healthy("web").await?;
        Ok(now.first().filter(|instance| pid(instance) != before).map(drop))
    })
    .await;
    assert_eq!(app.version().await, "one");
    node.finish().await;
}

#[tokio::test]
async fn a_failed_deploy_tells_the_apps_own_words_and_leaves_the_old_release_serving() {
    let node = Node::start().await;
    let app = App::web(&node, "shop", "one");
    app.deploy().await;
    let visitors = Visitors::come(node.port, "shop");

    app.write("app.py", "import sys\nprint('the till is broken', file=sys.stderr)\nsys.exit(7)\n");
    let folder = app.folder.to_str().unwrap();
    let failed = node.cli(&["deploy", folder, "--app", "shop"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.err.starts_with("error: "), "{failed:?}");
    assert!(failed.out.contains("the till is broken") || failed.err.contains("the till is broken"), "{failed:?}");
    let failed = node.cli(&["deploy", folder, "--app", "shop", "--json"]).await;
    assert_eq!((failed.code, &failed.json()["status"]), (Some(1), &json!("failed")), "{failed:?}");

    assert_eq!(app.version().await, "one");
    assert_eq!(visitors.leave_content().await.versions, ["one".to_owned()].into());
    let releases = node.cli_json(&["releases", "--app", "shop"]).await;
    let serving: Vec<&Value> =
        releases.as_array().unwrap().iter().filter(|release| release["current"] == true).collect();
    assert_eq!(serving.len(), 1);
    assert_eq!(serving[0]["version"], 1);
    node.finish().await;
}

#[tokio::test]
async fn a_misspelt_process_type_is_refused_and_once_forced_a_rollback_brings_the_site_back() {
    let node = Node::start().await;
    let app = App::web(&node, "shop", "one");
    app.deploy().await;
    node.cli_json(&["scale", "web=2", "--app", "shop"]).await;
    app.settle("web", 2).await;

    app.write("Procfile", "wbe: python3 app.py\n");
    let deploy = ["deploy", app.folder.to_str().unwrap(), "--app", "shop"];
    let refused = node.cli(&deploy).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for words in ["no process type web (2 wanted), only wbe", "--allow-missing"] {
        assert!(refused.err.contains(words), "{refused:?}");
    }
    assert_eq!(app.version().await, "one");

    let forced = node.cli(&[&deploy[..], &["--allow-missing"]].concat()).await;
    assert!(forced.success() && forced.out.contains("web=2 stays wanted"), "{forced:?}");
    assert_eq!(app.ps().await["formation"], json!({ "processes": { "wbe": 0 }, "missing": { "web": 2 } }));
    let told = eventually("nobody answers", || async {
        let answer = app.ask("/").await;
        (answer.status() == 503).then_some(answer)
    })
    .await;
    assert!(told.text().await.unwrap().contains("without a web process"));

    node.cli_json(&["rollback", "--app", "shop"]).await;
    app.settle("web", 2).await;
    assert_eq!(app.version().await, "one");
    node.finish().await;
}

#[tokio::test]
async fn a_build_that_is_cancelled_ends_and_another_can_begin() {
    let node = Node::start().await;
    let app = App::web(&node, "hasty", "one");
    app.deploy().await;
    let operator = node.operator();
    let project = operator.project("hasty").await;
    let path = format!("/projects/{project}/build-config");
    operator.put(&path, json!({ "config": { "build_command": "echo begun; sleep 600" } })).await.ok();

    let begun = app.begin_deploy().await;
    let id = begun["id"].as_str().unwrap();
    app.build_says(id, "begun").await;
    assert_eq!(app.begin_deploy_refused().await.code, Some(1));
    node.cli_json(&["cancel", "--app", "hasty"]).await;
    answered("the deployment has ended", || async {
        let deployment = operator.look(&format!("/deployments/{id}")).await?;
        Ok((deployment["status"] == "cancelled").then_some(()))
    })
    .await;
    eventually("the build's processes are gone", || async {
        (!node.running().iter().any(|process| process.command.contains("sleep"))).then_some(())
    })
    .await;

    operator.put(&path, json!({ "config": {} })).await.ok();
    app.set_version("two");
    app.deploy().await;
    assert_eq!(app.version().await, "two");
    node.finish().await;
}

#[tokio::test]
async fn an_app_that_never_listens_fails_within_its_grace() {
    let node = Node::start().await;
    let app = App::new(&node, "mute", &[("Procfile", "web: sleep 1000\n")]);
    let operator = node.operator();
    let project = operator.create_project("mute").await;
    let config = json!({ "config": { "health_check_grace_seconds": 2 } });
    operator.put(&format!("/projects/{project}/build-config"), config).await.ok();
    let failed = node.cli(&["deploy", app.folder.to_str().unwrap(), "--app", "mute"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.err.contains("PORT") || failed.err.contains("health"), "{failed:?}");
    eventually("nothing of it runs", || async { node.running().is_empty().then_some(()) }).await;
    node.finish().await;
}

#[tokio::test]
async fn an_app_that_ignores_sigterm_is_ended_all_the_same() {
    let node = Node::start().await;
    let app = App::web(&node, "stubborn", "one");
    app.write(
        "app.py",
        &std::fs::read_to_string(app.folder.join("app.py"))
            .unwrap()
            .replace("lambda *_: threading.Thread(target=server.shutdown).start()", "signal.SIG_IGN"),
    );
    app.deploy().await;
    node.cli_json(&["stop", "--app", "stubborn"]).await;
    eventually("nothing of it runs", || async { node.running().is_empty().then_some(()) }).await;
    node.finish().await;
}

#[tokio::test]
async fn what_an_app_has_forked_ends_with_it() {
    let node = Node::start().await;
    let app = App::web(&node, "fertile", "one");
    let fork =
        "import subprocess\nfor _ in range(5):\n    subprocess.Popen(['sleep', '1000'], start_new_session=True)\n";
    let source = std::fs::read_to_string(app.folder.join("app.py")).unwrap();
    app.write("app.py", &format!("{fork}{source}"));
    app.deploy().await;
    let sleeping = || node.running().iter().filter(|process| process.command.contains("sleep")).count();
    assert_eq!(sleeping(), 5, "{:?}", node.running());
    node.cli_json(&["stop", "--app", "fertile"]).await;
    eventually("nothing of it runs", || async { node.running().is_empty().then_some(()) }).await;
    node.finish().await;
}

#[tokio::test]
async fn a_stopped_app_tells_its_visitors_and_starts_again() {
    let node = Node::start().await;
    let app = App::web(&node, "calm", "one");
    app.deploy().await;
    let formation = node.cli_json(&["stop", "--app", "calm"]).await;
    assert_eq!(formation["processes"]["web"], 0);
    // The answer says what is wanted; whoever runs the app stops it then, on whatever node.
    let told = eventually("the app is stopped", || async {
        let answer = app.ask("/").await;
        (answer.status() == 503).then_some(answer)
    })
    .await;
    assert!(told.text().await.unwrap().contains("stopped"));
    node.cli_json(&["scale", "web=1", "--app", "calm"]).await;
    app.settle("web", 1).await;
    assert_eq!(app.version().await, "one");
    node.finish().await;
}

#[tokio::test]
async fn a_variable_applies_from_the_next_restart_on_and_a_secret_is_never_shown() {
    let node = Node::start().await;
    let app = App::web(&node, "polite", "one");
    app.deploy().await;
    assert!(app.text("/").await.starts_with("one - "));
    let refused = node.cli(&["env", "set", "PORT=80", "--app", "polite"]).await;
    assert!(refused.code == Some(1) && refused.err.contains("have the app listen on the port"), "{refused:?}");
    let set = node.cli(&["env", "set", "GREETING=hello", "--app", "polite"]).await;
    assert!(set.success() && !set.out.contains("hello"), "{set:?}");
    node.cli_json(&["env", "set", "OPEN=yes", "--plain", "--app", "polite"]).await;
    node.cli_json(&["restart", "--app", "polite"]).await;
    assert!(app.text("/").await.starts_with("one hello "));

    let listed = node.cli_json(&["env", "list", "--app", "polite"]).await;
    let of = |name: &str| listed["variables"].as_array().unwrap().iter().find(|v| v["name"] == name).unwrap().clone();
    assert_eq!((&of("GREETING")["value"], &of("GREETING")["secret"]), (&Value::Null, &json!(true)));
    assert_eq!((&of("OPEN")["value"], &of("OPEN")["secret"]), (&json!("yes"), &json!(false)));

    node.cli_json(&["env", "unset", "GREETING", "--app", "polite"]).await;
    node.cli_json(&["restart", "--app", "polite"]).await;
    assert!(app.text("/").await.starts_with("one - "));
    assert!(!node.log().contains("hello"));
    node.finish().await;
}

#[tokio::test]
async fn a_destroyed_app_leaves_nothing() {
    let node = Node::start().await;
    let app = App::web(&node, "brief", "one");
    app.deploy().await;
    let unasked = node.cli(&["destroy", "--app", "brief"]).await;
    assert_eq!(unasked.code, Some(2), "{unasked:?}");
    node.cli_json(&["destroy", "--app", "brief", "--yes"]).await;
    eventually("nothing of it runs", || async { node.running().is_empty().then_some(()) }).await;
    // Of several nodes, this one may have an older list of routes.
    eventually("nobody knows it", || async { (app.ask("/").await.status() == 404).then_some(()) }).await;
    assert_eq!(node.cli_json(&["projects"]).await, json!([]));
    app.deploy().await;
    assert_eq!(app.version().await, "one");
    node.finish().await;
}
