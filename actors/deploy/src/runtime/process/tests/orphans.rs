//! What a killed node left.

use std::{fs, path::Path, process::Command as Run, sync::Arc, time::Duration};

use tokio::time::sleep;
use uuid::Uuid;

use super::{Bench, Record, until};
use crate::{
    limits::tests::test_launcher,
    output::LineSink,
    process::{Launcher, named, process},
    runtime::{Orphan, Runtime as _},
};

#[tokio::test]
async fn what_a_killed_node_left_is_found_and_ended() {
    for change in [|launcher| launcher, Launcher::with_cgroups] {
        let bench = Bench::with_launcher(change);
        // A node that is killed runs no destructor: this child is the node, and its children outlive it.
        let mut node = orphan_maker(&bench);
        until(|| named(&bench.node).len() >= 3).await;
        node.kill().unwrap();
        node.wait().unwrap();
        assert_eq!(named(&bench.node).len(), 3, "they outlive their node");
        let running = bench.start(bench.worker("exec sleep 600")).await.unwrap();
        let orphans = bench.runtime.end_orphans().await;
        assert_eq!(orphans.iter().map(|orphan| orphan.processes).sum::<usize>(), 3, "{orphans:?}");
        let left: Vec<Uuid> = named(&bench.node).into_iter().map(|(_, id)| id).collect();
        assert_eq!(left, [running.id().0], "what this node has started is no orphan");
        assert_eq!(bench.runtime.end_orphans().await, []);
        running.stop(Duration::from_secs(1)).await;
        bench.assert_clean();
    }
}

#[tokio::test]
async fn an_orphan_that_hides_its_environment_is_found_by_its_record() {
    let bench = Bench::new();
    let mut child = Run::new("sleep").arg("617").env_clear().spawn().unwrap();
    let process = process(i32::try_from(child.id()).unwrap()).unwrap();
    let id = Uuid::now_v7();
    std::mem::forget(Record::write(&bench.folder.path().join("state"), id, process.pid, process.start_time).unwrap());
    // A record whose process is another one by now.
    let innocent = Record::write(
        &bench.folder.path().join("state"),
        Uuid::now_v7(),
        i32::try_from(std::process::id()).unwrap(),
        1,
    )
    .unwrap();
    std::mem::forget(innocent);
    let orphans = bench.runtime.end_orphans().await;
    assert_eq!(orphans, [Orphan { id, processes: 1 }]);
    child.wait().unwrap();
    bench.assert_clean();
}

/// A copy of this test binary that starts an instance with children and then waits to be killed.
fn orphan_maker(bench: &Bench) -> std::process::Child {
    Run::new(std::env::current_exe().unwrap())
        .args(["--exact", "runtime::process::tests::orphans::orphan_maker_entry", "--nocapture"])
        .env("ORPHANS_IN", bench.folder.path())
        .env("ORPHANS_OF", &bench.node)
        .env("ORPHANS_CGROUPS", (!bench.runtime.settings.launcher.cgroups.is_none()).to_string())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn orphan_maker_entry() {
    let (Ok(folder), Ok(node)) = (std::env::var("ORPHANS_IN"), std::env::var("ORPHANS_OF")) else { return };
    let launcher = Launcher::new(test_launcher(), node.clone());
    let cgroups = std::env::var("ORPHANS_CGROUPS").is_ok_and(|value| value == "true");
    let launcher = if cgroups { launcher.with_cgroups() } else { launcher };
    let bench = Bench {
        // Inside the other's, which removes it: this process is killed.
        folder: tempfile::tempdir_in(&folder).unwrap(),
        runtime: Bench::runtime(Path::new(&folder), launcher),
        node,
        lines: Arc::default(),
    };
    fs::create_dir(bench.folder.path().join("release")).unwrap();
    let spec = bench.worker("trap '' PIPE; sleep 611 & setsid sleep 612 & exec sleep 613");
    let _instance = bench.runtime.spawn(spec, LineSink::none()).await.unwrap();
    sleep(Duration::from_secs(60)).await;
}
