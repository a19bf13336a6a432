//! Three nodes of `callboard serve` and the servers they share.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::harness::{
    cli,
    domains::PLACEMENTS,
    eventually, http,
    processes::{self, Process},
    proxy::Proxy,
    servers::{Postgres, RabbitMq, Redis},
    volume::Volume,
};

/// 32 bytes in base64.
const KEY: &str = "Y2hhb3MgY2hhb3MgY2hhb3MgY2hhb3MgY2hhb3M5OTk=";
/// Another such key.
const OTHER_KEY: &str = "c3RyYW5nZSBzdHJhbmdlIHN0cmFuZ2Ugc3RyYW5nZSA=";
/// The file system of a node's data folder.
const VOLUME_MEBIBYTES: u32 = 2048;
/// What a node promises.
const STOP: Duration = Duration::from_secs(25);
pub const METRICS_TOKEN: &str = "a-token-of-the-fault-campaign";

/// One node: a process and a folder of its own.
pub struct Node {
    folder: PathBuf,
    pub port: u16,
    number: usize,
    child: Option<Child>,
    /// The file system of its data folder, where a test may mount one.
    volume: Option<Volume>,
}

/// The nodes and their servers. All are gone when it is dropped.
pub struct Cluster {
    pub nodes: Vec<Node>,
    /// The way of the nodes to RabbitMQ.
    pub amqp: Proxy,
    pub postgres: Postgres,
    pub redis: Redis,
    pub rabbitmq: RabbitMq,
    // Dropped last.
    folder: TempDir,
}

impl Cluster {
    pub async fn start(seed: u64) -> Self {
        let (postgres, redis, rabbitmq) = tokio::join!(Postgres::start(), Redis::start(), RabbitMq::start());
        let amqp = Proxy::before_amqp(rabbitmq.port(), seed).await;
        let folder = tempfile::tempdir().unwrap();
        let nodes = (0..PLACEMENTS.len())
            .map(|number| {
                let node = folder.path().join(format!("node-{number}"));
                let volume = Volume::mount(&node.join("data"), VOLUME_MEBIBYTES);
                Node { folder: node, port: crate::harness::servers::free_port(), number, child: None, volume }
            })
            .collect();
        let mut cluster = Self { nodes, amqp, postgres, redis, rabbitmq, folder };
        for number in 0..PLACEMENTS.len() {
            cluster.begin(number);
        }
        cluster.until_ready().await;
        cluster
    }

    /// Starts a node that does not run.
    pub fn begin(&mut self, number: usize) {
        let mut command = self.command(&self.nodes[number], PLACEMENTS[number]);
        let node = &mut self.nodes[number];
        assert!(node.child.is_none(), "node {number} runs already");
        let log = File::options().create(true).append(true).open(node.folder.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).kill_on_drop(true);
        node.child = Some(command.spawn().unwrap());
    }

    /// What starts a node.
    fn command(&self, node: &Node, domains: &str) -> Command {
        let address = format!("127.0.0.1:{}", node.port);
        let mut command = cli::program(&node.folder);
        command
            .args(["serve", "--domains", domains, "--listen", &address, "--data"])
            .arg(node.data())
            .env("CALLBOARD_NODE_NAME", format!("node-{}", node.number))
            .env("CALLBOARD_ADVERTISE_URL", format!("http://{address}"))
            .env("CALLBOARD_DATABASE_URL", self.postgres.url())
            .env("CALLBOARD_DATABASE_CONNECTIONS", "4")
            .env("CALLBOARD_REDIS_URL", self.redis.url())
            .env("CALLBOARD_AMQP_URL", self.rabbitmq.url_at(self.amqp.port))
            .env("CALLBOARD_OBJECTS_URL", self.objects("objects"))
            .env("CALLBOARD_MASTER_KEY", KEY)
            .env("CALLBOARD_CLUSTER_KEY", KEY)
            .env("CALLBOARD_METRICS_TOKEN", METRICS_TOKEN)
            .env("CALLBOARD_REGISTRATION", "open")
            .env("CALLBOARD_RATE_LIMITS", "false")
            .env("CALLBOARD_BCRYPT_COST", "10")
            .env("CALLBOARD_LOG", "info,actix_server=warn");
        command
    }

    fn objects(&self, name: &str) -> String {
        format!("file://{}", self.folder.path().join(name).display())
    }

