//! A Redis server of one test.

use std::{net::TcpListener, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
};

/// Killed when dropped.
pub(super) struct Server {
    port: u16,
    arguments: Vec<String>,
    process: Child,
    folder: TempDir,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(super) async fn with(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let folder = tempfile::tempdir().unwrap();
        // Another program may take the port between its choice and the start.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut process = spawn(port, &arguments, &folder);
            if answers(port, &mut process).await {
                return Self { port, arguments, process, folder };
            }
        }
        panic!("no Redis server can be started");
    }

    pub(super) fn url(&self) -> String {
        self.url_with("")
    }

    /// The URL with `user:password@`.
    pub(super) fn url_with(&self, credentials: &str) -> String {
        format!("redis://{credentials}127.0.0.1:{}", self.port)
    }

    /// Runs one command on a connection of its own.
    pub(super) async fn tell(&self, command: &[&str]) {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd(command[0]).arg(&command[1..]).exec_async(&mut connection).await.unwrap();
    }

    /// Sends one command without awaiting its answer.
    pub(super) async fn begin(&self, command: &[&str]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(format!("{}\r\n", command.join(" ")).as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    pub(super) fn signal(&self, signal: Signal) {
        let id = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).unwrap())).unwrap();
        kill_process(id, signal).unwrap();
    }

    pub(super) async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Restarts it on the same port, empty.
    pub(super) async fn restart(&mut self) {
        for _ in 0..50 {
            self.process = spawn(self.port, &self.arguments, &self.folder);
            if answers(self.port, &mut self.process).await {
                return;
            }
        }
        panic!("the Redis server does not start again");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A stopped process can't be terminated otherwise; an ended one needs nothing.
        let _ = self.process.start_kill();
    }
}

fn spawn(port: u16, arguments: &[String], folder: &TempDir) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--enable-debug-command", "yes", "--daemonize", "no", "--logfile", "redis.log"])
        .args(arguments)
        .current_dir(folder.path())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Any answer counts: it may require a password first.
async fn pong(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"PING\r\n").await?;
    stream.read_u8().await.map(drop)
}

async fn answers(port: u16, process: &mut Child) -> bool {
    for _ in 0..500 {
        if !matches!(process.try_wait(), Ok(None)) {
            return false;
        }
        if pong(port).await.is_ok() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}
