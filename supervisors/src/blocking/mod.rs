//! Work that burns CPU or blocks: bounded pools on threads of their own, one per kind, never a shard's thread.
//!
//! The threads of a pool take jobs by arrival, or in turns of their subjects ([`Turn`]).

pub mod fs;
mod line;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use callboard_messages::Failure;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

pub use line::Turn;

use crate::time::clock::Clock;
use line::{Cut, Line, Pace, RETRY_AFTER};

/// Niceness of the threads: a burst of hashing gets the processor time that is left, and can't slow a shard on the same
/// core.
const NICENESS: i32 = 10;

/// A bounded pool of threads. Cheap to clone; its threads end with the last clone.
#[derive(Clone)]
pub struct BlockingPool(Arc<Owner>);

/// Ends the threads when the last handle is dropped: they hold only the [`Pool`].
struct Owner(Arc<Pool>);

struct Pool {
    name: &'static str,
    threads: usize,
    work: Mutex<Work>,
    available: Condvar,
    clock: Clock,
}

struct Work {
    line: Line<Job>,
    running: usize,
    /// Smoothed duration of a job; zero before the first has ended.
    mean: Duration,
    rejected: u64,
    panics: u64,
    closed: bool,
}

/// Runs and answers its caller, or passes it the failure; returns the message of its panic.
type Job = Box<dyn FnOnce(Result<(), Failure>) -> Option<String> + Send>;

/// Limits of waiting jobs.
#[derive(Debug, Clone, Copy)]
struct QueueLimits {
    limit: usize,
    /// Of one subject, where the threads are shared in turns.
    share: Option<usize>,
}

/// The priority of a pool's threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Priority {
    Usual,
    /// Below that of the shards.
    Patient,
}

/// The state of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct BlockingView {
    /// The pool's name.
    pub name: &'static str,
    /// Its threads.
    pub threads: usize,
    /// Jobs that run.
    pub running: usize,
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that may wait.
    pub limit: usize,
    /// Jobs refused since the start.
    pub rejected: u64,
    /// Jobs that panicked since the start.
    pub panics: u64,
}

/// Lowers this thread's priority; on Linux niceness is per thread.
fn stand_back(pool: &str) {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::warn!(pool, %error, "the threads of this pool keep the usual priority");
    }
}

