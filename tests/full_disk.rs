//! A node whose disk has no room left, and then has some again.

use std::{
    fs::File,
    io::{ErrorKind, Write},
    path::Path,
    time::Duration,
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Api, Node, answered_within, mounts, within};

/// Takes all the room that is left.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [64 * 1024, 4096, 1] {
        loop {
            match file.write_all(&vec![7; size]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

async fn disk(api: &Api) -> Value {
    let answer = api.send(api.raw(Method::GET, "/ready")).await;
    assert_eq!(answer.status, 200, "reads and apps go on: {}", answer.text);
    answer.body["disk"].clone()
}

/// Something that is written in each domain, and by the gateway itself.
async fn write(api: &Api, name: &str) -> [(StatusCode, String); 4] {
    let keyed = api.request(Method::POST, "/auth/api-keys").header("idempotency-key", name);
    let keyed = keyed.json(&json!({ "name": name, "scopes": ["project:read"] }));
    [
        api.post("/projects", json!({ "name": name })).await,
        api.post("/organizations", json!({ "name": name })).await,
        api.post("/auth/api-keys", json!({ "name": name, "scopes": ["project:read"] })).await,
        api.send(keyed).await,
    ]
    .map(|answer| (answer.status, answer.text))
}

#[tokio::test]
async fn a_node_whose_disk_was_full_works_again_when_there_is_room() {
    if !mounts::are_own("full_disk::a_node_whose_disk_was_full_works_again_when_there_is_room") {
        return;
    }
    let node = Node::start_on(|data| mounts::cover(data, 30)).await;
    let (admin, filling) = (node.admin().await, node.data().join("filling"));
    for (status, text) in write(&admin, "before").await {
        assert!(status.is_success(), "{text}");
    }
    for outage in 1..=2 {
        let before = node.log().lines().count();
        fill(&filling);
        // What a database has written and copied back is room for a few writes more.
        answered_within(Duration::from_secs(60), "nothing can be written", || async {
            let written = write(&admin, &format!("on-{}", uuid::Uuid::now_v7().simple())).await;
            let refused = written.iter().all(|(status, _)| *status == 503);
            if refused { Ok(Some(())) } else { Err(format!("{written:?}")) }
        })
        .await;
        // More than any breaker needs to judge.
        for number in 0..30 {
            for (status, text) in write(&admin, &format!("full-{number}")).await {
                assert_eq!(status, 503, "{text}");
                assert!(text.contains("the disk is full"), "{text}");
            }
            admin.get("/projects").await.ok();
            admin.get("/organizations").await.ok();
        }
        within(Duration::from_secs(10), "the node says so", || async { (disk(&admin).await == "full").then_some(()) })
            .await;
        let nodes = node.cli(&["nodes"]).await;
        assert!(nodes.out.contains("impaired") && nodes.out.contains("its disk is full"), "{nodes:?}");
        let doctor = node.cli(&["doctor"]).await;
        assert!(!doctor.success() && doctor.out.contains("is full: 0 MiB of 30 MiB"), "{doctor:?}");

        std::fs::remove_file(&filling).unwrap();
        for (status, text) in write(&admin, &format!("after-{outage}")).await {
            assert!(status.is_success(), "it does not write again: {text}");
        }
        within(Duration::from_secs(20), "the node says that it is well", || async {
            (disk(&admin).await == "ok").then_some(())
        })
        .await;
        let log = node.log();
        // What was done before and after is told as ever.
        let told: Vec<&str> = log.lines().skip(before).filter(|line| !line.contains(" INFO ")).collect();
        assert_eq!(told.len(), 2, "one line when it begins, and one when it is over: {told:#?}");
        assert!(told[0].contains("is full") && told[1].contains("has room again"), "{told:#?}");
    }
    finish(node).await;
}

#[tokio::test]
async fn a_build_that_meets_a_full_disk_is_told_so_and_no_other_is_begun_until_there_is_room() {
    if !mounts::are_own(
        "full_disk::a_build_that_meets_a_full_disk_is_told_so_and_no_other_is_begun_until_there_is_room",
    ) {
        return;
    }
    let node = Node::start_on(|data| mounts::cover(data, 60)).await;
    let (admin, filling) = (node.admin().await, node.data().join("filling"));
    let app = node.data().parent().unwrap().join("greedy");
    std::fs::create_dir(&app).unwrap();
    let package = r#"{"name": "greedy", "scripts": {"build": "head -c 200000000 /dev/zero > big", "start": "true"}}"#;
    std::fs::write(app.join("package.json"), package).unwrap();
    let ran = node.cli(&["deploy", app.to_str().unwrap()]).await;
    assert!(!ran.success(), "{ran:?}");
    assert!(format!("{}{}", ran.out, ran.err).contains("the disk of this node is full"), "{ran:?}");

    // What the build has left is gone: a small one is made. One that comes while there is no room waits for it.
    let site = node.data().parent().unwrap().join("small");
    std::fs::create_dir(&site).unwrap();
    std::fs::write(site.join("index.html"), "small").unwrap();
    within(Duration::from_secs(30), "there is room", || async { (disk(&admin).await == "ok").then_some(()) }).await;
    let ran = node.cli(&["deploy", site.to_str().unwrap()]).await;
    assert!(ran.success(), "{ran:?}");
    fill(&filling);
    within(Duration::from_secs(30), "there is none", || async { (disk(&admin).await == "full").then_some(()) }).await;
    std::fs::remove_file(&filling).unwrap();
    within(Duration::from_secs(30), "there is room", || async { (disk(&admin).await == "ok").then_some(()) }).await;
    let ran = node.cli(&["deploy", site.to_str().unwrap()]).await;
    assert!(ran.success(), "it builds again: {ran:?}");
    finish(node).await;
}

async fn finish(mut node: Node) {
    let (status, _) = node.stop().await;
    assert!(status.success(), "{}", node.log());
    mounts::uncover(&node.data());
    node.finish().await;
}
