//! The bounds of a domain: queue, permits, breaker, heartbeat and restarts.

use std::time::Duration;

use crate::{
    breaker,
    restart::{Backoff, Intensity},
    rules::sentences,
};

/// The bounds of each shard of a domain. Every one has a default and a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Bulkhead {
    /// Calls that may wait for a permit; the next one is refused at once. Default: 1024.
    pub queue: usize,
    /// Calls that may run at the same time. Default: 64.
    pub in_flight: usize,
    /// Settings of the shard's breaker.
    pub breaker: breaker::Settings,
    /// Time without an answer of the shard's thread after which it is blocked: not ready, and not called from other
    /// threads. Default: 2 s.
    pub heartbeat: Duration,
    /// Restarts within a time that exhaust the domain. Default: 5 in 30 s.
    pub intensity: Intensity,
    /// Pauses before restarts. Default: 100 ms to 30 s, factor 2, jitter 0.2.
    pub backoff: Backoff,
}

impl Default for Bulkhead {
    fn default() -> Self {
        Self {
            queue: 1024,
            in_flight: 64,
            breaker: breaker::Settings::default(),
            heartbeat: Duration::from_secs(2),
            intensity: Intensity::default(),
            backoff: Backoff::default(),
        }
    }
}

impl Bulkhead {
    /// Checks every bound.
    ///
    /// # Errors
    /// A sentence for each invalid one.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let own = sentences(&[
            (self.queue >= 1, "bulkhead: queue must hold at least 1 call"),
            (self.queue <= 1_000_000, "bulkhead: queue must hold at most 1000000 calls"),
            (self.in_flight >= 1, "bulkhead: in_flight must be at least 1, or no call ever runs"),
            (self.in_flight <= 100_000, "bulkhead: in_flight must be at most 100000"),
            (self.heartbeat >= Duration::from_millis(10), "bulkhead: heartbeat must be at least 10 ms"),
        ]);
        let all = [own, self.breaker.validate(), self.intensity.validate(), self.backoff.validate()];
        let wrong: Vec<String> = all.into_iter().filter_map(Result::err).flatten().collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}
