//! The state of an instance, which its app, its runner and the domain's handlers share.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use callboard_messages::{
    InstanceId,
    deploy::{Instance, InstanceStatus},
};
use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::target::Target;
use crate::context::Context;

/// An instance: a running copy of a process type. Each start of its process gets a new run id.
pub(crate) struct AppInstance {
    pub(crate) id: InstanceId,
    pub(crate) process: String,
    pub(crate) index: u32,
    /// The name of its runner, unique on the node.
    pub(crate) name: String,
    pub(crate) target: Arc<Target>,
    pub(crate) state: watch::Sender<State>,
    pub(crate) stopping: CancellationToken,
    /// Stops with the short drain time.
    hurried: AtomicBool,
}

/// What changes about an instance.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) status: InstanceStatus,
    /// The id of the process that runs now, by which the router knows it.
    pub(crate) run: Uuid,
    pub(crate) pid: Option<u32>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) restarts: u32,
    pub(crate) last_exit: Option<String>,
    /// The last lines of its own output before it ended.
    pub(crate) last_words: Vec<String>,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) gone: bool,
}

/// The outcome of starting an instance.
pub(crate) enum Settled {
    /// It is healthy and serves.
    Healthy,
    /// It ended, or was not healthy in time.
    Failed {
        sentence: String,
        /// The last lines of its own output.
        last_words: Vec<String>,
    },
}

impl AppInstance {
    pub(crate) fn new(context: &Context, target: Arc<Target>, process: &str, index: u32) -> Self {
        let id = InstanceId::new();
        let state = State {
            status: InstanceStatus::Starting,
            run: id.0,
            pid: None,
            address: None,
            restarts: 0,
            last_exit: None,
            last_words: Vec::new(),
            started_at: context.clock.now(),
            gone: false,
        };
        Self {
            id,
            process: process.to_owned(),
            index,
            name: format!("{process}.{index} {id}"),
            target,
            state: watch::Sender::new(state),
            stopping: CancellationToken::new(),
            hurried: AtomicBool::new(false),
        }
    }

    /// `web.1`.
    pub(crate) fn title(&self) -> String {
        format!("{}.{}", self.process, self.index)
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.state.borrow().status == InstanceStatus::Healthy
    }

    /// Whether it was asked to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// As clients see it.
    pub(crate) fn view(&self) -> Instance {
        let state = self.state();
        Instance {
            id: self.id,
            process: self.process.clone(),
            index: self.index,
            release_version: self.target.release.version,
            status: state.status,
            pid: state.pid,
            port: state.address.map(|address| address.port()),
            restarts: state.restarts,
            last_exit: state.last_exit,
            started_at: state.started_at,
        }
    }

    /// Whether it stops with the short drain time.
    pub(crate) fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::SeqCst)
    }

    /// Marks it as stopping; its runner then stops the process.
    pub(crate) fn begin_stop(&self, hurried: bool) {
        self.hurried.fetch_or(hurried, Ordering::SeqCst);
        self.state.send_modify(|state| state.status = InstanceStatus::Stopping);
        self.stopping.cancel();
    }

    /// Waits until it is healthy or has failed for the first time.
    pub(crate) async fn settled(&self) -> Settled {
        let mut state = self.state.subscribe();
        let settled =
            |state: &State| state.gone || state.last_exit.is_some() || state.status == InstanceStatus::Healthy;
        match state.wait_for(settled).await {
            Ok(state) if state.status == InstanceStatus::Healthy => Settled::Healthy,
            Ok(state) => {
                let sentence = state.last_exit.clone().unwrap_or_else(|| format!("{} was stopped", self.process));
                Settled::Failed { sentence, last_words: state.last_words.clone() }
            }
            // The sender is this instance's own, so it is not gone before it.
            Err(_) => Settled::Failed { sentence: "it was stopped".to_owned(), last_words: Vec::new() },
        }
    }

    /// Waits until its process and its folder are gone.
    pub(crate) async fn gone(&self) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| state.gone).await;
    }
}
