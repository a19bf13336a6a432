//! The handle of a running instance.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use callboard_messages::InstanceId;
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    StartError,
    health::{HealthCheck, Unhealthy, probe},
};
use crate::{
    logs::last_words::{LastLines, said},
    process::{Listeners, Usage},
};

/// Why an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Its main process ended with this status.
    Status(i32),
    /// Its main process was killed by this signal, which the platform had not sent.
    Signal(i32),
    /// The platform stopped it.
    Stopped {
        /// Whether it had to be killed.
        forced: bool,
    },
    /// It used more than its memory, in bytes.
    OutOfMemory(u64),
    /// It had more processes than allowed.
    TooManyProcesses(u64),
    /// Its own folders exceeded the limit, in bytes.
    OutOfDisk(u64),
    /// Its own folders held more files than allowed.
    TooManyFiles(u64),
    /// Its end was not observed, for this reason.
    Lost(String),
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Why it ended.
    pub ended: Ended,
    /// How long it ran.
    pub after: Duration,
    /// The last lines of its own output.
    pub output: Vec<String>,
}

impl Exit {
    /// Whether the platform stopped it.
    #[must_use]
    pub const fn is_stop(&self) -> bool {
        matches!(self.ended, Ended::Stopped { .. })
    }

    /// Whether its own folders were full: their content must be removed before it can start again.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self.ended, Ended::OutOfDisk(_) | Ended::TooManyFiles(_))
    }

    /// How it ended in a sentence, without its output.
    #[must_use]
    pub fn summary(&self) -> String {
        let after = match self.after {
            after if after < Duration::from_secs(2) => "at once".to_owned(),
            after => format!("after {} seconds", after.as_secs()),
        };
        match &self.ended {
            Ended::Status(127) => format!("exited {after} with status 127 (a command was not found)"),
            Ended::Status(status) => format!("exited {after} with status {status}"),
            Ended::Signal(signal) => format!("was killed {after} by signal {signal}{}", signal_name(*signal)),
            Ended::Stopped { forced: false } => "stopped".to_owned(),
            Ended::Stopped { forced: true } => "did not stop on SIGTERM in time and was killed".to_owned(),
            Ended::OutOfMemory(limit) => {
                format!("was ended {after}: it used more than its {} MiB of memory", limit / 1_048_576)
            }
            Ended::TooManyProcesses(limit) => format!("was ended {after}: it started more than {limit} processes"),
            Ended::OutOfDisk(limit) => format!(
                "was ended {after}: it kept more than {} MiB in its own folder, the release included",
                limit / 1_048_576
            ),
            Ended::TooManyFiles(limit) => {
                format!("was ended {after}: it kept more than {limit} files in its own folder, the release included")
            }
            Ended::Lost(reason) => format!("was lost {after}: {reason}"),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        if self.is_stop() { Ok(()) } else { f.write_str(&said(&self.output)) }
    }
}

fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal).map(|signal| format!(" ({signal})")).unwrap_or_default()
}

/// What a runtime and the handle of an instance share.
pub(super) struct Link {
    pub(super) tail: Arc<Mutex<LastLines>>,
    pub(super) exit: watch::Receiver<Option<Exit>>,
    /// Each message is a grace period; the shortest wins.
    pub(super) stop: mpsc::UnboundedSender<Duration>,
    pub(super) usage: watch::Receiver<Usage>,
    /// Looks where its processes listen.
    pub(super) listeners: Arc<dyn Fn() -> BoxFuture<'static, Listeners> + Send + Sync>,
}

/// A running instance. When dropped, it stops in the background within the grace of its specification.
pub struct RunningInstance {
    pub(super) id: InstanceId,
    pub(super) process: String,
    pub(super) pid: Option<u32>,
    pub(super) port: Option<u16>,
    pub(super) on_v6: AtomicBool,
    pub(super) started_at: DateTime<Utc>,
    pub(super) link: Link,
}

impl fmt::Debug for RunningInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, process, pid, port, .. } = self;
        write!(f, "RunningInstance({process} {id}, pid {pid:?}, port {port:?})")
    }
}

impl RunningInstance {
    /// Its identity.
    #[must_use]
    pub const fn id(&self) -> InstanceId {
        self.id
    }

    /// Its process type.
    #[must_use]
    pub fn process(&self) -> &str {
        &self.process
    }

    /// Its main process, on runtimes that have one.
    #[must_use]
    pub const fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The port it was given.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// Where it answers: on 127.0.0.1, or on ::1 when it was found to listen only there.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        let host: IpAddr =
            if self.on_v6.load(Ordering::Relaxed) { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        self.port.map(|port| SocketAddr::new(host, port))
    }

