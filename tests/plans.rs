//! How an app is built: what is said before anything runs, and who decides.

use std::{fs, time::Instant};

use serde_json::Value;

use crate::harness::{App, Node};

/// A server that answers with a text.
fn server(text: &str) -> String {
    format!("require('http').createServer((q, r) => r.end('{text}')).listen(process.env.PORT)\n")
}

#[tokio::test]
async fn a_folders_plan_is_shown_without_a_node() {
    let node = Node::start_with(&["--no-sample"], &[]).await;
    let package = r#"{"private":true,"scripts":{"start":"ssg --serve","build":"make"}}"#;
    let files = [("package.json", package), (".gitignore", "dist\n"), ("dist/index.html", "left out of an upload")];
    let app = App::new(&node, "planned", &files);
    let folder = app.folder.to_str().unwrap();
    let shown = node.cli_elsewhere(&["plan", folder], "").await;
    assert!(shown.success(), "{shown:?}");
    for part in
        ["Node.js app detected", "`ssg --serve` is a server for developers", "$ npm run build", "static site in dist"]
    {
        assert!(shown.out.contains(part), "{part}: {shown:?}");
    }
    let plan = node.cli_elsewhere(&["plan", folder, "--json"], "").await.json();
    assert_eq!((plan["language"].as_str(), plan["publish"].as_str()), (Some("node"), Some("dist")));

    // What can't be done is refused in a moment, and by a node with the same sentence.
    app.write("callboard.toml", "biuld = 'make'\n[static]\nsingle_page = 1\n");
    let began = Instant::now();
    let refused = node.cli_elsewhere(&["plan", folder], "").await;
    assert_eq!((refused.code, began.elapsed().as_secs() < 5), (Some(1), true), "{refused:?}");
    let sentence = "callboard.toml can't be used: line 1: `biuld` is no setting; did you mean `build`?; line 3: \
                    `static.single_page` must be true or false";
    assert!(refused.err.contains(sentence), "{refused:?}");
    let deployed = node.cli(&["deploy", folder, "--app", "planned"]).await;
    assert!(deployed.err.contains(sentence), "{deployed:?}");
    node.finish().await;
}

#[tokio::test]
async fn the_owner_decides_before_the_file_and_the_file_before_detection() {
    let node = Node::start_with(&["--no-sample"], &[]).await;
    let [detected, chosen, owned] = ["detected", "chosen", "owned"].map(server);
    let files = [("package.json", "{}"), ("index.js", detected.as_str()), ("chosen.js", &chosen), ("owned.js", &owned)];
    let app = App::new(&node, "decided", &files);
    app.deploy().await;
    assert_eq!(app.text("/").await, "detected");
    app.write("callboard.toml", "start = 'node chosen.js'\n[health_check]\npath = '/up'\n");
    app.deploy().await;
    assert_eq!(app.text("/").await, "chosen");

    let config = |arguments: &[&str]| {
        let all: Vec<String> =
            ["build-config"].iter().chain(arguments).chain(&["--app", "decided"]).map(|a| (*a).to_owned()).collect();
        let node = &node;
        async move { node.cli_json(&all.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let set = config(&["set", "start=node owned.js", "versions.node=>=12"]).await;
    assert_eq!(set["start_command"], "node owned.js");
    app.deploy().await;
    assert_eq!(app.text("/").await, "owned");
    assert_eq!(config(&["show"]).await, set);
    // For one deployment alone.
    let folder = app.folder.to_str().unwrap();
    let once = ["deploy", folder, "--app", "decided", "--set", "start=node once.js", "--set", "memory_mib=200"];
    app.write("once.js", &server("once"));
    assert_eq!(node.cli_json(&once).await["status"], "completed");
    assert_eq!(app.text("/").await, "once");
    let wrong = node.cli(&["deploy", folder, "--app", "decided", "--set", "publish=../x"]).await;
    assert!(wrong.code == Some(2) && wrong.err.contains("publish must be a relative folder"), "{wrong:?}");
    let unset = config(&["unset", "start", "versions.node"]).await;
    assert_eq!((&unset["start_command"], unset.get("versions")), (&Value::Null, None));
    app.deploy().await;
    assert_eq!(app.text("/").await, "chosen");

    let wrong = node.cli(&["build-config", "set", "biuld=x", "--app", "decided"]).await;
    assert!(wrong.code == Some(2) && wrong.err.contains("biuld is no setting"), "{wrong:?}");
    let wrong = node.cli(&["build-config", "set", "root=../x", "--app", "decided"]).await;
    assert!(wrong.code == Some(1) && wrong.err.contains("root must be a relative folder"), "{wrong:?}");
    node.finish().await;
}

#[tokio::test]
async fn a_published_folder_is_served_and_a_server_for_developers_is_not() {
    let node = Node::start_with(&["--no-sample"], &[]).await;
    let package = r#"{"private":true,"scripts":{"start":"ssg --serve","build":"mkdir -p _site && cp page.html _site/index.html"}}"#;
    let app = App::new(&node, "made", &[("package.json", package), ("page.html", "<h1>page</h1>")]);
    app.deploy().await;
    assert_eq!(app.text("/").await, "<h1>page</h1>");
    fs::create_dir_all(app.folder.join("other")).unwrap();
    app.write("other/index.html", "other");
    app.write("callboard.toml", "publish = 'other'\n[static]\nsingle_page = true\n");
    app.deploy().await;
    assert_eq!(app.text("/").await, "other");
    node.finish().await;
}
