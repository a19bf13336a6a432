//! One process of a node, which is the only one, or one of three.

use std::{
    fs::{DirBuilder, File},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout},
};

use super::{Api, cli, processes};

/// The master key of every cluster: 32 bytes in base64.
pub const KEY: &[u8] = b"dGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGVzdHM5OTk=";
/// How long a node may take to begin. In a debug build on a busy machine that is more than the second it promises.
const START: Duration = Duration::from_secs(90);
/// How long it may take to stop, by its promise.
pub const STOP: Duration = Duration::from_secs(25);

/// A process with a data folder of its own.
pub struct Member {
    pub name: &'static str,
    /// What it hosts; nothing for a node alone.
    pub domains: Option<&'static str>,
    pub port: u16,
    pub announced: Value,
    home: PathBuf,
    child: Option<Child>,
    output: Option<BufReader<ChildStdout>>,
}

impl Member {
    pub fn new(home: &Path, name: &'static str, domains: Option<&'static str>, port: u16) -> Self {
        Self { name, domains, port, announced: Value::Null, home: home.to_owned(), child: None, output: None }
    }

    /// Starts its process, and does not wait.
    pub fn spawn(&mut self, options: &[&str], environment: &[(String, String)]) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = cli::program(&self.home);
        command.args([if self.domains.is_some() { "serve" } else { "dev" }, "--json", "--data"]).arg(self.data());
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        if let Some(domains) = self.domains {
            let key = self.data().join("master.key");
            if !key.exists() {
                DirBuilder::new().mode(0o700).create(self.data()).unwrap();
                File::options().create_new(true).write(true).mode(0o600).open(&key).unwrap().write_all(KEY).unwrap();
            }
            command.args(["--domains", domains]).env("CALLBOARD_NODE_NAME", self.name);
            command.env("CALLBOARD_MASTER_KEY_FILE", key);
        }
        command.args(options).envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        self.output = child.stdout.take().map(BufReader::new);
        self.child = Some(child);
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&mut self) {
        let mut line = String::new();
        let output = self.output.as_mut().expect("it was started");
        let read = tokio::time::timeout(START, output.read_line(&mut line)).await;
        let length = read.unwrap_or_else(|_| panic!("not ready within {START:?}\n{}", self.log())).unwrap();
        assert!(length > 0, "the node {} ended before it was ready\n{}", self.name, self.log());
        self.announced = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        // Nodes of a cluster tell the platform's address, which is the first one's.
        if self.domains.is_none() {
            let url = reqwest::Url::parse(self.announced["url"].as_str().unwrap()).unwrap();
            self.port = url.port().unwrap();
        }
    }

    pub fn data(&self) -> PathBuf {
        self.home.join(self.name)
    }

    fn log_file(&self) -> PathBuf {
        self.home.join(format!("{}.log", self.name))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The id that stays with its folder, once it has begun.
    pub fn id(&self) -> Option<String> {
        std::fs::read_to_string(self.data().join("node.id")).ok().map(|id| id.trim().to_owned())
    }

    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().and_then(Child::id).expect("it runs")).unwrap()
    }

    /// The operator of its machine, asking this very process.
    pub fn operator(&self) -> Api {
        let file = std::fs::read(self.data().join("cli.json")).unwrap();
        let local: Value = serde_json::from_slice(&file).unwrap();
        Api::new(self.port, Some(local["key"].as_str().unwrap().to_owned()))
    }

    /// Ends it as a crash would.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.unwrap();
    }

    /// Tells it to stop, and waits for it.
    pub async fn stop(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        let mut child = self.child.take().expect("it runs");
        processes::signal(i32::try_from(child.id().unwrap()).unwrap(), Signal::SIGTERM);
        let ended = tokio::time::timeout(STOP + Duration::from_secs(10), child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("{} did not stop\n{}", self.name, self.log())).unwrap();
        (status, began.elapsed())
    }
}

impl Drop for Member {
    /// Whatever a failed test left is ended, by its own id.
    fn drop(&mut self) {
        if let Some(pid) = self.child.as_ref().and_then(Child::id) {
            processes::signal(i32::try_from(pid).unwrap_or_default(), Signal::SIGKILL);
        }
        for process in processes::below(&self.data()) {
            processes::signal(process.pid, Signal::SIGKILL);
        }
    }
}
