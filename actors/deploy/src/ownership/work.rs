//! The builds and rollouts that are under way on this node, so that whoever cancels one, or finds that it is another
//! node's by now, can end it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use callboard_messages::DeploymentId;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// What a node does for a deployment. A node that has built one may roll it out before the builder is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    Build,
    Rollout,
}

type Begun = HashMap<(DeploymentId, Work), (u64, CancellationToken)>;

/// All of them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnderWay {
    begun: Arc<Mutex<Begun>>,
    numbers: Arc<AtomicU64>,
}

/// One of them, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Errand {
    key: (DeploymentId, Work),
    number: u64,
    /// Ends it.
    pub(crate) cancel: CancellationToken,
    all: UnderWay,
}

impl Drop for Errand {
    fn drop(&mut self) {
        let mut begun = self.all.begun.lock();
        // What has begun under the same name since is not ours.
        if begun.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            begun.remove(&self.key);
        }
    }
}

impl UnderWay {
    /// Begins one; `cancel` is what its row or its owner can end it by from now on.
    pub(crate) fn begin(&self, id: DeploymentId, work: Work, cancel: CancellationToken) -> Errand {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.begun.lock().insert((id, work), (number, cancel.clone()));
        Errand { key: (id, work), number, cancel, all: self.clone() }
    }

    /// Ends whatever is under way for a deployment.
    pub(crate) fn cancel(&self, id: DeploymentId) {
        self.cancel_work(id, Work::Build);
        self.cancel_work(id, Work::Rollout);
    }

    /// Ends one.
    pub(crate) fn cancel_work(&self, id: DeploymentId, work: Work) {
        if let Some((_, cancel)) = self.begun.lock().get(&(id, work)) {
            cancel.cancel();
        }
    }

    /// Whether one is under way.
    pub(crate) fn has(&self, id: DeploymentId, work: Work) -> bool {
        self.begun.lock().contains_key(&(id, work))
    }

    /// Everything that is under way.
    pub(crate) fn all(&self) -> Vec<(DeploymentId, Work)> {
        self.begun.lock().keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_build_leaves_the_rollout_of_the_same_deployment_alone() {
        let (all, id) = (UnderWay::default(), DeploymentId::new());
        let build = all.begin(id, Work::Build, CancellationToken::new());
        let rollout = all.begin(id, Work::Rollout, CancellationToken::new());
        drop(build);
        assert!(!all.has(id, Work::Build));
        all.cancel(id);
        assert!(rollout.cancel.is_cancelled());
        let again = all.begin(id, Work::Rollout, CancellationToken::new());
        drop(rollout);
        assert_eq!(all.all(), [(id, Work::Rollout)]);
        assert!(!again.cancel.is_cancelled());
    }
}
