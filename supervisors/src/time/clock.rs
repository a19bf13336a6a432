//! Time that tests can move.
//!
//! Everything in the runtime that waits or measures asks a [`Clock`]. The system clock costs one branch more than
//! `Instant::now`; a manual clock stands still until [`Clock::advance`] moves it, and then wakes the sleepers that
//! are due, in the order of their times.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A source of time. Cheap to clone; clones of a manual clock move together.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<Manual>>);

struct Manual {
    began: Instant,
    began_at: DateTime<Utc>,
    /// Nanoseconds since `began`.
    elapsed: AtomicU64,
    sleepers: Mutex<Sleepers>,
}

#[derive(Default)]
struct Sleepers {
    next: u64,
    by_time: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
}

impl Clock {
    /// The time of the operating system.
    #[must_use]
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `now` until it is moved.
    #[must_use]
    pub fn manual(now: DateTime<Utc>) -> Self {
        Self(Some(Arc::new(Manual {
            began: Instant::now(),
            began_at: to_microseconds(now),
            elapsed: AtomicU64::new(0),
            sleepers: Mutex::default(),
        })))
    }

    /// The time of day in UTC, in whole microseconds: what both databases keep, so that a value read back is equal.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            None => to_microseconds(Utc::now()),
            Some(manual) => {
                let elapsed = TimeDelta::from_std(manual.elapsed()).unwrap_or(TimeDelta::MAX);
                to_microseconds(manual.began_at.checked_add_signed(elapsed).unwrap_or(DateTime::<Utc>::MAX_UTC))
            }
        }
    }

    /// Monotonic time, for deadlines and durations.
    #[inline]
    #[must_use]
    pub fn instant(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(manual) => manual.began + manual.elapsed(),
        }
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.instant() + duration).await;
    }

    /// Waits until `instant`.
    pub async fn sleep_until(&self, instant: Instant) {
        let Some(manual) = &self.0 else {
            return tokio::time::sleep_until(instant.into()).await;
        };
        let Some((sleeper, woken)) = manual.enlist(instant) else { return };
        let _asleep = Asleep { manual, sleeper };
        // The sender is dropped only with the clock itself, and this borrow keeps that alive.
        let _ = woken.await;
    }

    /// The output of `future`, or `None` when `deadline` comes first.
    pub async fn timeout_at<F: Future>(&self, deadline: Instant, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep_until(deadline) => None,
        }
    }

    /// Moves a manual clock and wakes the sleepers that are due, in order; each sees the time it asked for, or a
    /// later one. The system clock is not moved.
    pub fn advance(&self, duration: Duration) {
        let Some(manual) = &self.0 else { return };
        let mut sleepers = manual.sleepers.lock();
        let target = manual.began + manual.elapsed() + duration;
        while let Some(first) = sleepers.by_time.first_entry() {
            let due = first.key().0;
            if due > target {
                break;
            }
            manual.set(due);
            let _ = first.remove().send(());
        }
        manual.set(target);
    }

    /// Number of sleepers of a manual clock: a test waits for them before it moves the clock.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.0.as_ref().map_or(0, |manual| manual.sleepers.lock().by_time.len())
    }

    /// When the first sleeper of a manual clock is due.
    #[cfg(test)]
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let manual = self.0.as_ref()?;
        manual.sleepers.lock().by_time.first_key_value().map(|((due, _), _)| *due)
    }
}

impl Manual {
    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed.load(Ordering::Acquire))
    }

    /// Never sets it back: a sleeper may be due at a time that has passed.
    fn set(&self, now: Instant) {
        let nanos = u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX);
        self.elapsed.fetch_max(nanos, Ordering::AcqRel);
    }

    fn enlist(&self, instant: Instant) -> Option<((Instant, u64), oneshot::Receiver<()>)> {
        let mut sleepers = self.sleepers.lock();
        if instant <= self.began + self.elapsed() {
            return None;
        }
        let (wake, woken) = oneshot::channel();
        let sleeper = (instant, sleepers.next);
        sleepers.next += 1;
        sleepers.by_time.insert(sleeper, wake);
        Some((sleeper, woken))
    }
}

/// Removes a sleeper when its future is dropped.
struct Asleep<'a> {
    manual: &'a Manual,
    sleeper: (Instant, u64),
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.manual.sleepers.lock().by_time.remove(&self.sleeper);
    }
}

fn to_microseconds(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    #[actix_rt::test]
    async fn a_manual_clock_stands_until_it_is_moved() {
        let clock = Clock::manual(DateTime::UNIX_EPOCH);
        let before = clock.instant();
        assert_eq!(clock.now(), DateTime::UNIX_EPOCH);
        clock.advance(Duration::from_millis(1500));
        assert_eq!(clock.instant() - before, Duration::from_millis(1500));
        assert_eq!(clock.now().timestamp_millis(), 1500);
    }

    #[actix_rt::test]
    async fn sleepers_wake_in_order_of_their_times() {
        let clock = Clock::manual(DateTime::UNIX_EPOCH);
        let woken = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = [30, 10, 20, 50]
            .map(|seconds| {
                let (clock, woken) = (clock.clone(), woken.clone());
                actix_rt::spawn(async move {
                    clock.sleep(Duration::from_secs(seconds)).await;
                    woken.borrow_mut().push(seconds);
                })
            })
            .into();
        while clock.sleepers() < 4 {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(40));
        while woken.borrow().len() < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*woken.borrow(), [10, 20, 30]);
        assert_eq!(clock.sleepers(), 1);
        for task in tasks {
            task.abort();
        }
        while clock.sleepers() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[actix_rt::test]
    async fn a_deadline_cuts_a_wait_short() {
        let clock = Clock::manual(DateTime::UNIX_EPOCH);
        let deadline = clock.instant() + Duration::from_secs(1);
        assert_eq!(clock.timeout_at(deadline, async { 1 }).await, Some(1));
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.timeout_at(deadline, std::future::pending::<()>()).await, None);
    }

    #[test]
    fn times_are_whole_microseconds() {
        assert_eq!(Clock::system().now().timestamp_subsec_nanos() % 1000, 0);
    }
}
