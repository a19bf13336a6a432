//! Real `callboard serve` nodes of the release build, on a PostgreSQL database of their own and with names of their own on
//! the local Redis and RabbitMQ.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use actix_rt::System;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    Outcome, broker,
    children::Running,
    free_port,
    node::{program, request},
};

/// The Redis of `CALLBOARD_TEST_REDIS_URL`, or the local one.
#[must_use]
pub fn redis_url() -> String {
    std::env::var("CALLBOARD_TEST_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned())
}

/// Nodes that form one cluster; ended, with all that they wrote removed, when dropped.
pub struct Cluster {
    nodes: Vec<Running>,
    addresses: Vec<SocketAddr>,
    folder: PathBuf,
    /// Of all that it has on the shared servers.
    name: String,
    /// An access token of a registered person.
    pub token: String,
}

impl Cluster {
    /// One node for each list of domains, without rate limits and with open registration. The first is the gateway.
    ///
    /// # Errors
    /// When a node does not start.
    pub async fn start(database_url: &str, placements: &[&str]) -> Outcome<Self> {
        drop(rustls::crypto::ring::default_provider().install_default());
        let name = format!("callboard-bench-{}", uuid::Uuid::now_v7().simple());
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir_all(&folder)?;
        let kept = name.clone();
        let mut cluster = Self { nodes: Vec::new(), addresses: Vec::new(), folder, name: kept, token: String::new() };
        for (number, domains) in placements.iter().enumerate() {
            cluster.begin(database_url, &name, number, domains)?;
        }
        for (node, address) in cluster.nodes.iter_mut().zip(&cluster.addresses) {
            node.wait_for(*address)?;
        }
        cluster.until_ready().await?;
        let account = json!({"email": "bench@example.com", "password": "a bench's long password"});
        let tokens = cluster.post("/api/v1/auth/register", &account).await?;
        cluster.token = tokens.get("access_token").and_then(Value::as_str).ok_or("no access token")?.to_owned();
        Ok(cluster)
    }

    fn begin(&mut self, database_url: &str, name: &str, number: usize, domains: &str) -> Outcome {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let key = BASE64_STANDARD.encode(b"a key of 32 bytes for benchmarks");
        let mut command = Command::new(program()?);
        command
            .args(["serve", "--domains", domains, "--listen", &address.to_string(), "--data"])
            .arg(self.folder.join(format!("node-{number}")))
            .env("CALLBOARD_NODE_NAME", format!("node-{number}"))
            .env("CALLBOARD_ADVERTISE_URL", format!("http://{address}"))
            .env("CALLBOARD_DATABASE_URL", database_url)
            .env("CALLBOARD_REDIS_URL", redis_url())
            .env("CALLBOARD_REDIS_PREFIX", name)
            .env("CALLBOARD_AMQP_URL", broker::url())
            .env("CALLBOARD_AMQP_PREFIX", name)
            .env("CALLBOARD_OBJECTS_URL", format!("file://{}", self.folder.join("objects").display()))
            .env("CALLBOARD_MASTER_KEY", &key)
            .env("CALLBOARD_CLUSTER_KEY", &key)
            .env("CALLBOARD_REGISTRATION", "open")
            .env("CALLBOARD_RATE_LIMITS", "false")
            .env("CALLBOARD_LOG", "warn")
            .stdout(Stdio::null());
        self.nodes.push(Running::start("callboard serve", &mut command)?);
        self.addresses.push(address);
        Ok(())
    }

    async fn until_ready(&self) -> Outcome {
        for address in &self.addresses {
            let mut tries = 0;
            while let Err(error) = request(*address, "", "GET", "/ready", None).await {
                tries += 1;
                if tries > 300 {
                    return Err(format!("{address} is not ready: {error}").into());
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Where the gateway listens.
    #[must_use]
    pub fn gateway(&self) -> SocketAddr {
        self.addresses.first().copied().unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// A folder of the cluster's.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One POST of JSON at the gateway.
    ///
    /// # Errors
    /// When the answer is not 2xx.
    pub async fn post(&self, path: &str, body: &Value) -> Outcome<Value> {
        request(self.gateway(), &self.token, "POST", path, Some(body)).await
    }

    /// One GET at the gateway.
    ///
    /// # Errors
    /// When the answer is not 2xx.
    pub async fn get(&self, path: &str) -> Outcome<Value> {
        request(self.gateway(), &self.token, "GET", path, None).await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("{} is left behind: {error}", self.folder.display());
        }
        let name = std::mem::take(&mut self.name);
        let remove = async move { broker::remove(&name, &broker::domains()?).await };
        let removed = thread::spawn(move || System::new().block_on(remove)).join();
        if !matches!(removed, Ok(Ok(()))) {
            eprintln!("queues of the benchmark are left behind");
        }
    }
}
