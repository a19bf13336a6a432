//! A process beside the node that outlives it, to end what the node leaves running when it is killed.
//!
//! It waits for the end of a pipe whose other end is the node's alone, so that the kernel tells it of any death. Then
//! it ends the node's children as the next start of the node would: well before another node of a cluster takes the
//! apps over, so that no worker runs twice. A node that lives and does nothing (stopped, or cut off) it leaves alone.
//!
//! The next life of the node writes its own name into the guard's file before it starts any child. A guard reads the
//! file after it has looked for children and before it ends them: so those it ends are of the life that is over.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::{self, Record};
use crate::process::{CgroupFolders, Cgroups, Launcher};

/// The guard's file in the folder of the runtime's state.
const FILE: &str = "guard";
/// What children get to end after SIGTERM. Together with the looks less than the time after which nodes take over.
const GRACE: Duration = Duration::from_secs(2);
/// The waits before the looks for children: one that was just being started shows what it is only once it runs.
const LOOKS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(1)];
/// How long the next guard waits after one that ended.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a guard has to know of its node; the JSON is the verb's argument.
#[derive(Debug, Serialize, Deserialize)]
struct Watch {
    /// The token that the node's children carry.
    node: String,
    /// Of the node's, the one that the guard is for.
    life: Uuid,
    state: PathBuf,
    cgroups: CgroupFolders,
}

impl Watch {
    /// Whether no other life of the node has begun.
    fn is_last(&self) -> bool {
        fs::read_to_string(self.state.join(FILE)).is_ok_and(|life| life == self.life.to_string())
    }
}

