//! Health checks of instances.

use std::{io, net::SocketAddr, time::Duration};

use http_body_util::Empty;
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

/// How an instance is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthCheck {
    /// The path of the request. Default: `/`. Any answer below 500 is healthy.
    pub path: String,
    /// Time limit of one check. Default: 5 seconds.
    pub timeout: Duration,
    /// Pause between two checks while it starts. Default: 100 ms.
    pub interval: Duration,
    /// How long it may take to become healthy. Default: 60 seconds.
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
    /// Nothing listens on its port.
    #[error("nothing listens on port {port} ({error})")]
    NotListening {
        /// Its port.
        port: u16,
        /// Why.
        error: io::Error,
    },
    /// A process of another program answers on its port.
    #[error("port {port} is answered by a process that is not the app's")]
    Another {
        /// Its port.
        port: u16,
    },
    /// No answer in time.
    #[error("GET {path} was not answered within {} ms", .timeout.as_millis())]
    TimedOut {
        /// The path of the request.
        path: String,
        /// The time limit.
        timeout: Duration,
    },
    /// It answered with a status that means a failure.
    #[error("GET {path} was answered with status {status}")]
    Status {
        /// The path of the request.
        path: String,
        /// 500 to 599.
        status: u16,
    },
    /// What it answered is not HTTP.
    #[error("GET {path} got no HTTP answer ({reason})")]
    NotHttp {
        /// The path of the request.
        path: String,
        /// Why.
        reason: String,
    },
}

/// Checks once.
///
/// # Errors
/// When the instance is not healthy.
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
    // The connection is polled beside the request, and may end at the moment the answer comes.
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        _ = connection => answer.await,
    };
    let status = response.map_err(|error| not_http(&error))?.status().as_u16();
    if status < 500 { Ok(()) } else { Err(Unhealthy::Status { path: path.to_owned(), status }) }
}
