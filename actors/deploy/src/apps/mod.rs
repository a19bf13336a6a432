//! The apps that run: an actor for each, with its instances, supervised apart from the others.
//!
//! An app's actor looks at what the store wants and at what runs, and brings the two together; a signal only wakes it.
//! So whatever happened before, a crash or a start of the node, the same actor does the same thing. An app of which
//! nothing runs and nothing is wanted has no actor: a row costs no memory.
//!
//! Among nodes an app belongs to one: see [`ownership`](crate::ownership).

mod app;
pub(crate) mod events;
pub(crate) mod formation;
mod reconciler;
mod removal;
mod replica;
pub(crate) mod retention;
pub(crate) mod rollout;
mod runner;
mod supervisor;
mod target;

use std::{collections::HashMap, sync::Arc};

use callboard_messages::ProjectId;
use parking_lot::Mutex;
use tokio::sync::mpsc;

pub(crate) use self::app::App;
pub(crate) use self::supervisor::supervisor;

/// Which apps have an actor, and the way to the keeper who starts and ends them.
pub(crate) struct Stage {
    apps: Mutex<HashMap<ProjectId, Arc<App>>>,
    requests: mpsc::UnboundedSender<Request>,
    /// The keeper's, which takes it up again when it is rebuilt.
    received: tokio::sync::Mutex<mpsc::UnboundedReceiver<Request>>,
}

/// What the keeper is asked to do.
enum Request {
    /// Something about the app has changed in the store.
    Wake(ProjectId),
    /// The app's actor has nothing more to do, unless it was woken since this many times.
    Rest(Arc<App>, u64),
}

impl Default for Stage {
    fn default() -> Self {
        let (requests, received) = mpsc::unbounded_channel();
        Self { apps: Mutex::default(), requests, received: tokio::sync::Mutex::new(received) }
    }
}

impl Stage {
    /// Has the app's actor look at the store, which starts it if there is none.
    pub(crate) fn wake(&self, project_id: ProjectId) {
        let apps = self.apps.lock();
        match apps.get(&project_id) {
            Some(app) => app.wake(),
            // The receiver lives as long as the sender: here.
            None => drop(self.requests.send(Request::Wake(project_id))),
        }
    }

    /// The app, while it has an actor.
    pub(crate) fn get(&self, project_id: ProjectId) -> Option<Arc<App>> {
        self.apps.lock().get(&project_id).cloned()
    }

    /// The app's actor has nothing more to do for now.
    pub(crate) fn rest(&self, app: &Arc<App>, wakes: u64) {
        drop(self.requests.send(Request::Rest(app.clone(), wakes)));
    }

    /// All apps that have an actor.
    pub(crate) fn all(&self) -> Vec<Arc<App>> {
        self.apps.lock().values().cloned().collect()
    }

    /// Forgets all apps: their actors have ended for good.
    pub(crate) fn clear(&self) {
        self.apps.lock().clear();
    }

    /// How many instances there are on the node.
    pub(crate) fn instances(&self) -> usize {
        self.apps.lock().values().map(|app| app.instances().len()).sum()
    }
}
