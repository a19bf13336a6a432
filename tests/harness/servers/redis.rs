//! Redis of a test's own.

use std::{path::Path, process::Command, time::Duration};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{
    Authority, Server,
    certificates::{CERTIFICATE, KEY},
    free_port, loopback, program,
};

/// A Redis server that keeps nothing on disk.
pub struct Redis {
    server: Server,
    /// Where it speaks TLS as well.
    tls_port: Option<u16>,
}

impl Redis {
    /// Starts it.
    pub async fn start() -> Self {
        Self::begin(None).await
    }

    /// Starts it, with another port at which it speaks TLS by a certificate of this authority.
    pub async fn start_with_tls(authority: &Authority) -> Self {
        Self::begin(Some(authority)).await
    }

    async fn begin(authority: Option<&Authority>) -> Self {
        let server = Server::new("redis");
        let tls_port = authority.map(|authority| {
            authority.issue(server.folder.path());
            free_port()
        });
        let mut this = Self { server, tls_port };
        this.start_again().await;
        this
    }

    /// Starts it after it was stopped or killed, on the same port and empty.
    pub async fn start_again(&mut self) {
        let mut command = Command::new(program("redis-server", &[], "apt-get install redis-server"));
        command.args(["--port", &self.server.port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(self.server.folder.path());
        if let Some(port) = self.tls_port {
            command.args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no"]);
            // In the folder, where it runs.
            command.args(["--tls-cert-file", CERTIFICATE, "--tls-key-file", KEY, "--tls-ca-cert-file", CERTIFICATE]);
        }
        self.server.spawn(command);
        let port = self.server.port;
        let answers = async || say(port, "PING").await.is_ok_and(|answer| answer.starts_with("+PONG"));
        self.server.until_ready(answers).await;
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.server.port)
    }

    /// Its URL with TLS, by this name.
    pub fn tls_url(&self, host: &str) -> String {
        format!("rediss://{host}:{}", self.tls_port.expect("it was started with TLS"))
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        self.server.folder.path()
    }

    /// One command, and the first line of its answer.
    pub async fn ask(&self, command: &str) -> String {
        say(self.server.port, command).await.unwrap().trim_end().to_owned()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.server.port
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
