//! A real `callboard` node of the release build, with a folder and, when asked, a PostgreSQL database of its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{Outcome, children::Running, free_port};

/// Ended, with all that it wrote removed, when dropped.
pub struct Node {
    running: Option<Running>,
    /// Where it listens.
    pub address: SocketAddr,
    folder: PathBuf,
    /// An access token of a registered person.
    pub token: String,
}

impl Node {
    /// Starts a node without rate limits and with open registration, with or without its sample app, and registers a
    /// person.
    ///
    /// # Errors
    /// When `target/release/callboard` is not there or does not start.
    pub async fn start(database_url: Option<&str>, sample: bool) -> Outcome<Self> {
        // A second node of one benchmark finds the provider installed already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let folder = std::env::temp_dir().join(format!("callboard-bench-{}", uuid::Uuid::now_v7().simple()));
        let mut command = Command::new(program()?);
        command
            .args(["dev", "--listen", &address.to_string(), "--data"])
            .arg(&folder)
            .args((!sample).then_some("--no-sample"))
            .env("CALLBOARD_REGISTRATION", "open")
            .env("CALLBOARD_RATE_LIMITS", "false")
            .env("CALLBOARD_LOG", "warn")
            .stdout(Stdio::null());
        if let Some(url) = database_url {
            command.env("CALLBOARD_DATABASE_URL", url);
        }
        let mut node =
            Self { running: Some(Running::start("callboard", &mut command)?), address, folder, token: String::new() };
        if let Some(running) = &mut node.running {
            running.wait_for(address)?;
        }
        let account = json!({"email": "bench@example.com", "password": "a bench's long password"});
        let tokens = node.post("/api/v1/auth/register", &account).await?;
        node.token = tokens.get("access_token").and_then(Value::as_str).ok_or("no access token")?.to_owned();
        Ok(node)
    }

    /// The node's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.as_ref().map_or(0, Running::pid)
    }

    /// Runs a verb of the command line, which is signed in on this machine, and gives what it prints.
    ///
    /// # Errors
    /// When the verb fails.
    pub fn command_line(&self, arguments: &[&str]) -> Outcome<String> {
        let output = Command::new(program()?).args(arguments).arg("--data").arg(&self.folder).output()?;
        if !output.status.success() {
            return Err(format!("callboard {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The node's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One POST of JSON, with the token once there is one.
    ///
    /// # Errors
    /// When the answer is not 2xx.
    pub async fn post(&self, path: &str, body: &Value) -> Outcome<Value> {
        self.request("POST", path, Some(body)).await
    }

    /// One GET.
    ///
    /// # Errors
    /// When the answer is not 2xx.
    pub async fn get(&self, path: &str) -> Outcome<Value> {
        self.request("GET", path, None).await
    }

    async fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Outcome<Value> {
        request(self.address, &self.token, method, path, body).await
    }
}

/// One request of JSON, with the token if there is one.
///
/// # Errors
/// When the answer is not 2xx.
pub async fn request(
    address: SocketAddr,
    token: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Outcome<Value> {
    let method = method.parse()?;
    let mut request = reqwest::Client::new().request(method, format!("http://{address}{path}"));
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await?;
    let status = response.status();
    let text = response.text().await?;
    if !status.is_success() {
        return Err(format!("{path} answered {status}: {text}").into());
    }
    Ok(serde_json::from_str(&text)?)
}

/// The node of the release build.
///
/// # Errors
/// When it was not built.
pub fn program() -> Outcome<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("callboard");
    if !program.exists() {
        return Err("build the node first: cargo build --release --bin callboard".into());
    }
    Ok(program)
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.take();
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("{} is left behind: {error}", self.folder.display());
        }
    }
}

/// A PostgreSQL database of the benchmark's own.
pub struct TemporaryDatabase {
    server: String,
    name: String,
}

impl TemporaryDatabase {
    /// On the server of `CALLBOARD_TEST_POSTGRES_URL`, or the local one.
    ///
    /// # Errors
    /// When the server can't be reached.
    pub async fn create() -> Outcome<Self> {
        let server = callboard_supervisors::testing::postgres_url();
        let name = format!("bench_{}", uuid::Uuid::now_v7().simple());
        let mut connection = PgConnection::connect(&server).await?;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await?;
        connection.close().await?;
        Ok(Self { server, name })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        match self.server.rsplit_once('/') {
            Some((server, _)) => format!("{server}/{}", self.name),
            None => format!("{}/{}", self.server, self.name),
        }
    }

    /// Removes it.
    ///
    /// # Errors
    /// When the server can't be reached.
    pub async fn remove(self) -> Outcome {
        let mut connection = PgConnection::connect(&self.server).await?;
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }
}
