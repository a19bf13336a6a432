//! The apps that run: an actor for each, with its instances, supervised apart from the others.
//!
//! An app's actor ([`reconciler`]) compares the desired state in the store with what runs and reconciles the two; a signal
//! only wakes it. So after a crash or a start of the node the same actor does the same thing. An app that is idle, with
//! nothing running and nothing desired, has no actor: a row costs no memory.
//!
//! Among nodes an app belongs to one: see [`ownership`](crate::ownership).

mod app;
pub(crate) mod events;
pub(crate) mod formation;
mod instance;
mod reconciler;
mod release_command;
mod removal;
pub(crate) mod retention;
pub(crate) mod rollout;
mod runner;
mod supervisor;
mod target;
mod unpacked;

use std::{collections::HashMap, sync::Arc};

use callboard_messages::ProjectId;
use parking_lot::Mutex;
use tokio::sync::mpsc;

pub(crate) use self::app::App;
pub(crate) use self::supervisor::supervisor;

/// The apps that have an actor on this node, and the request queue of the registrar, which starts and ends actors.
pub(crate) struct AppRegistry {
    actors: Mutex<HashMap<ProjectId, Arc<App>>>,
    requests: mpsc::UnboundedSender<Request>,
    /// Survives a restart of the registrar, which takes it again.
    received: tokio::sync::Mutex<mpsc::UnboundedReceiver<Request>>,
}

/// A request to the registrar.
enum Request {
    /// The app's row has changed: start an actor if it needs one.
    Wake(ProjectId),
    /// The app's actor is idle, unless it was woken since it counted this many wakes.
    Idle(Arc<App>, u64),
}

impl Default for AppRegistry {
    fn default() -> Self {
        let (requests, received) = mpsc::unbounded_channel();
        Self { actors: Mutex::default(), requests, received: tokio::sync::Mutex::new(received) }
    }
}

impl AppRegistry {
    /// Wakes the app's actor, or starts it if there is none.
    pub(crate) fn wake(&self, project_id: ProjectId) {
        let apps = self.actors.lock();
        match apps.get(&project_id) {
            Some(app) => app.wake(),
            // The receiver lives as long as the sender: here.
            None => drop(self.requests.send(Request::Wake(project_id))),
        }
    }

    /// The app, while it has an actor.
    pub(crate) fn get(&self, project_id: ProjectId) -> Option<Arc<App>> {
        self.actors.lock().get(&project_id).cloned()
    }

    /// Reports the app's actor idle.
    pub(crate) fn idle(&self, app: &Arc<App>, wakes: u64) {
        drop(self.requests.send(Request::Idle(app.clone(), wakes)));
    }

    /// All apps that have an actor.
    pub(crate) fn all(&self) -> Vec<Arc<App>> {
        self.actors.lock().values().cloned().collect()
    }

    /// Forgets all apps: their actors have ended for good.
    pub(crate) fn clear(&self) {
        self.actors.lock().clear();
    }

    /// The number of instances on this node.
    pub(crate) fn instances(&self) -> usize {
        self.actors.lock().values().map(|app| app.instances().len()).sum()
    }
}