/// Starts a guard, by `argv`, and another one whenever it ends.
pub(super) fn start(argv: Vec<String>, launcher: &Launcher, state: &Path) -> io::Result<()> {
    let watch = Watch {
        node: launcher.node.clone(),
        life: Uuid::now_v7(),
        state: state.canonicalize()?,
        cgroups: launcher.cgroups.folders(),
    };
    fs::write(watch.state.join(FILE), watch.life.to_string())?;
    let json = serde_json::to_string(&watch)?;
    std::thread::Builder::new().name("guard".to_owned()).spawn(move || keep(&argv, &json))?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own, on which nothing else waits")]
fn keep(argv: &[String], json: &str) {
    loop {
        let ended = spawn(argv, json).and_then(|mut guard| {
            // Held here for as long as the guard lives; to wait for it would close it.
            let _pipe = guard.stdin.take();
            guard.wait()
        });
        match ended {
            Ok(status) => tracing::warn!(%status, "the guard of this node's apps has ended; starting another one"),
            Err(error) => tracing::warn!(%error, "the guard of this node's apps could not be started; trying again"),
        }
        std::thread::sleep(AGAIN_AFTER);
    }
}

fn spawn(argv: &[String], json: &str) -> io::Result<Child> {
    let [program, verb @ ..] = argv else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no guard is configured"));
    };
    let mut command = Command::new(program);
    command.args(verb).arg(json).env_clear().current_dir("/");
    // Nobody waits for the end of the node's own output because of it.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// The hidden verb of the binary: `<json>`, without the name of the verb. Ends when the node has, and what it left.
pub fn guard(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let watch = arguments.next().and_then(|json| serde_json::from_slice::<Watch>(json.as_encoded_bytes()).ok());
    let Some(watch) = watch else {
        eprintln!("callboard: this verb is for the platform's own use; it needs to know whom to guard");
        return ExitCode::from(2);
    };
    // What a terminal says is for the node.
    let _ = nix::unistd::setsid();
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    if let Ok(runtime) = runtime {
        runtime.block_on(end_all(&watch));
    }
    // Nothing is dropped: the folders of control groups may be the next life's by now.
    std::process::exit(0)
}

async fn end_all(watch: &Watch) {
    for wait in LOOKS {
        tokio::time::sleep(wait).await;
        let (cgroups, records) = (Cgroups::of_folders(&watch.cgroups), Record::all(&watch.state));
        let left = record::left_behind(&watch.node, &cgroups, &records, |_| false);
        if !watch.is_last() {
            std::process::exit(0);
        }
        let ends = left.into_values().map(async |mut family| {
            family.end(GRACE).await;
            family.disarm();
        });
        join_all(ends).await;
        std::mem::forget(cgroups);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::process::ExitStatusExt as _, time::Instant};

    use callboard_messages::InstanceId;

    use super::*;
    use crate::{
        detect::{self, RunEnvironment},
        limits::tests::test_launcher,
        output::{LineSink, OutputLimits},
        process::named,
        runtime::{InstanceLimits, InstanceSpec, Runtime as _, process::ProcessRuntime, process::ProcessSettings},
    };

    const FOLDER: &str = "CALLBOARD_TEST_GUARDED_NODE";
    const NODE: &str = "node";

    /// The guard for these tests: the test binary itself.
    #[test]
    fn trampoline() {
        let mut arguments = std::env::args_os().skip_while(|argument| !argument.as_encoded_bytes().starts_with(b"{"));
        if let Some(json) = arguments.next() {
            guard([json].into_iter());
        }
    }

    fn runtime(folder: &Path) -> ProcessRuntime {
        let token = fs::read_to_string(folder.join(NODE)).unwrap();
        let settings = ProcessSettings {
            launcher: Launcher::new(test_launcher(), token).with_cgroups(),
            state: folder.join("state"),
            static_server: vec!["false".to_owned()],
            output: OutputLimits::default(),
            run_as: None,
        };
        ProcessRuntime::new(settings).unwrap()
    }

    /// Not a test of its own: the node that the others kill. One worker takes no SIGTERM, one leaves its session.
    #[tokio::test]
    async fn node_to_be_killed() {
        let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
        let entry = "runtime::process::guard::tests::trampoline";
        let binary = std::env::current_exe().unwrap().display().to_string();
        let argv = [&binary, "--exact", "--test-threads=1", "--", entry].map(str::to_owned).to_vec();
        let runtime = runtime(&folder).guarded(argv).unwrap();
        fs::create_dir(folder.join("release")).unwrap();
        let mut instances = Vec::new();
        for line in ["trap '' TERM; sleep 1000", "setsid sleep 1000 & sleep 1000"] {
            let spec = InstanceSpec {
                id: InstanceId::new(),
                process: "worker".to_owned(),
                release: folder.join("release"),
                command: detect::Command::Shell(line.to_owned()),
                run_environment: RunEnvironment::default(),
                environment: BTreeMap::new(),
                listens: false,
                limits: InstanceLimits::default(),
                grace: Duration::from_secs(1),
            };
            instances.push(runtime.spawn(spec, LineSink::new(|_| ())).await.unwrap());
        }
        std::future::pending::<()>().await;
    }

    struct Killed {
        folder: tempfile::TempDir,
        token: String,
        node: Child,
    }

    impl Killed {
        fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let token = Uuid::now_v7().to_string();
            fs::write(folder.path().join(NODE), &token).unwrap();
            let mut node = Command::new(std::env::current_exe().unwrap());
            node.args(["--exact", "runtime::process::guard::tests::node_to_be_killed", "--test-threads=1"]);
            let node = node.env(FOLDER, folder.path()).stdout(Stdio::null()).spawn().unwrap();
            let bench = Self { folder, token, node };
            until("the workers run", || sleeps(&bench.token) == 3 && bench.guards().len() == 1);
            bench
        }

        fn kill(&mut self) {
            self.node.kill().unwrap();
            assert_eq!(self.node.wait().unwrap().signal(), Some(9));
        }

        /// The processes that guard this node.
        fn guards(&self) -> Vec<i32> {
            let folder = self.folder.path().canonicalize().unwrap().display().to_string();
            let pids = fs::read_dir("/proc").unwrap().filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok());
            pids.filter(|pid: &i32| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line);
                line.contains("guard::tests::trampoline") && line.contains(&folder)
            })
            .collect()
        }
    }

    impl Drop for Killed {
        fn drop(&mut self) {
            drop(self.node.kill());
            drop(self.node.wait());
            let runtime = runtime(self.folder.path());
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                runtime.end_orphans().await;
            });
        }
    }

    fn sleeps(token: &str) -> usize {
        let is_sleep = |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().starts_with(b"sleep\0");
        named(token).into_iter().filter(|(process, _)| is_sleep(process.pid)).count()
    }

    #[expect(clippy::disallowed_methods, reason = "these tests have no runtime: they look from outside")]
    fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !condition() {
            assert!(Instant::now() < deadline, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn what_a_killed_node_leaves_is_ended_without_its_next_start() {
        let mut bench = Killed::start();
        bench.kill();
        until("nothing is left running", || named(&bench.token).is_empty());
        until("the guard has ended", || bench.guards().is_empty());
    }

    #[test]
    fn a_guard_leaves_the_children_of_the_next_life_alone() {
        let mut bench = Killed::start();
        fs::write(bench.folder.path().join("state").join(FILE), Uuid::now_v7().to_string()).unwrap();
        bench.kill();
        until("the guard has ended", || bench.guards().is_empty());
        assert_eq!(sleeps(&bench.token), 3);
    }

    #[test]
    fn a_guard_that_was_killed_is_replaced() {
        let bench = Killed::start();
        let first = bench.guards()[0];
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL).unwrap();
        until("there is another one", || bench.guards().iter().any(|next| *next != first));
        assert_eq!(sleeps(&bench.token), 3, "the apps run on");
    }
}