    /// A node that was configured with something else than the others tries to join: it ends with a sentence that names
    /// what differs, and the others notice nothing.
    pub async fn refuses_a_stranger(&self) {
        let number = self.nodes.len();
        let folder = self.folder.path().join("stranger");
        fs::create_dir_all(&folder).unwrap();
        let port = crate::harness::servers::free_port();
        let stranger = Node { folder, port, number, child: None, volume: None };
        for (variable, value, named) in [
            ("CALLBOARD_CLUSTER_KEY", OTHER_KEY.to_owned(), "CALLBOARD_CLUSTER_KEY"),
            ("CALLBOARD_OBJECTS_URL", self.objects("other-objects"), "CALLBOARD_OBJECTS_URL"),
        ] {
            let mut command = self.command(&stranger, PLACEMENTS[2]);
            command.env(variable, value);
            let ran = cli::finish(command, "").await;
            assert_eq!(ran.code, Some(2), "{variable}: {ran:?}");
            assert!(format!("{}{}", ran.out, ran.err).contains(named), "{variable}: {ran:?}");
        }
    }

    /// Until each node says that it may take traffic.
    pub async fn until_ready(&self) {
        let client = http().timeout(Duration::from_secs(5)).build().unwrap();
        for node in &self.nodes {
            let url = format!("http://127.0.0.1:{}/ready", node.port);
            let asked = client.clone();
            eventually(&format!("node {} is ready", node.number), || {
                let request = asked.get(&url);
                async { request.send().await.ok().filter(|answer| answer.status().is_success()) }
            })
            .await;
        }
    }

    /// Starts whatever does not run, and waits until all is well.
    pub async fn heal(&mut self) {
        self.amqp.heal();
        for number in 0..self.nodes.len() {
            if self.nodes[number].child.is_none() {
                self.begin(number);
            }
        }
        self.until_ready().await;
    }

    /// Stops the nodes as an operator would; nothing of them may be left.
    pub async fn finish(mut self) {
        for node in &mut self.nodes {
            node.stop().await;
        }
        let left: Vec<Process> = self.nodes.iter().flat_map(|node| processes::below(&node.data())).collect();
        assert!(left.is_empty(), "left running: {left:?}");
        for node in &self.nodes {
            assert!(!node.log().contains("panicked at"), "node {} panicked\n{}", node.number, node.log());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if std::thread::panicking() {
                let log = node.log();
                let last: Vec<&str> = log.lines().rev().take(150).collect();
                eprintln!("--- node {} logged last", node.number);
                last.iter().rev().for_each(|line| eprintln!("{line}"));
            }
            node.kill_all();
        }
    }
}

impl Node {
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().and_then(Child::id).expect("it runs")).unwrap()
    }

    /// Its process dies; what it had started is left to itself, as by the real thing.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().await.unwrap();
    }

    /// It stands still and does not know it.
    pub fn pause(&self) {
        processes::signal(self.pid(), Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        processes::signal(self.pid(), Signal::SIGCONT);
    }

    /// Nothing can be written to its data folder, or again. False where a test may not mount a file system.
    pub fn fill_disk(&self, full: bool) -> bool {
        let Some(volume) = &self.volume else { return false };
        if full {
            volume.fill()
        } else {
            volume.empty()
        }
        true
    }

    /// It is told to stop, and does as it promises.
    pub async fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let began = Instant::now();
        processes::signal(i32::try_from(child.id().unwrap()).unwrap(), Signal::SIGTERM);
        let ended = tokio::time::timeout(STOP + Duration::from_secs(10), child.wait()).await;
        let Ok(status) = ended else { panic!("node {} did not stop\n{}", self.number, self.log()) };
        assert!(status.unwrap().success(), "node {} ended badly\n{}", self.number, self.log());
        assert!(began.elapsed() < STOP, "node {} took {:?} to stop", self.number, began.elapsed());
    }

    /// Ends it and everything below its folder, however it stands.
    fn kill_all(&mut self) {
        if let Some(pid) = self.child.as_ref().and_then(Child::id) {
            processes::signal(i32::try_from(pid).unwrap_or_default(), Signal::SIGKILL);
        }
        for process in processes::below(&self.data()) {
            processes::signal(process.pid, Signal::SIGKILL);
        }
    }
}
