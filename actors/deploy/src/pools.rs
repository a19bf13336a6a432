//! The threads of the domain that may wait for a disk.
//!
//! One pool for each kind of work, so that what takes long holds up nothing of another kind: while one folder of a hundred
//! thousand files is removed or measured, other apps are unpacked, packed, started and looked at.

use std::io;

use callboard_supervisors::BlockingPool;

/// The pools; one set per node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pools {
    /// What is short and waited for: starts processes and looks at them, makes and moves single files and folders.
    pub prompt: BlockingPool,
    /// Unpacks, packs and looks through sources.
    pub archives: BlockingPool,
    /// Measures what builds and instances keep, again and again.
    pub measures: BlockingPool,
    /// Removes what nobody needs any more. One thread: nobody waits for it, and all share the disk.
    pub removals: BlockingPool,
}

impl Default for Pools {
    fn default() -> Self {
        Self {
            prompt: BlockingPool::prompt("deploy-prompt", 2, 1024),
            archives: BlockingPool::new("deploy-archives", 2, 256),
            measures: BlockingPool::new("deploy-measures", 2, 1024),
            removals: BlockingPool::new("deploy-removals", 1, 16),
        }
    }
}

/// Runs `job` on a thread of the pool; a pool that takes nothing is an error as one of the disk is.
pub(crate) async fn io<T: Send + 'static>(
    pool: &BlockingPool,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    pool.run(None, job).await.map_err(io::Error::other)?
}
