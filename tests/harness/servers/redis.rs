//! Redis of a test's own.

use std::{path::Path, process::Command, time::Duration};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{Server, loopback, program};

/// A Redis server that keeps nothing on disk.
pub struct Redis(Server);

impl Redis {
    /// Starts it.
    pub async fn start() -> Self {
        let mut this = Self(Server::new("redis"));
        this.start_again().await;
        this
    }

    /// Starts it after it was stopped or killed, on the same port and empty.
    pub async fn start_again(&mut self) {
        let mut command = Command::new(program("redis-server", &[], "apt-get install redis-server"));
        command.args(["--port", &self.0.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(self.0.folder.path());
        self.0.spawn(command);
        let port = self.0.port;
        let answers = async || say(port, "PING").await.is_ok_and(|answer| answer.starts_with("+PONG"));
        self.0.until_ready(answers).await;
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.0.port)
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        self.0.folder.path()
    }

    /// One command, and the first line of its answer.
    pub async fn ask(&self, command: &str) -> String {
        say(self.0.port, command).await.unwrap().trim_end().to_owned()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Forgets everything.
    pub async fn flush(&self) {
        assert_eq!(self.ask("FLUSHALL").await, "+OK");
    }

    /// Every command waits for so long, by its own `CLIENT PAUSE`.
    pub async fn hold(&self, time: Duration) {
        assert_eq!(self.ask(&format!("CLIENT PAUSE {}", time.as_millis())).await, "+OK");
    }

    /// Stops it as an operator would.
    pub async fn stop(&mut self) {
        self.0.end_with(Signal::SIGTERM).await;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.0.kill();
    }

    /// It goes silent with its connections open.
    pub fn pause(&mut self) {
        self.0.pause();
    }

    /// It goes on.
    pub fn resume(&mut self) {
        self.0.resume();
    }
}

/// One command, and the first line of its answer.
async fn say(port: u16, command: &str) -> std::io::Result<String> {
    let talk = async {
        let mut stream = BufReader::new(TcpStream::connect(loopback(port)).await?);
        stream.write_all(format!("{command}\r\n").as_bytes()).await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        Ok(line)
    };
    tokio::time::timeout(Duration::from_secs(5), talk).await?
}
