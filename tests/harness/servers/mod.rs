//! Servers of a test's own: PostgreSQL, Redis and RabbitMQ on free ports in a folder of their own, so that a test may stop,
//! kill and freeze them. Each is gone when it is dropped, after a panic too.

mod certificates;
mod moto;
mod postgres;
mod rabbitmq;
mod redis;

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid, User},
};
use tempfile::TempDir;

pub use certificates::Authority;
pub use moto::Moto;
pub use postgres::Postgres;
pub use rabbitmq::RabbitMq;
pub use redis::Redis;

/// How long a server may take to begin or to end on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// The process of a server and the folder with all that it keeps.
struct Server {
    name: &'static str,
    folder: TempDir,
    port: u16,
    child: Option<Child>,
    paused: bool,
}

impl Server {
    fn new(name: &'static str) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("callboard-{name}-")).tempdir().unwrap();
        Self { name, folder, port: free_port(), child: None, paused: false }
    }

    /// Starts the process, with its output in the folder's `output`.
    fn spawn(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let output = File::options().create(true).append(true).open(self.folder.path().join("output")).unwrap();
        let errors = output.try_clone().unwrap();
        let spawned =
            command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        self.child = Some(spawned.unwrap_or_else(|error| panic!("{} can't be started: {error}", self.name)));
    }

    /// Asks until it is ready; fails with its output if it ends before.
    async fn until_ready(&mut self, mut ready: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !ready().await {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "{} ended with {ended:?}\n{}", self.name, self.output());
            assert!(Instant::now() < deadline, "{} is not ready within {PATIENCE:?}\n{}", self.name, self.output());
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).id()).unwrap()
    }

    fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Sends a signal and waits until the process has ended.
    async fn end_with(&mut self, signal: Signal) {
        self.resume();
        kill(Pid::from_raw(self.pid()), signal).unwrap();
        let mut child = self.child.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
                panic!("{} did not end by {signal} within {PATIENCE:?}\n{}", self.name, self.output());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it and all its children at once, as a crash of the machine would: none is left that holds what they share.
    fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let parent = i32::try_from(child.id()).unwrap_or_default();
        // Stopped first, so that it begins no new ones while they are looked for.
        let _ = kill(Pid::from_raw(parent), Signal::SIGSTOP);
        wait_while(|| !matches!(state(parent), None | Some('T' | 'Z')));
        let children = descendants(&[parent]);
        for pid in children.iter().chain([&parent]) {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        let _ = child.wait();
        wait_while(|| children.iter().any(|pid| !matches!(state(*pid), None | Some('Z'))));
        self.paused = false;
    }

    /// It and its children go silent, with their connections open, as a hung machine would.
    fn pause(&mut self) {
        self.signal_all(Signal::SIGSTOP);
        self.paused = true;
    }

    fn resume(&mut self) {
        if self.paused {
            self.signal_all(Signal::SIGCONT);
            self.paused = false;
        }
    }

    fn signal_all(&self, signal: Signal) {
        let mut family = vec![self.pid()];
        family.extend(descendants(&family));
        for pid in family {
            // A child may have ended in between.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let output = self.output();
            let last: Vec<&str> = output.lines().rev().take(30).collect();
            eprintln!("--- {} said last", self.name);
            last.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        self.kill();
    }
}

/// The RabbitMQ that tests share, each with names of its own.
pub fn amqp_url() -> String {
    std::env::var("CALLBOARD_TEST_AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned())
}

/// A port that was free a moment ago, below those that connections are given from 32,768 on: one that is used again
/// after a restart must not have become the near end of somebody's connection.
pub fn free_port() -> u16 {
    loop {
        let random = uuid::Uuid::now_v7().as_u128() % 16_000;
        let port = 16_000 + u16::try_from(random).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Looks again and again, also while a test fails: so it does not fail itself.
#[expect(
    clippy::disallowed_methods,
    reason = "a server is also killed when it is dropped, where nothing can be awaited"
)]
fn wait_while(what: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while what() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The state of a process as the kernel tells it: `T` stopped, `Z` ended and not waited for; none when it is gone.
fn state(pid: i32) -> Option<char> {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    status.rsplit_once(") ")?.1.chars().next()
}

/// All that these processes have begun, and what that has begun.
fn descendants(of: &[i32]) -> Vec<i32> {
    let mut all = Vec::new();
    let mut parents = of.to_vec();
    let processes: Vec<(i32, i32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name stands in parentheses and may hold anything.
            let parent = status.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    while let Some(parent) = parents.pop() {
        let children = processes.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid);
        let children: Vec<i32> = children.collect();
        parents.extend(&children);
        all.extend(children);
    }
    all
}

/// The folder of the build, where scripts put what the tests start.
pub fn build_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Path::new(env!("CARGO_MANIFEST_DIR")).join(target)
}

/// The program of this name, on the PATH or in one of these folders (the last of them by name, so the newest version).
pub fn program(name: &str, folders: &[&str], hint: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file());
    let mut elsewhere: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| versions(folder))
        .map(|folder| folder.join(name))
        .filter(|program| program.is_file())
        .collect();
    elsewhere.sort();
    elsewhere.pop().or(on_path).unwrap_or_else(|| panic!("this test needs {name}, which is not installed: {hint}"))
}

/// A folder, or with one `*` in it as a whole name, every folder that fits.
fn versions(folder: &str) -> Vec<PathBuf> {
    let Some((before, after)) = folder.split_once("/*/") else { return vec![PathBuf::from(folder)] };
    let entries = fs::read_dir(before).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join(after)).collect()
}

/// The command of a server that refuses to run as root: as the first of these users that there is.
fn as_user(program: &Path, users: &[&str], owned: &Path) -> Command {
    if !Uid::effective().is_root() {
        return Command::new(program);
    }
    let found = users.iter().find_map(|name| User::from_name(name).ok().flatten());
    let user = found.unwrap_or_else(|| panic!("none of the users {users:?} is on this machine"));
    std::os::unix::fs::chown(owned, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid), "--clear-groups".to_owned()]);
    command.arg(program);
    command
}
