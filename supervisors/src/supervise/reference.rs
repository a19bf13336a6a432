//! The handle of a running supervisor.

use std::{borrow::Cow, sync::Arc};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::ChildSpec;
use crate::restart::Exit;

pub(super) enum Command {
    Start(ChildSpec, oneshot::Sender<Result<(), String>>),
    Stop(String, oneshot::Sender<bool>),
}

/// A handle to a running supervisor, from any thread. Cheap to clone.
#[derive(Clone)]
pub struct SupervisorRef {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) stop: CancellationToken,
    pub(super) views: Arc<Views>,
    pub(super) end: watch::Receiver<Option<Exit>>,
}

impl SupervisorRef {
    /// Starts a child beside the others.
    ///
    /// # Errors
    /// The name is taken, or the supervisor has ended.
    pub async fn start_child(&self, spec: ChildSpec) -> Result<(), String> {
        let (reply, replied) = oneshot::channel();
        let ended = || "the supervisor has ended".to_owned();
        self.commands.send(Command::Start(spec, reply)).map_err(|_| ended())?;
        replied.await.map_err(|_| ended())?
    }

    /// Stops and removes a child; false when there is none of this name.
    pub async fn stop_child(&self, name: &str) -> bool {
        let (reply, replied) = oneshot::channel();
        self.commands.send(Command::Stop(name.to_owned(), reply)).is_ok() && replied.await.unwrap_or(false)
    }

    /// The children now.
    #[must_use]
    pub fn children(&self) -> Vec<ChildView> {
        self.views.resolve()
    }

    /// Asks it to stop without waiting.
    pub(crate) fn stop_soon(&self) {
        self.stop.cancel();
    }

    /// Stops all children in reverse order, then the supervisor, and waits for it.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.ended().await;
    }

    /// Whether it and its children have ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.end.borrow().is_some() || self.end.has_changed().is_err()
    }

    /// Waits until it has ended. Returns how.
    pub async fn ended(&self) -> Exit {
        let mut end = self.end.clone();
        match end.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or(Exit::Shutdown),
            Err(_) => Exit::Abnormal("the supervisor's thread ended".to_owned()),
        }
    }
}

/// The state of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildState {
    /// It runs.
    Running,
    /// It ended and is restarted after its back-off.
    Waiting,
    /// It ended and is not restarted.
    Ended,
}

/// A child now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChildView {
    /// The child's name.
    pub name: Cow<'static, str>,
    /// What it does.
    pub state: ChildState,
    /// Number of restarts.
    pub restarts: u64,
    /// Its own children, if it is a supervisor.
    pub children: Vec<ChildView>,
}

/// The children of a supervisor, and those of each of them.
#[derive(Default)]
pub(crate) struct Views(pub(super) Mutex<Vec<(ChildView, Arc<Views>)>>);

impl Views {
    fn resolve(&self) -> Vec<ChildView> {
        let own = self.0.lock().clone();
        own.into_iter().map(|(view, below)| ChildView { children: below.resolve(), ..view }).collect()
    }
}