impl BlockingPool {
    /// A pool of `threads` threads, for which `queue` jobs may wait; each at least 1.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn try_new(name: &'static str, threads: usize, queue: usize, clock: Clock) -> std::io::Result<Self> {
        Self::start(name, threads, QueueLimits { limit: queue, share: None }, clock, Priority::Patient)
    }

    /// A pool by the system's clock.
    ///
    /// # Panics
    /// When the operating system refuses a thread.
    #[must_use]
    pub fn new(name: &'static str, threads: usize, queue: usize) -> Self {
        Self::started(name, threads, QueueLimits { limit: queue, share: None }, Priority::Patient)
    }

    /// A pool for short jobs that a caller awaits: its threads have normal priority, and so have the processes that
    /// they start.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn prompt(name: &'static str, threads: usize, queue: usize) -> Self {
        Self::started(name, threads, QueueLimits { limit: queue, share: None }, Priority::Usual)
    }

    /// A pool whose jobs take turns: `queue` jobs may wait, `share` of them of one subject.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn shared(name: &'static str, threads: usize, queue: usize, share: usize) -> Self {
        Self::started(name, threads, QueueLimits { limit: queue, share: Some(share) }, Priority::Patient)
    }

    #[expect(clippy::panic, reason = "called once at start, where there is nothing to fall back to")]
    fn started(name: &'static str, threads: usize, limits: QueueLimits, priority: Priority) -> Self {
        match Self::start(name, threads, limits, Clock::system(), priority) {
            Ok(pool) => pool,
            Err(error) => panic!("cannot start the threads of the pool {name}: {error}"),
        }
    }

    fn start(
        name: &'static str,
        threads: usize,
        limits: QueueLimits,
        clock: Clock,
        priority: Priority,
    ) -> std::io::Result<Self> {
        let work = Work {
            line: Line::new(limits.limit, limits.share),
            running: 0,
            mean: Duration::ZERO,
            rejected: 0,
            panics: 0,
            closed: false,
        };
        let pool =
            Arc::new(Pool { name, threads: threads.max(1), work: Mutex::new(work), available: Condvar::new(), clock });
        let owner = Owner(pool.clone());
        for index in 0..pool.threads {
            let pool = pool.clone();
            thread::Builder::new().name(format!("{name}-{index}")).spawn(move || {
                if priority == Priority::Patient {
                    stand_back(pool.name);
                }
                pool.work();
            })?;
        }
        Ok(Self(Arc::new(owner)))
    }

    /// The clock of its jobs' deadlines.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.0.clock
    }

    /// Runs `job` on a thread of the pool and awaits it, no longer than to `deadline`.
    ///
    /// # Errors
    /// - [`Failure::Overloaded`]: the queue is full, nothing was executed.
    /// - [`Failure::Expired`]: the deadline passed first, nothing was or will be executed.
    /// - [`Failure::Timeout`]: the deadline passed while it ran; it runs to its end, and its result is lost.
    /// - [`Failure::Internal`]: it panicked; the thread lives on.
    pub async fn run<T: Send + 'static>(
        &self,
        deadline: Option<Instant>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        self.run_in_turn(Turn::default(), deadline, job).await
    }

    /// The same in turns. In a pool that is [`shared`](Self::shared), a job that would not be done by its deadline is
    /// refused at once, or as soon as others take its place.
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`Failure::RateLimited`]: the subject's other jobs are in the way, nothing was
    /// executed.
    pub async fn run_in_turn<T: Send + 'static>(
        &self,
        turn: Turn,
        deadline: Option<Instant>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let pool = &*self.0.0;
        if deadline.is_some_and(|deadline| deadline <= pool.clock.instant()) {
            return Err(Failure::Expired);
        }
        let (reply, replied) = oneshot::channel();
        let id = pool.submit(turn, deadline, {
            let name = pool.name;
            Box::new(move |has_turn| {
                let ran =
                    has_turn.map(|()| catch_unwind(AssertUnwindSafe(job)).map_err(|panic| panic_message(&*panic)));
                let panic = ran.as_ref().ok().and_then(|ran| ran.as_ref().err().cloned());
                let failed = |panic| Failure::Internal(format!("a job of the pool {name} panicked: {panic}"));
                let _ = reply.send(ran.and_then(|ran| ran.map_err(failed)));
                panic
            })
        });
        let waiting = Waiting { pool, id };

        let outcome = match deadline {
            None => replied.await,
            Some(deadline) => match pool.clock.timeout_at(deadline, replied).await {
                Some(outcome) => outcome,
                None if waiting.withdraw() => return Err(Failure::Expired),
                None => return Err(Failure::Timeout),
            },
        };
        outcome.unwrap_or(Err(Failure::Unavailable { retry_after: RETRY_AFTER }))
    }

    /// Queues `job` for a thread of the pool; its end is not awaited.
    ///
    /// # Errors
    /// [`Failure::Overloaded`]: the queue is full, and the job will not run.
    pub fn begin(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        let refused = Arc::new(Mutex::new(None));
        self.0.0.submit(Turn::default(), None, {
            let refused = refused.clone();
            Box::new(move |has_turn| match has_turn {
                Ok(()) => catch_unwind(AssertUnwindSafe(job)).err().map(|panic| panic_message(&*panic)),
                Err(failure) => {
                    *refused.lock() = Some(failure);
                    None
                }
            })
        });
        refused.lock().take().map_or(Ok(()), Err)
    }

    /// The state of the pool.
    #[must_use]
    pub fn view(&self) -> BlockingView {
        let pool = &self.0.0;
        let work = pool.work.lock();
        BlockingView {
            name: pool.name,
            threads: pool.threads,
            running: work.running,
            queued: work.line.len(),
            limit: work.line.limit,
            rejected: work.rejected,
            panics: work.panics,
        }
    }
}

impl fmt::Debug for BlockingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

impl Pool {
    fn submit(&self, turn: Turn, deadline: Option<Instant>, job: Job) -> u64 {
        let now = self.clock.instant();
        let mut work = self.work.lock();
        let pace = Pace { threads: self.threads, running: work.running, mean: work.mean };
        let (id, cut) = work.line.enter(turn, deadline, job, pace, now);
        work.rejected += cut.len() as u64;
        drop(work);
        self.available.notify_one();
        for Cut { job, failure } in cut {
            let _ = job(Err(failure));
        }
        id
    }

    fn work(&self) {
        let mut work = self.work.lock();
        loop {
            if let Some(job) = work.line.next() {
                work.running += 1;
                let began = self.clock.instant();
                drop(work);
                let panic = job(Ok(()));
                let took = self.clock.instant().saturating_duration_since(began);
                if let Some(message) = &panic {
                    tracing::error!(pool = self.name, panic = %message, "a blocking job panicked");
                }
                work = self.work.lock();
                work.running -= 1;
                work.mean = if work.mean.is_zero() { took } else { work.mean * 3 / 4 + took / 4 };
                work.panics += u64::from(panic.is_some());
            } else if work.closed {
                return;
            } else {
                self.available.wait(&mut work);
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.work.lock().closed = true;
        self.0.available.notify_all();
    }
}

/// A caller that waits; when it is dropped, its job is removed if no thread has taken it yet.
struct Waiting<'a> {
    pool: &'a Pool,
    id: u64,
}

impl Waiting<'_> {
    fn withdraw(&self) -> bool {
        let job = self.pool.work.lock().line.withdraw(self.id);
        job.is_some()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// The message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
