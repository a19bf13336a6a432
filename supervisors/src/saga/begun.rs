//! The sagas that are driven for whoever began them here, so that they can be handed over when the domain stops.

use std::collections::HashMap;

use tokio::{
    sync::{oneshot, watch},
    task::AbortHandle,
};
use uuid::Uuid;

use super::{
    driver::{Driver, Ended},
    log::HeldSaga,
};
use crate::tasks::anchored::Anchored;

/// Their tokens, and their tasks. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Begun(watch::Sender<HashMap<Uuid, (i64, AbortHandle)>>);

/// One of them, for as long as its task lives.
struct Entry(Begun, Uuid);

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.0.send_modify(|begun| drop(begun.remove(&self.1)));
    }
}

impl Begun {
    /// Drives a saga as a task of this thread.
    pub(super) fn drive(&self, driver: Driver, ended: oneshot::Sender<Ended>) {
        let HeldSaga { id, token } = driver.held;
        let entry = Entry(self.clone(), id);
        let task = actix_rt::spawn(Anchored::new(async move {
            let _entry = entry;
            // Nobody may wait for it any more.
            let _ = ended.send(driver.drive().await);
        }));
        self.0.send_modify(|begun| drop(begun.insert(id, (token, task.abort_handle()))));
    }

    /// Waits until each of them has ended.
    pub(super) async fn ended(&self) {
        // The sender is here.
        let _ = self.0.subscribe().wait_for(HashMap::is_empty).await;
    }

    /// Drives none of them any further.
    pub(super) fn abandon(&self) -> Vec<HeldSaga> {
        let begun = self.0.send_replace(HashMap::new());
        let abandon = |(id, (token, task)): (Uuid, (i64, AbortHandle))| {
            task.abort();
            HeldSaga { id, token }
        };
        begun.into_iter().map(abandon).collect()
    }
}
