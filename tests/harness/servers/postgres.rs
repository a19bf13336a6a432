//! PostgreSQL of a test's own.

use std::{path::PathBuf, process::Command, time::Duration};

use nix::sys::signal::Signal;
use sqlx::{Connection, PgConnection};

use super::{Server, as_user, program};

const FOLDERS: &[&str] = &["/usr/lib/postgresql/*/bin", "/usr/pgsql/*/bin"];
const HINT: &str = "apt-get install postgresql";
/// It refuses to run as root.
const USERS: &[&str] = &["postgres", "nobody"];

/// A PostgreSQL server whose superuser `postgres` needs no password.
pub struct Postgres(Server);

impl Postgres {
    /// Makes a cluster and starts it.
    pub async fn start() -> Self {
        let server = Server::new("postgresql");
        let mut this = Self(server);
        let mut initdb = this.command("initdb");
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"]);
        let made = initdb.arg(this.data()).current_dir(this.0.folder.path()).output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        this.start_again().await;
        this
    }

    /// A standby of it, which copies what it writes as it writes it, and answers reads.
    pub async fn replicate(&self) -> Self {
        let mut this = Self(Server::new("postgresql"));
        let mut backup = this.command("pg_basebackup");
        backup.args(["--host=127.0.0.1", "--username=postgres", "--port", &self.0.port.to_string()]);
        backup.args(["--checkpoint=fast", "--wal-method=stream", "--no-sync", "--write-recovery-conf", "--pgdata"]);
        let made = backup.arg(this.data()).current_dir(this.0.folder.path()).output().unwrap();
        assert!(made.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&made.stderr));
        this.start_again().await;
        this
    }

    /// Starts it after it was stopped or killed, on the same port and data.
    pub async fn start_again(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.0.port.to_string(), "-k", "", "-h", "127.0.0.1"]);
        // What a commit wrote outlives the process without fsync; only a crash of the machine could lose it.
        for setting in ["fsync=off", "max_connections=300", "shared_buffers=32MB", "log_min_messages=warning"] {
            command.args(["-c", setting]);
        }
        self.0.spawn(command);
        let url = self.url();
        let answers = async || {
            let connected = tokio::time::timeout(Duration::from_secs(5), PgConnection::connect(&url)).await;
            matches!(connected, Ok(Ok(_)))
        };
        self.0.until_ready(answers).await;
    }

    fn command(&self, name: &str) -> Command {
        as_user(&program(name, FOLDERS, HINT), USERS, self.0.folder.path())
    }

    fn data(&self) -> PathBuf {
        self.0.folder.path().join("data")
    }

    /// Its database `postgres`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.0.port)
    }

    /// `pg_ctl -m immediate restart`: no checkpoint, every connection breaks, the log is replayed.
    pub async fn restart_immediately(&mut self) {
        self.0.end_with(Signal::SIGQUIT).await;
        self.start_again().await;
    }

    /// Stops it as an operator would.
    pub async fn stop(&mut self) {
        self.0.end_with(Signal::SIGINT).await;
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
