//! What of a folder is deployed.

use std::{path::Path, process::Command};

use reqwest::StatusCode;

use crate::harness::{App, Node};

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(folder)
        .args(["-c", "user.name=A", "-c", "user.email=a@example.com"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn what_git_lists_is_what_arrives() {
    let node = Node::start().await;
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 9\n", "0".repeat(64));
    let files = [
        (".gitignore", "*.map\n"),
        (".ignore", "shown/\n"),
        ("index.html", "home"),
        ("shown/page.html", "shown"),
        ("forced.map", "forced"),
        ("ignored.map", "ignored"),
        ("image.png", pointer.as_str()),
    ];
    let app = App::new(&node, "listed", &files);
    let root = &app.folder;
    git(root, &["init", "--quiet"]);
    git(root, &["add", "--all"]);
    git(root, &["add", "--force", "forced.map"]);
    git(root, &["commit", "--quiet", "--message", "files"]);
    app.write("new.txt", "new");
    app.write("nested/page.html", "nested");
    git(&root.join("nested"), &["init", "--quiet"]);
    let listed = git(root, &["ls-files", "--cached", "--others", "--exclude-standard"]);
    assert_eq!(listed.lines().count(), 8, "{listed}");

    let deployed = node.cli(&["deploy", root.to_str().unwrap(), "--app", "listed"]).await;
    assert!(deployed.success(), "{deployed:?}");
    for (file, text) in [
        ("/", "home"),
        ("/shown/page.html", "shown"),
        ("/forced.map", "forced"),
        ("/new.txt", "new"),
        ("/nested/page.html", "nested"),
    ] {
        assert_eq!(app.text(file).await, text, "{file}");
    }
    assert_eq!(app.ask("/ignored.map").await.status(), StatusCode::NOT_FOUND);
    // What is not what its owner may think is named.
    assert!(deployed.out.contains("`nested` is a repository of its own"), "{deployed:?}");
    assert!(deployed.out.contains("1 file is a pointer of Git LFS"), "{deployed:?}");
    assert!(deployed.out.contains("image.png"), "{deployed:?}");
    node.finish().await;
}
