//! Tasks beside their owner.
//!
//! A future that waits for a connection, a permit or a lock is given it at some moment, and keeps it from everybody
//! else until it is polled again. A `FuturesUnordered` polls its members, and a `select!` a future that it borrows,
//! only while their owner awaits them. While the owner awaits something else they stand still with what they hold, and
//! if that is what the owner waits for, both wait for ever. The members of a [`TaskSet`] are tasks of the thread:
//! nothing that their owner awaits holds them up.

pub(crate) mod anchored;

use std::{fmt, panic::resume_unwind};

use tokio::task::{JoinError, JoinSet};

use crate::tasks::anchored::Anchored;

/// A set of tasks on this thread. Tasks that have not ended are aborted when it is dropped.
pub struct TaskSet<T>(JoinSet<T>);

impl<T: 'static> TaskSet<T> {
    /// Starts a task.
    pub fn spawn(&mut self, work: impl Future<Output = T> + 'static) {
        self.0.spawn_local(Anchored::new(work));
    }

    /// The output of the next task that ends; `None` when there are none. A panic of a task is resumed here.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<T> {
        loop {
            if let Some(output) = outcome(self.0.join_next().await?) {
                return Some(output);
            }
        }
    }

    /// The output of a task that has ended already.
    pub fn try_next(&mut self) -> Option<T> {
        loop {
            if let Some(output) = outcome(self.0.try_join_next()?) {
                return Some(output);
            }
        }
    }

    /// Aborts all tasks: none of them is polled any more.
    pub fn clear(&mut self) {
        self.0 = JoinSet::new();
    }

    /// Number of tasks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no tasks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for TaskSet<T> {
    fn default() -> Self {
        Self(JoinSet::new())
    }
}

impl<T> fmt::Debug for TaskSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskSet").field(&self.0.len()).finish()
    }
}

/// The output; `None` if the task ended with its thread.
fn outcome<T>(joined: Result<T, JoinError>) -> Option<T> {
    match joined {
        Ok(output) => Some(output),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, panic::AssertUnwindSafe, rc::Rc, time::Duration};

    use futures_util::FutureExt;
    use tokio::{sync::Semaphore, task::yield_now, time::timeout};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[actix_rt::test]
    async fn whoever_waits_for_what_its_own_work_holds_is_given_it() {
        let connections = Rc::new(Semaphore::new(1));
        let mut work = TaskSet::default();
        for number in 0..8 {
            let connections = connections.clone();
            work.spawn(async move {
                let _held = connections.acquire().await.unwrap();
                yield_now().await;
                number
            });
        }
        let mut ended = Vec::new();
        while let Some(number) = work.next().await {
            // The next in line holds the connection by now.
            drop(timeout(SOON, connections.acquire()).await.expect("its own work stands in its way").unwrap());
            ended.push(number);
        }
        assert_eq!(ended, (0..8).collect::<Vec<_>>());
    }

    #[actix_rt::test]
    async fn what_is_given_up_lets_go_and_does_nothing_more() {
        let (connections, polls) = (Rc::new(Semaphore::new(2)), Rc::new(Cell::new(0)));
        let mut work = TaskSet::default();
        let begin = |work: &mut TaskSet<()>| {
            let (connections, polls) = (connections.clone(), polls.clone());
            work.spawn(async move {
                let _held = connections.acquire().await.unwrap();
                loop {
                    polls.set(polls.get() + 1);
                    yield_now().await;
                }
            });
        };
        begin(&mut work);
        let mut other = TaskSet::default();
        begin(&mut other);
        while polls.get() < 2 {
            yield_now().await;
        }
        work.clear();
        drop(other);
        let before = polls.get();
        assert!(work.is_empty() && work.next().await.is_none());
        drop(timeout(SOON, connections.acquire_many(2)).await.expect("both let go").unwrap());
        assert_eq!(polls.get(), before);
    }

    #[actix_rt::test]
    async fn a_panic_is_its_owners() {
        let mut work = TaskSet::default();
        work.spawn(async { panic!("on purpose") });
        work.spawn(async {});
        assert_eq!(work.len(), 2);
        let caught = AssertUnwindSafe(async { while work.next().await.is_some() {} }).catch_unwind().await;
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"on purpose"));
        assert!(work.try_next().is_some() || work.is_empty());
    }
}
