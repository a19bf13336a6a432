//! Outages in the log: a line when one begins, and one when it is over, however much fails meanwhile.

use std::{
    fmt::Display,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Logs a failure as a warning, or at debug level if the first argument says that an outage caused it: an outage is
/// logged once for all that fails for it.
#[macro_export]
macro_rules! warn_unless_outage {
    ($is_outage:expr, $($said:tt)+) => {
        if $is_outage { ::tracing::debug!($($said)+) } else { ::tracing::warn!($($said)+) }
    };
}

/// Whether something that others depend on is away, as its users report.
#[derive(Debug)]
pub struct Outage {
    of: String,
    /// Read on every success.
    is_on: AtomicBool,
    current: Mutex<Option<Current>>,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    began: Instant,
    failures: u64,
}

/// An outage that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// Its duration.
    pub lasted: Duration,
    /// Number of failures during it.
    pub failures: u64,
}

impl Outage {
    /// Without an outage. `of` is the name for people.
    #[must_use]
    pub fn new(of: impl Into<String>) -> Self {
        Self { of: of.into(), is_on: AtomicBool::new(false), current: Mutex::default() }
    }

    /// Reports a failure by an outage. The first is logged; true then.
    pub fn failed(&self, reason: &dyn Display) -> bool {
        let mut current = self.current.lock();
        let begins = current.is_none();
        current.get_or_insert_with(|| Current { began: Instant::now(), failures: 0 }).failures += 1;
        self.is_on.store(true, Ordering::Release);
        drop(current);
        if begins {
            tracing::warn!(part = self.of, %reason, "a part of the platform is away: what fails for it is counted until it is there again");
        }
        begins
    }

    /// Counts another failure during an outage. Not logged.
    pub fn count(&self) {
        if self.is_on()
            && let Some(current) = &mut *self.current.lock()
        {
            current.failures += 1;
        }
    }

    /// Reports a success, which ends the outage. The end is logged.
    pub fn works(&self) -> Option<Past> {
        if !self.is_on() {
            return None;
        }
        let Current { began, failures } = self.current.lock().take()?;
        self.is_on.store(false, Ordering::Release);
        let lasted = began.elapsed();
        tracing::info!(part = self.of, seconds = lasted.as_secs_f32(), failures, "a part of the platform is back");
        Some(Past { lasted, failures })
    }

    /// Whether there is an outage, as far as is known.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_said_when_it_begins_and_when_it_is_over_with_all_that_failed() {
        let outage = Outage::new("RabbitMQ");
        assert_eq!(outage.works(), None);
        let said = [1, 2, 3].map(|_| outage.failed(&"refused"));
        assert_eq!((said, outage.is_on()), ([true, false, false], true));
        outage.count();
        assert_eq!(outage.works().map(|past| past.failures), Some(4));
        outage.count();
        assert_eq!((outage.works(), outage.is_on()), (None, false));
        assert!(outage.failed(&"refused again"), "another outage is another line");
    }
}
