//! What runs releases: one instance is one running copy of one process type.
//!
//! [`Runtime`] starts instances and ends the orphans of an earlier run of the node. A [`RunningInstance`] reports when
//! it ended and why, in words that its owner can act on. Restarts, rollouts and routing are decided by its callers.

pub mod health;
mod instance;
pub mod process;

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use callboard_messages::InstanceId;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use self::{
    health::{HealthCheck, Unhealthy},
    instance::{Ended, Exit, RunningInstance},
};
use crate::{
    build::detect::{Command, RunEnvironment},
    logs::{last_words::said, output::LineSink},
};

/// Resource limits of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceLimits {
    /// Of all its processes together, in bytes. Default: 512 MiB.
    pub memory: u64,
    /// Processes at a time; threads count where the kernel counts. Default: 512.
    pub processes: u64,
    /// Processors, such as 0.5; only where the kernel can. Default: no limit.
    pub cpus: Option<f64>,
    /// Open files of each process. Default: 8,192.
    pub open_files: u64,
    /// The largest file it can write, in bytes. Default: 1 GiB.
    pub file_size: u64,
    /// All it may keep in its own folders, in bytes: the release, its home and its temporary files. Default: 2 GiB.
    pub disk: u64,
    /// Files, folders and links in its own folders. Default: 500,000.
    pub files: u64,
}

impl Default for InstanceLimits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            memory: 512 * MIB,
            processes: 512,
            cpus: None,
            open_files: 8_192,
            file_size: 1024 * MIB,
            disk: 2048 * MIB,
            files: 500_000,
        }
    }
}

/// An instance to start.
#[derive(Debug, Clone)]
pub struct InstanceSpec {
    /// Its identity. Each start gets a new one.
    pub id: InstanceId,
    /// The process type, such as `web`.
    pub process: String,
    /// Where the release is unpacked; its working folder.
    pub release: PathBuf,
    /// The command of its main process.
    pub command: Command,
    /// Variables that depend on the release's folder.
    pub run_environment: RunEnvironment,
    /// The owner's variables. Those of [`is_platform_variable`](callboard_messages::project::is_platform_variable) are the
    /// platform's.
    pub environment: BTreeMap<String, String>,
    /// Whether it gets a port. `web` does.
    pub listens: bool,
    /// What it may use.
    pub limits: InstanceLimits,
    /// Time between SIGTERM and SIGKILL when its handle is dropped.
    pub grace: Duration,
}

/// Why an instance did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It ended before it was healthy.
    #[error("{process} {}{}{}", .exit.summary(), before(.port), said(&.exit.output))]
    Exited {
        /// The process type.
        process: String,
        /// How it ended.
        exit: Exit,
        /// The port it should have listened on.
        port: Option<u16>,
    },
    /// It runs and does not listen.
    #[error(
        "{process} did not listen on PORT {port} within {} seconds{}{}; make it listen on the port in the PORT variable, \
         on 127.0.0.1 or all addresses{}", .grace.as_secs(), taken(*.is_taken), instead(.listens_on), said(.output)
    )]
    NeverListened {
        /// The process type.
        process: String,
        /// The port it was given.
        port: u16,
        /// How long it had.
        grace: Duration,
        /// The ports it listens on instead.
        listens_on: Vec<u16>,
        /// Whether a process that is not its own answers there.
        is_taken: bool,
        /// The last lines of its own output.
        output: Vec<String>,
    },
    /// It listens and is not healthy.
    #[error("{process} was not healthy within {} seconds: {reason}{}", .grace.as_secs(), said(.output))]
    Unhealthy {
        /// The process type.
        process: String,
        /// How long it had.
        grace: Duration,
        /// The result of the last check.
        reason: Unhealthy,
        /// The last lines of its own output.
        output: Vec<String>,
    },
    /// It was cancelled.
    #[error("starting {process} was cancelled")]
    Cancelled {
        /// The process type.
        process: String,
    },
    /// The node could not start it.
    #[error("{process} could not be started: {error}")]
    Node {
        /// The process type.
        process: String,
        /// Why.
        error: io::Error,
    },
}

impl StartError {
    /// The last lines of the instance's own output.
    #[must_use]
    pub fn output(&self) -> &[String] {
        match self {
            Self::Exited { exit, .. } => &exit.output,
            Self::NeverListened { output, .. } | Self::Unhealthy { output, .. } => output,
            Self::Cancelled { .. } | Self::Node { .. } => &[],
        }
    }

    /// Whether another process took the port between its choice and the start.
    fn is_lost_port(&self) -> bool {
        let exit = match self {
            Self::NeverListened { is_taken, .. } => return *is_taken,
            Self::Exited { exit, port: Some(_), .. } => exit,
            _ => return false,
        };
        let signs = ["EADDRINUSE", "ddress already in use", "ddress in use"];
        exit.output.iter().any(|line| signs.iter().any(|sign| line.contains(sign)))
    }
}

fn before(port: &Option<u16>) -> String {
    port.map(|port| format!(" before it listened on PORT {port}")).unwrap_or_default()
}

fn taken(is_taken: bool) -> &'static str {
    if is_taken { " (another process of this machine answers there)" } else { "" }
}

fn instead(ports: &[u16]) -> String {
    if ports.is_empty() {
        return String::new();
    }
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    format!(" (it listens on {} instead)", ports.join(", "))
}

/// Orphaned processes of an earlier run of the node, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The instance, build or fetch they belonged to.
    pub id: uuid::Uuid,
    /// How many there were.
    pub processes: usize,
}

/// Which limits a runtime can enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// Whether the kernel limits the memory of an instance; otherwise it is measured and the instance ended.
    pub memory: bool,
    /// Whether the kernel limits its processes; otherwise they are counted and the instance ended.
    pub processes: bool,
    /// Whether its processor time can be limited at all.
    pub cpu: bool,
    /// Whether it runs as another user than the node.
    pub other_user: bool,
}

/// What runs instances.
pub trait Runtime: Send + Sync {
    /// Starts an instance without waiting for its health. Its output goes to `sink`.
    fn spawn(&self, spec: InstanceSpec, sink: LineSink) -> BoxFuture<'_, Result<RunningInstance, StartError>>;

    /// Ends everything an earlier run of the node left running.
    ///
    /// Call it at start, before anything else runs, and only as the holder of the data folder.
    fn end_orphans(&self) -> BoxFuture<'_, Vec<Orphan>>;

    /// Which limits it can enforce on this machine.
    fn isolation(&self) -> Isolation;

    /// Starts an instance and waits until it is healthy. One that lost the race for its port is started again on
    /// another.
    fn start(
        &self,
        spec: InstanceSpec,
        check: HealthCheck,
        sink: LineSink,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<RunningInstance, StartError>> {
        Box::pin(async move {
            let mut attempt = 1;
            loop {
                let instance = self.spawn(spec.clone(), sink.clone()).await?;
                match instance.ready(&check, &cancel).await {
                    Ok(()) => return Ok(instance),
                    Err(error) => {
                        let grace = if instance.exit().is_some() { Duration::ZERO } else { spec.grace };
                        instance.stop(grace).await;
                        if attempt < 3 && error.is_lost_port() {
                            attempt += 1;
                            sink.say("the port was taken by another process; starting again on another port");
                            continue;
                        }
                        return Err(error);
                    }
                }
            }
        })
    }
}
