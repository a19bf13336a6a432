//! Work that burns CPU or blocks: bounded pools on threads of their own, one per kind, never a shard's thread.

use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use callboard_messages::Failure;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::clock::Clock;

/// How much less the system favours these threads (`nice`): a storm of hashing takes what processor time is left, so that
/// it can't slow a shard that shares the core.
const NICENESS: i32 = 10;

/// What a caller that is refused is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A bounded pool of threads. Cheap to clone; its threads end with the last clone.
#[derive(Clone)]
pub struct BlockingPool(Arc<Owner>);

/// Ends the threads when the last handle is gone: they hold the inside only.
struct Owner {
    pool: Arc<Pool>,
    clock: Clock,
}

struct Pool {
    name: &'static str,
    threads: usize,
    limit: usize,
    work: Mutex<Work>,
    available: Condvar,
}

#[derive(Default)]
struct Work {
    jobs: VecDeque<Job>,
    next: u64,
    running: usize,
    rejected: u64,
    panics: u64,
    closed: bool,
}

struct Job {
    id: u64,
    run: Box<dyn FnOnce() -> Option<String> + Send>,
}

/// A look at a pool.
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

/// Lowers this thread's priority; on Linux that is a thread's own.
fn stand_back(pool: &str) {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::warn!(pool, %error, "the threads of this pool keep the usual priority");
    }
}

