//! A node as a child process.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::{
    Api,
    cli::{self, Ran},
    processes::{self, Process},
};

/// How long a node may take to begin. In a debug build on a busy machine that is more than the second it promises.
const START: Duration = Duration::from_secs(60);
/// How long it may take to stop, by its promise.
const STOP: Duration = Duration::from_secs(25);

/// A node with a data folder of its own.
pub struct Node {
    folder: TempDir,
    child: Option<Child>,
    options: Vec<(String, String)>,
    pub port: u16,
    pub announced: Value,
}

impl Node {
    /// A node without the sample app.
    pub async fn start() -> Self {
        Self::start_with(&["--no-sample"], &[]).await
    }

    /// A node with these options and variables.
    pub async fn start_with(options: &[&str], environment: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut node = Self {
            folder: tempfile::tempdir().unwrap(),
            child: None,
            options: environment.iter().map(owned).collect(),
            port: 0,
            announced: Value::Null,
        };
        node.begin(options).await;
        node
    }

    /// Starts it again, on the same port and folder.
    pub async fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        self.begin(&["--no-sample"]).await;
    }

    async fn begin(&mut self, options: &[&str]) {
        let mut child = self.command(options).spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let read = tokio::time::timeout(START, output.read_line(&mut line)).await;
        self.child = Some(child);
        let length = read.unwrap_or_else(|_| panic!("not ready within {START:?}\n{}", self.log())).unwrap();
        assert!(length > 0, "the node ended before it was ready\n{}", self.log());
        self.announced = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let url = reqwest::Url::parse(self.announced["url"].as_str().unwrap()).unwrap();
        self.port = url.port().unwrap();
    }

    fn command(&self, options: &[&str]) -> Command {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = cli::program(self.folder.path());
        command
            .args(["dev", "--json", "--data"])
            .arg(self.data())
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(options)
            .envs(self.options.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        command
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("node")
    }

    /// A folder for whatever the test makes.
    pub fn scratch(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join("scratch").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().and_then(Child::id).expect("it runs")).unwrap()
    }

    /// Nobody.
    pub fn anonymous(&self) -> Api {
        Api::new(self.port, None)
    }

    /// The operator of this machine: what the command line here is signed in as.
    pub fn operator(&self) -> Api {
        let file = std::fs::read(self.data().join("cli.json")).unwrap();
        let local: Value = serde_json::from_slice(&file).unwrap();
        Api::new(self.port, Some(local["key"].as_str().unwrap().to_owned()))
    }

    /// The first administrator, by the set-up link. Once per node.
    pub async fn admin(&self) -> Api {
        let link = self.announced["setup_url"].as_str().expect("a set-up link");
        let link = reqwest::Url::parse(link).unwrap();
        let token = link.query_pairs().find(|(name, _)| name == "token").expect("a token in the link").1.into_owned();
        self.anonymous().register("admin@example.com", Some(&token)).await
    }

    /// A person with an account of its own, whom the operator invited.
    pub async fn user(&self, name: &str) -> Api {
        let email = format!("{name}@example.com");
        let invitation = self.operator().post("/auth/invitations", serde_json::json!({ "email": email })).await;
        let token = invitation.ok()["token"].as_str().unwrap().to_owned();
        self.anonymous().register(&email, Some(&token)).await
    }

    /// The command line on this machine, with this node's data folder.
    pub async fn cli(&self, arguments: &[&str]) -> Ran {
        let data = self.data();
        let mut all = vec!["--data", data.to_str().unwrap()];
        all.extend(arguments);
        cli::run(self.folder.path(), &all, "").await
    }

    /// The same, as JSON; it must succeed.
    pub async fn cli_json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        let ran = self.cli(&all).await;
        assert!(ran.success(), "{arguments:?}: {ran:?}\n{}", self.log());
        ran.json()
    }

    /// The command line elsewhere: a home folder, and no data folder.
    pub async fn cli_elsewhere(&self, arguments: &[&str], input: &str) -> Ran {
        cli::run(self.folder.path(), arguments, input).await
    }

    /// The same, with variables.
    pub async fn cli_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        let mut command = cli::program(self.folder.path());
        command.args(arguments).envs(environment.iter().copied());
        cli::finish(command, "").await
    }

    /// The home folder of the command line.
    pub fn home(&self) -> PathBuf {
        cli::home(self.folder.path())
    }

    /// The command line as a child that goes on.
    pub fn cli_child(&self, arguments: &[&str]) -> Child {
        let mut command = cli::program(self.folder.path());
        command.arg("--data").arg(self.data()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
    }

    /// What runs below its data folder.
    pub fn running(&self) -> Vec<Process> {
        processes::below(&self.data())
    }

    /// Sends a signal to an instance or any other process of this node.
    pub fn signal(&self, pid: i32, signal: Signal) {
        assert!(pid == self.pid() || self.running().iter().any(|process| process.pid == pid), "{pid} is none of ours");
        processes::signal(pid, signal);
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
        (ended.unwrap_or_else(|_| panic!("it did not stop\n{}", self.log())).unwrap(), began.elapsed())
    }

    /// Stops it and checks that it kept its promises. Every test ends with this.
    pub async fn finish(mut self) {
        if self.child.is_some() {
            let (status, took) = self.stop().await;
            assert!(status.success(), "it ended with {status}\n{}", self.log());
            assert!(took < STOP, "it took {took:?} to stop");
        }
        let left = self.running();
        assert!(left.is_empty(), "left running: {left:?}\n{}", self.log());
        let log = self.log();
        assert!(!log.contains("panicked at"), "a panic was logged\n{log}");
    }
}

impl Drop for Node {
    /// Whatever a failed test left is ended, by its own id.
    fn drop(&mut self) {
        if let Some(pid) = self.child.as_ref().and_then(Child::id) {
            processes::signal(i32::try_from(pid).unwrap_or_default(), Signal::SIGKILL);
        }
        for process in processes::below(Path::new(&self.data())) {
            processes::signal(process.pid, Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- the node's log\n{}", self.log());
        }
    }
}
