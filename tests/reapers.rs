//! Somebody signals the process that looks after a program: nothing of the program goes on, and what is told of it is true.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{App, Node, SILENT, answered, processes};

/// Leaves its parent, its session and its environment.
const RUNAWAY: &str = "(env -i setsid /bin/sh -c ': runaway; while :; do /bin/sleep 1; done' &)\n";

/// The process that looks after another one.
fn reaper_of(mut pid: i32) -> i32 {
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // The name in parentheses may hold anything.
        pid = stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        assert!(pid > 1, "it has no reaper");
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        if command.split(|byte| *byte == 0).nth(1) == Some(b"launch") {
            return pid;
        }
    }
}

/// The only process of the node whose command line has this in it.
async fn process(node: &Node, text: &str) -> i32 {
    answered(text, || async {
        let found: Vec<i32> =
            node.running().iter().filter(|process| process.command.contains(text)).map(|process| process.pid).collect();
        match found[..] {
            [pid] => Ok(Some(pid)),
            _ => Err(format!("{found:?}")),
        }
    })
    .await
}

/// Waits until it has ended, and somebody has taken note of that.
async fn gone(pid: i32) {
    answered("it is gone", || async { Ok((!fs::exists(format!("/proc/{pid}")).unwrap()).then_some(())) }).await;
}

fn runaway<'a>(node: &'a Node, name: &str) -> App<'a> {
    let start = format!("{RUNAWAY}exec python3 app.py\n");
    App::new(node, name, &[("Procfile", "web: sh start.sh\n"), ("start.sh", &start), ("app.py", SILENT)])
}

#[tokio::test]
async fn an_app_whose_reaper_was_killed_ends_with_all_that_it_has_started_and_runs_again() {
    let node = Node::start().await;
    let other = App::web(&node, "other", "one");
    other.deploy().await;
    let app = runaway(&node, "shop");
    app.deploy().await;
    let (pid, left) = (app.text("/pid").await, process(&node, ": runaway;").await);
    let reaper = reaper_of(pid.parse().unwrap());
    assert_eq!(reaper_of(left), reaper);

    // What a reaper can hold back is for nobody.
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGALRM] {
        processes::signal(reaper, signal);
    }
    assert_eq!(app.text("/pid").await, pid);
    let [instance] = &app.settle("web", 1).await[..] else { panic!("one instance") };
    assert_eq!(instance["restarts"], 0, "{instance}");

    processes::signal(reaper, Signal::SIGKILL);
    gone(left).await;
    let again = answered("another instance of it", || async {
        let healthy = app.healthy("web").await?;
        Ok(healthy.into_iter().find(|instance| instance["restarts"] == 1))
    })
    .await;
    let why = again["last_exit"].as_str().unwrap();
    assert!(why.contains("was lost ") && why.contains("the process that supervises it was killed"), "{why}");
    assert_ne!(app.text("/pid").await, pid);
    assert_eq!(other.settle("web", 1).await[0]["restarts"], 0);
    node.finish().await;
}

#[tokio::test]
async fn a_build_whose_reaper_was_killed_fails_and_says_so_and_the_app_serves_on() {
    let node = Node::start().await;
    let operator = node.operator();
    let app = App::silent(&node, "shop");
    app.deploy().await;
    let pid = app.text("/pid").await;
    let config = json!({ "config": { "build_command": "sh build.sh" } });
    operator.put(&format!("/projects/{}/build-config", operator.project("shop").await), config).await.ok();
    app.write("build.sh", &format!("{RUNAWAY}echo begun\nsleep 600\n"));
    let begun = app.begin_deploy().await;
    let id = begun["id"].as_str().unwrap();
    app.build_says(id, "begun").await;
    let left = process(&node, ": runaway;").await;
    processes::signal(reaper_of(left), Signal::SIGKILL);
    gone(left).await;
    let ended = answered("the deployment ends", || async {
        let deployment = operator.look(&format!("/deployments/{id}")).await?;
        Ok(deployment["finished_at"].is_string().then_some(deployment))
    })
    .await;
    assert_eq!(ended["status"], "failed", "{ended}");
    let error = ended["error"].as_str().unwrap();
    assert!(error.contains("the process that supervises it was killed"), "{error}");
    assert_eq!(app.text("/pid").await, pid);
    node.finish().await;
}
