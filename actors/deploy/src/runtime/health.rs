//! Whether an instance answers.

use std::{io, net::SocketAddr, time::Duration};

use http_body_util::Empty;
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

/// How an instance is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthCheck {
    /// What is asked for. Default: `/`. Any answer below 500 is healthy.
    pub path: String,
    /// For one question. Default: 5 seconds.
    pub timeout: Duration,
    /// Between two questions while it comes up. Default: 100 ms.
    pub interval: Duration,
    /// How long it may take to come up. Default: 60 seconds.
    pub grace: Duration,
    /// How long an instance without a port must live to count as healthy. Default: 1 second.
    pub settle: Duration,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: "/".to_owned(),
            timeout: Duration::from_secs(5),
            interval: Duration::from_millis(100),
            grace: Duration::from_secs(60),
            settle: Duration::from_secs(1),
        }
    }
}

/// Why an instance is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// Nothing listens.
    #[error("nothing listens on port {port} ({error})")]
    NotListening {
        /// Its port.
        port: u16,
        /// Why.
        error: io::Error,
    },
    /// What answers is no process of the instance.
    #[error("port {port} is answered by a process that is not the app's")]
    Another {
        /// Its port.
        port: u16,
    },
    /// It took too long.
    #[error("GET {path} was not answered within {} ms", .timeout.as_millis())]
    TimedOut {
        /// What was asked for.
        path: String,
        /// How long it had.
        timeout: Duration,
    },
    /// It said so.
    #[error("GET {path} was answered with status {status}")]
    Status {
        /// What was asked for.
        path: String,
        /// 500 to 599.
        status: u16,
    },
    /// It does not speak HTTP.
    #[error("GET {path} got no HTTP answer ({reason})")]
    NotHttp {
        /// What was asked for.
        path: String,
        /// Why.
        reason: String,
    },
}

/// Asks once.
///
/// # Errors
/// When the answer is not a healthy one.
pub async fn probe(address: SocketAddr, check: &HealthCheck) -> Result<(), Unhealthy> {
    let path = if check.path.starts_with('/') { check.path.clone() } else { format!("/{}", check.path) };
    match tokio::time::timeout(check.timeout, ask(address, &path)).await {
        Ok(answer) => answer,
        Err(_) => Err(Unhealthy::TimedOut { path, timeout: check.timeout }),
    }
}

async fn ask(address: SocketAddr, path: &str) -> Result<(), Unhealthy> {
    let connected = TcpStream::connect(address).await;
    let stream = connected.map_err(|error| Unhealthy::NotListening { port: address.port(), error })?;
    let not_http =
        |error: &dyn std::fmt::Display| Unhealthy::NotHttp { path: path.to_owned(), reason: error.to_string() };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| not_http(&error))?;
    let request = Request::get(path)
        .header("host", address.to_string())
        .header("user-agent", "callboard-health")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| not_http(&error))?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    // The connection is driven beside the request, and may end in the same moment as the answer comes.
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        _ = connection => answer.await,
    };
    let status = response.map_err(|error| not_http(&error))?.status().as_u16();
    if status < 500 { Ok(()) } else { Err(Unhealthy::Status { path: path.to_owned(), status }) }
}
