//! RabbitMQ of a test's own: a node with a name, ports, data and logs of its own. Only the name server of Erlang (epmd) is
//! shared with others on the machine.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command, time::Duration};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Server, free_port, loopback, program};

const FOLDERS: &[&str] = &["/usr/lib/rabbitmq/bin"];
const HINT: &str = "apt-get install rabbitmq-server";
/// What it may use before it takes no more messages.
const MEMORY: &str = "1GB";

/// A queue as the broker tells of it.
#[derive(Debug)]
pub struct Queue {
    pub name: String,
    pub messages: u64,
    pub consumers: u64,
    /// Whether it goes away by itself when nobody uses it.
    pub expires: bool,
}

/// A RabbitMQ node whose user `guest` may do everything in the virtual host `/`.
pub struct RabbitMq {
    server: Server,
    node: String,
    distribution_port: u16,
}

impl RabbitMq {
    /// Starts it. A new node takes some seconds.
    pub async fn start() -> Self {
        let server = Server::new("rabbitmq");
        let node = format!("callboard-{}@localhost", server.port);
        let mut this = Self { server, node, distribution_port: free_port() };
        this.prepare();
        this.start_again().await;
        this
    }

    fn prepare(&self) {
        let configuration = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nlog.console = true\nlog.console.level = warning\nlog.file = false\n\
             vm_memory_high_watermark.absolute = {MEMORY}\ndisk_free_limit.absolute = 50MB\n\
             collect_statistics_interval = 60000\n",
            self.server.port
        );
        fs::write(self.file("rabbitmq.conf"), configuration).unwrap();
        fs::write(self.file("enabled_plugins"), "[].").unwrap();
        let cookie = self.file(".erlang.cookie");
        fs::write(&cookie, format!("callboard{}", self.distribution_port)).unwrap();
        fs::set_permissions(cookie, fs::Permissions::from_mode(0o400)).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.server.folder.path().join(name)
    }

    /// The environment that makes a program of RabbitMQ mean this node, and not the machine's own.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name, FOLDERS, HINT));
        command
            .env("HOME", self.server.folder.path())
            .env("RABBITMQ_NODENAME", &self.node)
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_CONFIG_FILE", self.file("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", self.file("advanced.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.file("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", self.file("mnesia"))
            .env("RABBITMQ_LOG_BASE", self.file("log"))
            .env("RABBITMQ_PID_FILE", self.file("pid"))
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_CRASH_DUMP_SECONDS", "0");
        command
    }

    /// Starts it after it was stopped or killed, with what it kept on disk.
    pub async fn start_again(&mut self) {
        let mut command = self.command("rabbitmq-server");
        // So the shell script becomes the Erlang machine: one process, whose id we know.
        command.env("RABBITMQ_ALLOW_INPUT", "1");
        // Idle scheduler threads that spin would take the processor from whom is tested.
        command.env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-noinput -kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none",
        );
        self.server.spawn(command);
        let port = self.server.port;
        self.server.until_ready(async || greets(port).await).await;
    }

    /// The URL of its virtual host `/`.
    pub fn url(&self) -> String {
        self.url_at(self.server.port)
    }

    /// The same through a proxy at another port.
    pub fn url_at(&self, port: u16) -> String {
        format!("amqp://guest:guest@127.0.0.1:{port}/%2f")
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// `rabbitmqctl` on this node; it must succeed.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = tokio::process::Command::from(self.command("rabbitmqctl"));
        let output = command.arg("--quiet").args(arguments).kill_on_drop(true).output().await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The broker closes every connection, with a reason.
    pub async fn close_connections(&self) {
        self.ctl(&["close_all_connections", "a test says so"]).await;
    }

    /// Memory is short: it blocks every connection that publishes.
    pub async fn run_short_of_memory(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0"]).await;
    }

    /// There is memory again.
    pub async fn have_memory(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "absolute", MEMORY]).await;
    }

    /// What it has logged: warnings and errors.
    pub fn log(&self) -> String {
        self.server.output()
    }

    /// Its queues.
    pub async fn queues(&self) -> Vec<Queue> {
        let told = self.ctl(&["list_queues", "--no-table-headers", "name", "messages", "consumers", "arguments"]).await;
        let queue = |line: &str| {
            let mut fields = line.split('\t');
            Some(Queue {
                name: fields.next()?.to_owned(),
                messages: fields.next()?.parse().ok()?,
                consumers: fields.next()?.parse().ok()?,
                expires: fields.next()?.contains("x-expires"),
            })
        };
        told.lines().filter_map(queue).collect()
    }

    /// Stops it as an operator would.
    pub async fn stop(&mut self) {
        self.server.end_with(Signal::SIGTERM).await;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// It goes silent with its connections open.
    pub fn pause(&mut self) {
        self.server.pause();
    }

    /// It goes on.
    pub fn resume(&mut self) {
        self.server.resume();
    }

    /// Whether it was started and not stopped since.
    pub fn is_running(&self) -> bool {
        self.server.is_running()
    }
}

/// Whether it answers the protocol's greeting with its own first frame, which it does only when it has booted.
async fn greets(port: u16) -> bool {
    let talk = async {
        let mut stream = TcpStream::connect(loopback(port)).await?;
        stream.write_all(b"AMQP\0\0\x09\x01").await?;
        stream.read_u8().await
    };
    matches!(tokio::time::timeout(Duration::from_secs(5), talk).await, Ok(Ok(1)))
}