    /// Time of the start.
    #[must_use]
    pub const fn started_at(&self) -> DateTime<Utc> {
        self.started_at
    }

    /// Its usage, measured every second.
    #[must_use]
    pub fn usage(&self) -> Usage {
        *self.link.usage.borrow()
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.link.exit.borrow().clone()
    }

    /// The last lines of its own output.
    #[must_use]
    pub fn last_lines(&self) -> Vec<String> {
        self.link.tail.lock().lines()
    }

    /// Waits until it has ended, with everything it started. May be called many times.
    pub fn exited(&self) -> impl Future<Output = Exit> + Send + 'static + use<> {
        let mut exit = self.link.exit.clone();
        let tail = self.link.tail.clone();
        async move {
            if let Ok(exit) = exit.wait_for(Option::is_some).await
                && let Some(exit) = exit.clone()
            {
                return exit;
            }
            let ended = Ended::Lost("the node stopped watching it".to_owned());
            Exit { ended, after: Duration::ZERO, output: tail.lock().lines() }
        }
    }

    /// Begins to stop it and returns at once: SIGTERM to all its processes, and SIGKILL to what is left after `grace`.
    pub fn begin_stop(&self, grace: Duration) {
        // The receiver is gone when the instance has ended.
        let _ = self.link.stop.send(grace);
    }

    /// Stops it and waits until none of its processes is left. A second call with a shorter grace shortens the first.
    pub async fn stop(&self, grace: Duration) -> Exit {
        self.begin_stop(grace);
        self.exited().await
    }

    /// Checks its health once. An instance without a port is healthy while it runs.
    ///
    /// # Errors
    /// When it is not healthy.
    pub async fn probe(&self, check: &HealthCheck) -> Result<(), Unhealthy> {
        let Some(address) = self.address() else { return Ok(()) };
        let result = probe(address, check).await;
        if let Err(Unhealthy::NotListening { .. }) = &result {
            let other: IpAddr = if address.is_ipv6() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            if probe(SocketAddr::new(other, address.port()), check).await.is_ok() {
                self.on_v6.store(other.is_ipv6(), Ordering::Relaxed);
                return Ok(());
            }
        }
        result
    }

    /// Waits until it is healthy. It keeps running whatever the outcome.
    ///
    /// # Errors
    /// When it ends before, or is not healthy within the check's grace, or `cancel` is cancelled.
    pub async fn ready(&self, check: &HealthCheck, cancel: &CancellationToken) -> Result<(), StartError> {
        tokio::select! {
            biased;
            exit = self.exited() => {
                Err(StartError::Exited { process: self.process.clone(), exit, port: self.port })
            }
            () = cancel.cancelled() => Err(StartError::Cancelled { process: self.process.clone() }),
            result = self.healthy(check) => result,
        }
    }

    async fn healthy(&self, check: &HealthCheck) -> Result<(), StartError> {
        let Some(port) = self.port else {
            tokio::time::sleep(check.settle).await;
            return Ok(());
        };
        let deadline = Instant::now() + check.grace;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let check = HealthCheck { timeout: check.timeout.min(left.max(Duration::from_millis(1))), ..check.clone() };
            // Another process that took the port first is not the instance, however well it answers.
            let reason = match self.probe(&check).await {
                Ok(()) if self.is_another().await => Unhealthy::Another { port },
                Ok(()) => return Ok(()),
                Err(reason) => reason,
            };
            if Instant::now() + check.interval >= deadline {
                let (process, grace, output) = (self.process.clone(), check.grace, self.last_lines());
                let is_taken = matches!(reason, Unhealthy::Another { .. });
                if is_taken || matches!(reason, Unhealthy::NotListening { .. }) {
                    // A slow app may have begun to listen on its own port just now, which is not another port.
                    let ports = self.listeners().await.ports();
                    let listens_on = ports.into_iter().filter(|other| *other != port).collect();
                    return Err(StartError::NeverListened { process, port, grace, listens_on, is_taken, output });
                }
                return Err(StartError::Unhealthy { process, grace, reason, output });
            }
            tokio::time::sleep(check.interval).await;
        }
    }

    /// Whether it is certain that what answers at its address is another process.
    async fn is_another(&self) -> bool {
        let Some(address) = self.address() else { return false };
        self.listeners().await.cannot_answer(address)
    }

    async fn listeners(&self) -> Listeners {
        (self.link.listeners)().await
    }
}
