//! Orphans of a killed node.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command as Run, Stdio},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use uuid::Uuid;

use super::{Bench, Record, until};
use crate::{
    logs::output::LineSink,
    process::{Launcher, named, process, trampoline::tests::test_launcher},
    runtime::{Orphan, Runtime as _},
};

/// The programs of the node to be killed: one ignores SIGTERM, one leaves its session, and one drops every mark.
const LEAVES: &str = "trap '' TERM; sleep 611 & setsid sleep 612 & (env -i setsid sh -c 'sleep 613 & echo \"$!\" > pid' &); \
                      sleep 614";

/// A node that is killed: a copy of this test binary. It runs no destructor, and its children outlive it.
struct Killed {
    node: Child,
    folder: PathBuf,
}

impl Killed {
    async fn start(bench: &Bench) -> Self {
        let node = Run::new(std::env::current_exe().unwrap())
            .args(["--exact", "runtime::process::tests::orphans::node_to_be_killed", "--test-threads=1"])
            .env("ORPHANS_IN", bench.folder.path())
            .env("ORPHANS_OF", &bench.node)
            .env("ORPHANS_CGROUPS", (!bench.runtime.settings.launcher.cgroups.is_none()).to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let killed = Self { node, folder: bench.folder.path().join("release") };
        until(|| bench.running().len() == 4 && killed.unmarked().is_some()).await;
        killed
    }

    /// The pid of the program without a mark.
    fn unmarked(&self) -> Option<i32> {
        fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok()
    }

    fn kill(&mut self) {
        self.node.kill().unwrap();
        assert_eq!(self.node.wait().unwrap().signal(), Some(9));
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.node.kill());
        drop(self.node.wait());
    }
}

/// Whether a process runs; a zombie does not.
fn runs(pid: i32) -> bool {
    process(pid).is_some_and(|process| !process.is_zombie)
}

#[tokio::test]
async fn what_a_killed_node_leaves_ends_without_its_next_start() {
    for change in [|launcher| launcher, Launcher::with_cgroups] {
        let bench = Bench::with_launcher(change);
        let mut killed = Killed::start(&bench).await;
        let unmarked = killed.unmarked().unwrap();
        assert!(runs(unmarked));
        killed.kill();
        until(|| named(&bench.node).is_empty() && !runs(unmarked)).await;
        // Its folders and records stay for the next start.
        assert_eq!(bench.runtime.end_orphans().await, []);
        bench.assert_clean();
    }
}

#[tokio::test]
async fn what_is_left_is_ended_by_the_next_start_at_once_and_nothing_else_is() {
    for change in [|launcher| launcher, Launcher::with_cgroups] {
        let bench = Bench::with_launcher(change);
        let mut killed = Killed::start(&bench).await;
        let unmarked = killed.unmarked().unwrap();
        let running = bench.start(bench.worker("exec sleep 600")).await.unwrap();
        // Together with its reapers, as when everything of the user's is killed.
        let reapers: Vec<i32> = named(&bench.node)
            .into_iter()
            .filter(|(_, marks)| marks.is_ours && marks.id != running.id().0)
            .map(|(process, _)| process.pid)
            .collect();
        killed.kill();
        for reaper in reapers {
            kill(Pid::from_raw(reaper), Signal::SIGKILL).unwrap();
        }
        let orphans = bench.runtime.end_orphans().await;
        assert!(orphans.iter().map(|orphan| orphan.processes).sum::<usize>() >= 2, "{orphans:?}");
        let left: Vec<Uuid> = named(&bench.node).into_iter().map(|(_, marks)| marks.id).collect();
        assert!(left.iter().all(|id| *id == running.id().0), "what this node has started is no orphan");
        assert!(!left.is_empty() && running.exit().is_none());
        assert_eq!(bench.runtime.end_orphans().await, []);
        // Without its reaper only a control group finds this one.
        if bench.runtime.settings.launcher.cgroups.is_none() {
            let _ = kill(Pid::from_raw(unmarked), Signal::SIGKILL);
        }
        until(|| !runs(unmarked)).await;
        running.stop(Duration::from_secs(1)).await;
        bench.assert_clean();
    }
}

#[tokio::test]
async fn an_orphan_that_hides_its_environment_is_found_by_its_record() {
    let bench = Bench::new();
    let mut child = Run::new("sleep").arg("617").env_clear().spawn().unwrap();
    let process = process(i32::try_from(child.id()).unwrap()).unwrap();
    let (id, state) = (Uuid::now_v7(), bench.folder.path().join("state"));
    Record::write(&state, id, process.pid, process.start_time).unwrap();
    // A record whose pid another process has by now.
    Record::write(&state, Uuid::now_v7(), i32::try_from(std::process::id()).unwrap(), 1).unwrap();
    let orphans = bench.runtime.end_orphans().await;
    assert_eq!(orphans, [Orphan { id, processes: 1 }]);
    child.wait().unwrap();
    bench.assert_clean();
}

/// The node that the other tests kill; nothing when it runs as a test.
#[tokio::test]
async fn node_to_be_killed() {
    let (Ok(folder), Ok(node)) = (std::env::var("ORPHANS_IN"), std::env::var("ORPHANS_OF")) else { return };
    let launcher = Launcher::new(test_launcher(), node.clone());
    let cgroups = std::env::var("ORPHANS_CGROUPS").is_ok_and(|value| value == "true");
    let launcher = if cgroups { launcher.with_cgroups() } else { launcher };
    let bench = Bench {
        // Inside the folder of the test, which removes it: this process is killed.
        folder: tempfile::tempdir_in(&folder).unwrap(),
        runtime: Bench::runtime(Path::new(&folder), launcher),
        node,
        lines: Arc::default(),
    };
    let mut spec = bench.worker(LEAVES);
    spec.release = Path::new(&folder).join("release");
    let _instance = bench.runtime.spawn(spec, LineSink::none()).await.unwrap();
    std::future::pending::<()>().await;
}
