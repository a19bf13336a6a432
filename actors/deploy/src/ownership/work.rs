//! The registry of builds and rollouts in progress on this node, by which a cancel, or the loss of ownership, ends them.

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

/// The builds and rollouts in progress. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkRegistry {
    begun: Arc<Mutex<Begun>>,
    numbers: Arc<AtomicU64>,
}

/// Registration of one build or rollout; dropped when it ends.
#[derive(Debug)]
pub(crate) struct WorkGuard {
    key: (DeploymentId, Work),
    number: u64,
    /// Cancels the build or rollout.
    pub(crate) cancel: CancellationToken,
    all: WorkRegistry,
}

impl Drop for WorkGuard {
    fn drop(&mut self) {
        let mut begun = self.all.begun.lock();
        // What has begun under the same name since is not ours.
        if begun.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            begun.remove(&self.key);
        }
    }
}

impl WorkRegistry {
    /// Registers a build or rollout that `cancel` ends.
    pub(crate) fn begin(&self, id: DeploymentId, work: Work, cancel: CancellationToken) -> WorkGuard {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.begun.lock().insert((id, work), (number, cancel.clone()));
        WorkGuard { key: (id, work), number, cancel, all: self.clone() }
    }

    /// Cancels the build and the rollout of a deployment.
    pub(crate) fn cancel(&self, id: DeploymentId) {
        self.cancel_work(id, Work::Build);
        self.cancel_work(id, Work::Rollout);
    }

    /// Cancels one of them.
    pub(crate) fn cancel_work(&self, id: DeploymentId, work: Work) {
        if let Some((_, cancel)) = self.begun.lock().get(&(id, work)) {
            cancel.cancel();
        }
    }

    /// Whether it is in progress.
    pub(crate) fn has(&self, id: DeploymentId, work: Work) -> bool {
        self.begun.lock().contains_key(&(id, work))
    }

    /// All builds and rollouts in progress.
    pub(crate) fn all(&self) -> Vec<(DeploymentId, Work)> {
        self.begun.lock().keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_build_leaves_the_rollout_of_the_same_deployment_alone() {
        let (all, id) = (WorkRegistry::default(), DeploymentId::new());
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
