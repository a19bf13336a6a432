//! A platform as a test uses it: a node alone, or with `CALLBOARD_TEST_TOPOLOGY=cluster` three that share it. Whoever
//! asks talks to the first and can't tell.

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Child;

use super::{
    Api,
    cli::{self, Ran},
    domains,
    ground::Ground,
    member::{Member, STOP},
    processes::{self, Process},
    servers::free_port,
};

/// What the three nodes of a cluster are called.
const NAMES: [&str; 3] = ["node", "node-b", "node-c"];

/// A node with a data folder of its own, or three.
pub struct Node {
    // Dropped in this order: what runs, then what it ran on, then the folder.
    members: Vec<Member>,
    ground: Option<Ground>,
    folder: TempDir,
    environment: Vec<(String, String)>,
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
        let topology = std::env::var("CALLBOARD_TEST_TOPOLOGY").unwrap_or_default();
        if topology == "cluster" {
            return Self::start_cluster_with(options, environment).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let members = vec![Member::new(folder.path(), "node", None, 0)];
        Self::begin_with(folder, members, None, options, environment).await
    }

    /// A node alone, on a data folder that `prepare` has made.
    pub async fn start_on(prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let member = Member::new(folder.path(), "node", None, 0);
        prepare(&member.data());
        Self::begin_with(folder, vec![member], None, &["--no-sample"], &[]).await
    }

    /// Three nodes, whatever the topology of the other tests.
    pub async fn start_cluster() -> Self {
        Self::start_cluster_with(&["--no-sample"], &[]).await
    }

    /// Three nodes with these variables.
    pub async fn start_cluster_with(options: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let member = |(name, domains)| Member::new(folder.path(), name, Some(domains), free_port());
        let members = NAMES.into_iter().zip(domains::PLACEMENTS).map(member).collect();
        let ground = Some(Ground::new().await);
        Self::begin_with(folder, members, ground, options, environment).await
    }

    async fn begin_with(
        folder: TempDir,
        members: Vec<Member>,
        ground: Option<Ground>,
        options: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let port = members[0].port;
        let shared = ground.as_ref().map(|ground| ground.environment(folder.path(), port)).unwrap_or_default();
        let environment = shared.into_iter().chain(environment.iter().map(owned)).collect();
        let mut node = Self { members, ground, folder, environment, port: 0, announced: Value::Null };
        node.begin(options).await;
        node
    }

    /// Starts it again, on the same port and folder.
    pub async fn start_again(&mut self) {
        self.begin(&["--no-sample"]).await;
    }

    async fn begin(&mut self, options: &[&str]) {
        for (number, member) in self.members.iter_mut().enumerate() {
            member.spawn(&options_of(options, number, member.domains.is_some()), &self.environment);
        }
        join_all(self.members.iter_mut().map(Member::ready)).await;
        self.port = self.members[0].port;
        self.announced = self.members[0].announced.clone();
    }

    /// One of its processes, in the order of their placement.
    pub fn member(&self, number: usize) -> &Member {
        &self.members[number]
    }

    /// The same, to do something to it.
    pub fn member_mut(&mut self, number: usize) -> &mut Member {
        &mut self.members[number]
    }

    /// Starts one process more in a cluster, as another node; its number.
    pub async fn join(&mut self, name: &'static str, domains: &'static str) -> usize {
        self.members.push(Member::new(self.folder.path(), name, Some(domains), free_port()));
        let number = self.members.len() - 1;
        self.start_member(number).await;
        number
    }

    /// Starts one of its processes, and does not wait until it is ready.
    pub fn spawn_member(&mut self, number: usize) {
        self.members[number].spawn(&[], &self.environment);
    }

    /// Starts one of its processes again.
    pub async fn start_member(&mut self, number: usize) {
        self.spawn_member(number);
        self.members[number].ready().await;
    }

    /// What its nodes share, if there are several.
    pub const fn shared(&self) -> Option<&Ground> {
        self.ground.as_ref()
    }

    /// What the nodes of a cluster share.
    pub fn ground(&self) -> &Ground {
        self.ground.as_ref().expect("a cluster")
    }

    /// Changes these variables for the processes that are started from now on.
    pub fn set(&mut self, environment: &[(&str, &str)]) {
        for (name, value) in environment {
            self.environment.retain(|(of, _)| of != name);
            self.environment.push(((*name).to_owned(), (*value).to_owned()));
        }
    }

    /// The variables that a further node of the cluster needs.
    pub fn environment(&self) -> Vec<(&str, &str)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// The data folder of the node that the test talks to.
    pub fn data(&self) -> PathBuf {
        self.members[0].data()
    }

    /// A folder for whatever the test makes.
    pub fn scratch(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join("scratch").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.members.iter().map(Member::log).collect()
    }

    /// Its process, or the first of them.
    pub fn pid(&self) -> i32 {
        self.members[0].pid()
    }

    /// Nobody.
    pub fn anonymous(&self) -> Api {
        Api::new(self.port, None)
    }

    /// The operator of this machine: what the command line here is signed in as.
    pub fn operator(&self) -> Api {
        self.members[0].operator()
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

    /// The same on a terminal, with these variables.
    pub async fn cli_on_terminal(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        let data = self.data();
        let all = [&["--data", data.to_str().unwrap()], arguments].concat();
        cli::run_on_terminal(self.folder.path(), &all, environment).await
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
        let piped = || std::process::Stdio::piped();
        command.stdin(std::process::Stdio::null()).stdout(piped()).stderr(piped()).kill_on_drop(true).spawn().unwrap()
    }

    /// What runs below its data folders.
    pub fn running(&self) -> Vec<Process> {
        self.members.iter().flat_map(|member| processes::below(&member.data())).collect()
    }

    /// Sends a signal to an instance or any other process of this node.
    pub fn signal(&self, pid: i32, signal: Signal) {
        let is_ours = self.members.iter().any(|member| member.runs() && member.pid() == pid);
        assert!(is_ours || self.running().iter().any(|process| process.pid == pid), "{pid} is none of ours");
        processes::signal(pid, signal);
    }

    /// Ends it as a crash would.
    pub async fn kill(&mut self) {
        join_all(self.members.iter_mut().map(Member::kill)).await;
    }

    /// Tells it to stop, and waits for it.
    pub async fn stop(&mut self) -> (ExitStatus, Duration) {
        let running = self.members.iter_mut().filter(|member| member.runs());
        let ended = join_all(running.map(Member::stop)).await;
        let longest = ended.iter().map(|(_, took)| *took).max().unwrap_or_default();
        let status = ended.iter().map(|(status, _)| *status).find(|status| !status.success());
        (status.unwrap_or_default(), longest)
    }

    /// Stops it and checks that it kept its promises. Every test ends with this.
    pub async fn finish(mut self) {
        if self.members.iter().any(Member::runs) {
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

/// Only the first node of a cluster shows the sample, and only when it is asked to.
fn options_of<'a>(options: &[&'a str], number: usize, is_cluster: bool) -> Vec<&'a str> {
    if !is_cluster {
        return options.to_vec();
    }
    let mut own: Vec<&str> = options.iter().copied().filter(|option| *option != "--no-sample").collect();
    if number == 0 && !options.contains(&"--no-sample") {
        own.push("--sample");
    }
    own
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for member in &self.members {
                eprintln!("--- the log of {}\n{}", member.name, member.log());
            }
        }
        let nodes = self.members.iter().filter_map(Member::id).collect();
        self.members.clear();
        if let Some(ground) = self.ground.take() {
            ground.remove(nodes);
        }
    }
}
