//! Who may join: what every node must have in common, and an id that two processes use.

use std::{fs, path::Path, time::Duration};

use nix::sys::signal::Signal;

use crate::harness::{Node, Ran, cli, processes};

/// Starts a node that is to be refused, with these variables of its own.
async fn refused(node: &Node, data: &Path, own: &[(&str, &str)]) -> Ran {
    let key = node.data().join("master.key");
    let mut command = cli::program(&node.home());
    command.args(["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]);
    command.envs(node.environment()).env("CALLBOARD_MASTER_KEY_FILE", key).envs(own.iter().copied());
    let ran = tokio::time::timeout(Duration::from_secs(60), cli::finish(command, "")).await;
    let ran = ran.unwrap_or_else(|_| panic!("it was not refused: {own:?}"));
    assert_eq!(ran.code, Some(2), "{own:?}: {ran:?}");
    ran
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["node.id", "node.process", "master.key", "servers.json"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

#[tokio::test]
async fn a_node_that_differs_in_what_all_must_have_does_not_start_nor_does_a_copy_of_one() {
    let mut node = Node::start_cluster().await;
    let operator = node.operator();
    let own = node.scratch("stranger");
    const OTHER: &str = "YW5vdGhlciBrZXkgdGhhbiB0aGUgb3RoZXJzIGhhdmU=";
    let elsewhere = reqwest::Url::from_directory_path(node.scratch("elsewhere")).unwrap().to_string();
    for (variable, value, sentence) in [
        ("CALLBOARD_CLUSTER_KEY", OTHER, "CALLBOARD_CLUSTER_KEY is not the key of this cluster"),
        ("CALLBOARD_OBJECTS_URL", elsewhere.as_str(), "is not the one that has this cluster's sources"),
        ("CALLBOARD_BASE_DOMAIN", "apps.example", "CALLBOARD_BASE_DOMAIN (apps.example) is not what the nodes"),
    ] {
        let ran = refused(&node, &own, &[(variable, value)]).await;
        assert!(ran.err.contains(sentence) && ran.err.contains(variable) && !ran.err.contains(OTHER), "{ran:?}");
    }
    let mistaken = node.scratch("mistaken.key");
    let mistaken = mistaken.join("key");
    fs::write(&mistaken, OTHER).unwrap();
    fs::set_permissions(&mistaken, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let ran = refused(&node, &own, &[("CALLBOARD_MASTER_KEY_FILE", mistaken.to_str().unwrap())]).await;
    assert!(ran.err.contains("CALLBOARD_MASTER_KEY is not the key that the secrets"), "{ran:?}");
    assert_eq!(fs::read_dir(node.scratch("elsewhere")).unwrap().count(), 0, "nothing is left in a store of others");
    // A second way to the same store is the same store.
    let objects = node.environment().iter().find(|(name, _)| *name == "CALLBOARD_OBJECTS_URL").unwrap().1.to_owned();
    let link = node.scratch("links").join("objects");
    std::os::unix::fs::symlink(reqwest::Url::parse(&objects).unwrap().to_file_path().unwrap(), &link).unwrap();

    // A copy of a data folder while its node lives, and freezes for a moment.
    let (copied, original) = (node.scratch("copied"), node.member(1).pid());
    copy(&node.member(1).data(), &copied);
    processes::signal(original, Signal::SIGSTOP);
    let waking = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        processes::signal(original, Signal::SIGCONT);
    });
    let ran = refused(&node, &copied, &[]).await;
    waking.await.unwrap();
    assert!(ran.err.contains("is in use by another process, node node-b at http://127.0.0.1:"), "{ran:?}");
    assert!(ran.err.contains("remove node.id"), "{ran:?}");
    let nodes = operator.get("/cluster").await.ok();
    let report = nodes["nodes"].as_array().unwrap().iter().find(|report| report["name"] == "node-b").unwrap();
    assert_eq!((&report["state"], &report["incarnation"]), (&"up".into(), &1.into()), "the first is not touched");

    // Nobody can change it while others work with it, and everybody can once they do not.
    let serve = node.environment();
    let forget = ["fingerprints", "forget", "base-domain"];
    let ran = node.cli_with(&forget, &[serve.as_slice(), &[("CALLBOARD_MASTER_KEY", OTHER)]].concat()).await;
    assert!(ran.code == Some(1) && ran.err.contains("nodes of this cluster are up"), "{ran:?}");
    assert!(node.stop().await.0.success());
    let former = former(&node);
    node.set(&[
        ("CALLBOARD_CLUSTER_KEY_FORMER", &former),
        ("CALLBOARD_CLUSTER_KEY", OTHER),
        ("CALLBOARD_OBJECTS_URL", reqwest::Url::from_directory_path(&link).unwrap().as_str()),
    ]);
    node.start_member(2).await;
    node.member(2).operator().get("/auth/whoami").await.ok();
    node.finish().await;
}

fn former(node: &Node) -> String {
    node.environment().iter().find(|(name, _)| *name == "CALLBOARD_CLUSTER_KEY").unwrap().1.to_owned()
}
