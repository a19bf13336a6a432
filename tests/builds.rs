//! What builds leave, and that their node looks at no more than that.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use serde_json::json;

use crate::harness::{App, Node, answered};

/// The name of an app, its folder in the source, and a build that puts a link to its node's data folder there or above.
const ATTEMPTS: [(&str, &str, &str); 2] = [
    ("itself", "app", r#"mv ../app ../gone && ln -s "$DATA" ../app"#),
    ("above", "upper/databases", r#"mv ../../upper ../../gone && ln -s "$DATA" ../../upper"#),
];

/// The releases that a node has stored, unpacked.
fn releases(node: &Node) -> Vec<Vec<u8>> {
    let folders = [node.data().join("objects/releases"), node.data().with_file_name("objects").join("releases")];
    let files =
        folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().map(|entry| entry.unwrap().path());
    files.map(|file| unpacked(&file).unwrap()).collect()
}

fn unpacked(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(File::open(file)?).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[tokio::test]
async fn a_build_that_puts_links_in_the_place_of_folders_gets_nothing_of_its_node_into_a_release() {
    let node = Node::start().await;
    let operator = node.operator();
    let secrets = ["master.key", "cli.json"].map(|name| fs::read(node.data().join(name)).unwrap());
    let database = b"SQLite format 3".to_vec();
    for (name, root, command) in ATTEMPTS {
        let project = operator.create_project(name).await;
        let command = format!("DATA=${{PWD%/deploy/work/*}} && test -d \"$DATA/deploy\" && {command}");
        let config = json!({ "root": root, "build_command": command, "start_command": "sleep 1000" });
        operator.put(&format!("/projects/{project}/build-config"), json!({ "config": config })).await.ok();
        let app = App::new(&node, name, &[(&format!("{root}/file"), "x")]);
        let begun = app.begin_deploy().await;
        let deployment = answered("the deployment ends", || async {
            let deployment = operator.look(&format!("/deployments/{}", begun["id"].as_str().unwrap())).await?;
            Ok(["failed", "completed"].iter().any(|status| deployment["status"] == *status).then_some(deployment))
        })
        .await;
        for release in releases(&node) {
            for secret in secrets.iter().chain([&database]) {
                let held = release.windows(secret.len()).any(|part| part == secret.as_slice());
                assert!(!held, "{name}: a release holds {}", String::from_utf8_lossy(secret));
            }
        }
        assert_eq!(deployment["status"], "failed", "{deployment}");
        let error = deployment["error"].as_str().unwrap();
        assert!(error.starts_with(&format!("`{root}` can't be packed")), "{error}");
    }
    node.finish().await;
}
