//! Counters of one operation on one shard, written by the shard's thread and read by the scrape.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use callboard_messages::{CallError, Code, Failure};

use crate::breaker::Verdict;

/// Upper bounds of the buckets of durations, in seconds.
pub(crate) const BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const BOUNDS_IN_NANOSECONDS: [u64; 14] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// How a call ended, for breaker and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Replied,
    Refused,
    /// Failed, with its verdict on the domain.
    Failed(Code, Verdict),
}

impl Ending {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Self::Replied, Self::Refused]
            .into_iter()
            .chain(Code::ALL.into_iter().map(|code| Self::Failed(code, Verdict::Nothing)))
    }

    #[inline]
    pub(crate) const fn of<R, E>(outcome: &Result<R, CallError<E>>) -> Self {
        match outcome {
            Ok(_) => Self::Replied,
            Err(CallError::Refused(_)) => Self::Refused,
            Err(CallError::Failed(failure)) => Self::failed(failure),
        }
    }

    /// Only failures of the infrastructure count against the domain: not those caused by input, nor a full disk, from
    /// which reads work.
    pub(crate) const fn failed(failure: &Failure) -> Self {
        let verdict = match failure {
            Failure::Internal(_) | Failure::Unavailable { .. } | Failure::Timeout | Failure::Unknown => Verdict::Fails,
            Failure::Unauthenticated
            | Failure::Forbidden(_)
            | Failure::Overloaded { .. }
            | Failure::RateLimited { .. }
            | Failure::DiskFull { .. }
            | Failure::Invalid
            | Failure::Expired => Verdict::Nothing,
        };
        Self::Failed(failure.code(), verdict)
    }

    /// The same ending with another verdict on the domain.
    pub(crate) const fn judged(self, verdict: Verdict) -> Self {
        match self {
            Self::Failed(code, _) => Self::Failed(code, verdict),
            other => other,
        }
    }

    #[inline]
    pub(crate) const fn is_failure(self) -> bool {
        matches!(self, Self::Failed(..))
    }

    /// Its verdict on the domain: a refusal shows that it works.
    #[inline]
    pub(crate) const fn verdict(self) -> Verdict {
        match self {
            Self::Replied | Self::Refused => Verdict::Works,
            Self::Failed(_, verdict) => verdict,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Replied => "ok",
            Self::Refused => "refused",
            Self::Failed(code, _) => code.as_str(),
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Replied => 0,
            Self::Refused => 1,
            Self::Failed(code, _) => 2 + code as usize,
        }
    }
}

/// Increments a counter that only this thread changes.
#[inline]
pub(crate) fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

#[derive(Default)]
pub(crate) struct OperationStats {
    endings: [AtomicU64; 14],
    durations: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl OperationStats {
    /// Called by the shard's thread only.
    #[inline]
    pub(crate) fn record(&self, ending: Ending, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(counter) = self.endings.get(ending.index()) {
            bump(counter);
        }
        let bucket = BOUNDS_IN_NANOSECONDS.iter().position(|bound| nanoseconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(counter) = self.durations.get(bucket) {
            bump(counter);
        }
        let sum = self.nanoseconds.load(Ordering::Relaxed).wrapping_add(nanoseconds);
        self.nanoseconds.store(sum, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self, ending: Ending) -> u64 {
        self.endings.get(ending.index()).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Calls per bucket, not cumulated; the last one has no bound.
    pub(crate) fn durations(&self) -> impl Iterator<Item = u64> {
        self.durations.iter().map(|counter| counter.load(Ordering::Relaxed))
    }

    pub(crate) fn seconds(&self) -> f64 {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_a_counter_of_its_own() {
        let mut indices: Vec<usize> = Ending::all().map(Ending::index).collect();
        indices.sort_unstable();
        indices.dedup();
        assert_eq!(indices, (0..14).collect::<Vec<_>>());
    }

    #[test]
    fn bounds_are_the_same_in_both_units() {
        for (seconds, nanoseconds) in BOUNDS.into_iter().zip(BOUNDS_IN_NANOSECONDS) {
            assert_eq!(Duration::from_secs_f64(seconds), Duration::from_nanos(nanoseconds));
        }
    }
}
