//! The threads of the domain that may wait for a disk.
//!
//! One pool for each kind of work, so that slow work delays no other kind: while one folder of a hundred thousand files
//! is removed or measured, other apps are unpacked, packed, started and measured.

use std::io;

use callboard_supervisors::BlockingPool;

/// The pools; one set per node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pools {
    /// For short work that is awaited: starts processes and looks at them, creates and moves single files and folders.
    pub prompt: BlockingPool,
    /// For unpacking, packing and scanning sources.
    pub archives: BlockingPool,
    /// For making plans of builds: what a plan is read from is the app's, and slow to read delays no restart of others.
    pub plans: BlockingPool,
    /// For measuring builds and instances, again and again.
    pub measures: BlockingPool,
    /// For removals. One thread: nothing waits for it, and all share the disk.
    pub removals: BlockingPool,
}

impl Default for Pools {
    fn default() -> Self {
        Self {
            prompt: BlockingPool::prompt("deploy-prompt", 2, 1024),
            archives: BlockingPool::new("deploy-archives", 2, 256),
            plans: BlockingPool::new("deploy-plans", 2, 256),
            measures: BlockingPool::new("deploy-measures", 2, 1024),
            removals: BlockingPool::new("deploy-removals", 1, 16),
        }
    }
}

/// Runs `job` on a thread of the pool; a refusal by the pool becomes an I/O error.
pub(crate) async fn io<T: Send + 'static>(
    pool: &BlockingPool,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    pool.run(None, job).await.map_err(io::Error::other)?
}