impl BlockingPool {
    /// A pool of `threads` threads, for which `queue` jobs may wait. At least one of each.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn try_new(name: &'static str, threads: usize, queue: usize, clock: Clock) -> std::io::Result<Self> {
        Self::start(name, threads, queue, clock, true)
    }

    fn start(
        name: &'static str,
        threads: usize,
        queue: usize,
        clock: Clock,
        stands_back: bool,
    ) -> std::io::Result<Self> {
        let pool = Arc::new(Pool {
            name,
            threads: threads.max(1),
            limit: queue.max(1),
            work: Mutex::default(),
            available: Condvar::new(),
        });
        let owner = Owner { pool: pool.clone(), clock };
        for index in 0..pool.threads {
            let pool = pool.clone();
            thread::Builder::new().name(format!("{name}-{index}")).spawn(move || {
                if stands_back {
                    stand_back(pool.name);
                }
                pool.work();
            })?;
        }
        Ok(Self(Arc::new(owner)))
    }

    /// A pool by the system's clock.
    ///
    /// # Panics
    /// When the operating system refuses a thread, which it does to nobody else at this point either.
    #[must_use]
    pub fn new(name: &'static str, threads: usize, queue: usize) -> Self {
        Self::must_start(name, threads, queue, true)
    }

    /// A pool for jobs that are short and waited for: its threads have the usual priority, and so have the processes that
    /// they start.
    ///
    /// # Panics
    /// As [`BlockingPool::new`].
    #[must_use]
    pub fn prompt(name: &'static str, threads: usize, queue: usize) -> Self {
        Self::must_start(name, threads, queue, false)
    }

    #[expect(clippy::panic, reason = "called once at start, where there is nothing to fall back to")]
    fn must_start(name: &'static str, threads: usize, queue: usize, stands_back: bool) -> Self {
        match Self::start(name, threads, queue, Clock::system(), stands_back) {
            Ok(pool) => pool,
            Err(error) => panic!("cannot start the threads of the pool {name}: {error}"),
        }
    }

    /// Runs `job` on a thread of the pool and waits for it, no longer than to `deadline`.
    ///
    /// # Errors
    /// - [`Failure::Overloaded`]: the queue is full, nothing was executed.
    /// - [`Failure::Expired`]: the deadline came first, nothing was or will be executed.
    /// - [`Failure::Timeout`]: the deadline came while it ran; it runs to its end, unheard.
    /// - [`Failure::Internal`]: it panicked; the thread lives on.
    pub async fn run<T: Send + 'static>(
        &self,
        deadline: Option<Instant>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let Owner { pool, clock } = &*self.0;
        if deadline.is_some_and(|deadline| deadline <= clock.instant()) {
            return Err(Failure::Expired);
        }
        let (reply, replied) = oneshot::channel();
        let id = pool.submit(Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(job)).map_err(|panic| panic_message(&*panic));
            let message = outcome.as_ref().err().cloned();
            let _ = reply.send(outcome);
            message
        }))?;
        let waiting = Waiting { pool, id };

        let outcome = match deadline {
            None => replied.await,
            Some(deadline) => match clock.timeout_at(deadline, replied).await {
                Some(outcome) => outcome,
                None if waiting.withdraw() => return Err(Failure::Expired),
                None => return Err(Failure::Timeout),
            },
        };
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => Err(Failure::Internal(format!("a job of the pool {} panicked: {panic}", pool.name))),
            Err(_closed) => Err(Failure::Unavailable { retry_after: RETRY_AFTER }),
        }
    }

    /// Has a thread of the pool run `job` sometime; nobody waits for it.
    ///
    /// # Errors
    /// [`Failure::Overloaded`]: the queue is full, and the job will not run.
    pub fn begin(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
        let run = move || catch_unwind(AssertUnwindSafe(job)).err().map(|panic| panic_message(&*panic));
        self.0.pool.submit(Box::new(run)).map(drop)
    }

    /// How full the pool is.
    #[must_use]
    pub fn view(&self) -> BlockingView {
        let pool = &self.0.pool;
        let work = pool.work.lock();
        BlockingView {
            name: pool.name,
            threads: pool.threads,
            running: work.running,
            queued: work.jobs.len(),
            limit: pool.limit,
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
    fn submit(&self, run: Box<dyn FnOnce() -> Option<String> + Send>) -> Result<u64, Failure> {
        let mut work = self.work.lock();
        // A job for which a thread is free does not wait.
        let idle = self.threads.saturating_sub(work.running);
        if work.jobs.len() >= self.limit + idle {
            work.rejected += 1;
            return Err(Failure::Overloaded { retry_after: RETRY_AFTER });
        }
        let id = work.next;
        work.next += 1;
        work.jobs.push_back(Job { id, run });
        drop(work);
        self.available.notify_one();
        Ok(id)
    }

    fn work(&self) {
        let mut work = self.work.lock();
        loop {
            if let Some(job) = work.jobs.pop_front() {
                work.running += 1;
                drop(work);
                let panic = (job.run)();
                if let Some(message) = &panic {
                    tracing::error!(pool = self.name, panic = %message, "a blocking job panicked");
                }
                work = self.work.lock();
                work.running -= 1;
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
        self.pool.work.lock().closed = true;
        self.pool.available.notify_all();
    }
}

/// A caller that waits; when it goes, its job goes too, if no thread has taken it yet.
struct Waiting<'a> {
    pool: &'a Pool,
    id: u64,
}

impl Waiting<'_> {
    fn withdraw(&self) -> bool {
        let mut work = self.pool.work.lock();
        let place = work.jobs.iter().position(|job| job.id == self.id);
        let job = place.and_then(|place| work.jobs.remove(place));
        drop(work);
        job.is_some()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use chrono::DateTime;
    use futures_util::{FutureExt, future::join_all};

    use super::*;

    fn pool(threads: usize, queue: usize) -> (BlockingPool, Clock) {
        let clock = Clock::manual(DateTime::UNIX_EPOCH);
        (BlockingPool::try_new("test", threads, queue, clock.clone()).unwrap(), clock)
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[actix_rt::test]
    async fn a_full_pool_refuses_at_once() {
        let (pool, _) = pool(1, 2);
        let (release, held) = mpsc::channel::<()>();
        let first = actix_rt::spawn({
            let pool = pool.clone();
            async move { pool.run(None, move || held.recv().is_ok()).await }
        });
        until(|| pool.view().running == 1).await;
        let waiting: Vec<_> = (0..2)
            .map(|n| {
                let pool = pool.clone();
                actix_rt::spawn(async move { pool.run(None, move || n).await })
            })
            .collect();
        until(|| pool.view().queued == 2).await;
        assert_eq!(pool.run(None, || ()).await, Err(Failure::Overloaded { retry_after: RETRY_AFTER }));
        assert_eq!(pool.view().rejected, 1);
        release.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(true));
        assert_eq!(join_all(waiting).await.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [Ok(0), Ok(1)]);
    }

    #[actix_rt::test]
    async fn a_thousand_panics_leave_every_thread_working() {
        let (pool, _) = pool(2, 8);
        for _ in 0..1000 {
            let outcome = pool.run::<()>(None, || panic!("on purpose")).await;
            assert!(matches!(outcome, Err(Failure::Internal(message)) if message.contains("on purpose")));
        }
        let both = join_all((0..2).map(|n| pool.run(None, move || n))).await;
        assert_eq!(both, [Ok(0), Ok(1)]);
        until(|| pool.view().running == 0).await;
        assert_eq!(pool.view().panics, 1000);
    }

    #[actix_rt::test]
    async fn a_job_whose_deadline_passed_in_the_queue_never_runs() {
        let (pool, clock) = pool(1, 4);
        let (release, held) = mpsc::channel::<()>();
        let deadline = Some(clock.instant() + Duration::from_secs(1));
        let running = pool.clone();
        let running = actix_rt::spawn(async move { running.run(deadline, move || held.recv().is_ok()).await });
        until(|| pool.view().running == 1).await;
        let queued = pool.clone();
        let queued = actix_rt::spawn(async move { queued.run::<()>(deadline, || panic!("must not run")).await });
        until(|| clock.sleepers() == 2).await;
        clock.advance(Duration::from_secs(1));
        assert_eq!(queued.await.unwrap(), Err(Failure::Expired));
        assert_eq!(running.await.unwrap(), Err(Failure::Timeout));
        assert_eq!(pool.run(deadline, || ()).await, Err(Failure::Expired));
        release.send(()).unwrap();
        assert_eq!(pool.run(None, || 1).await, Ok(1));
        assert_eq!(pool.view().panics, 0);
    }

    #[actix_rt::test]
    async fn a_job_that_nobody_waits_for_runs_and_may_panic() {
        let (pool, _) = pool(1, 2);
        let (told, heard) = mpsc::channel::<()>();
        pool.begin(|| panic!("on purpose")).unwrap();
        pool.begin(move || told.send(()).unwrap()).unwrap();
        until(|| heard.try_recv().is_ok()).await;
        until(|| pool.view().running == 0).await;
        assert_eq!(pool.view().panics, 1);
    }

    #[actix_rt::test]
    async fn only_what_is_prompt_keeps_the_usual_priority() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let own = niceness();
        let prompt = BlockingPool::prompt("test-prompt", 1, 1).run(None, niceness).await.unwrap();
        let patient = BlockingPool::new("test-patient", 1, 1).run(None, niceness).await.unwrap();
        assert_eq!((prompt, patient), (own, NICENESS));
    }

    #[actix_rt::test]
    async fn a_caller_that_goes_away_frees_its_place() {
        let (pool, _) = pool(1, 1);
        let (release, held) = mpsc::channel::<()>();
        let first = pool.clone();
        let first = actix_rt::spawn(async move { first.run(None, move || held.recv().is_ok()).await });
        until(|| pool.view().running == 1).await;
        assert!(pool.run::<()>(None, || panic!("must not run")).now_or_never().is_none());
        assert_eq!(pool.view().queued, 0);
        release.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(true));
        assert_eq!(pool.run(None, || 2).await, Ok(2));
        assert_eq!(pool.view().panics, 0);
    }
}
