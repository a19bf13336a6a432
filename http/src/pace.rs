//! The slowest pace of a request body.
//!
//! An idle body is easily told from a moving one; one that trickles moves for days. So a body has a total time for
//! which it may be awaited, which received bytes extend, and it may never be idle for longer than its initial time.
//! Only time spent waiting counts: a client is not to blame for a reader that takes nothing.

use std::time::Duration;

use tokio::time::Instant;

/// The time of one body.
pub(crate) struct Pace {
    grace: Duration,
    /// How long it may still be awaited.
    left: Duration,
    rate: u64,
    since: Option<Instant>,
}

impl Pace {
    /// A time of `grace`, and a second for each `rate` bytes.
    pub(crate) fn new(grace: Duration, rate: u64) -> Self {
        Self { grace, left: grace, rate: rate.max(1), since: None }
    }

    /// Begins to wait for the next piece. Returns the deadline.
    pub(crate) fn wait_until(&mut self, now: Instant) -> Instant {
        *self.since.get_or_insert(now) + self.left.min(self.grace)
    }

    /// Ends the wait: a piece was received.
    pub(crate) fn received(&mut self, bytes: usize, now: Instant) {
        let waited = self.since.take().map_or(Duration::ZERO, |since| now - since);
        let nanos = u128::try_from(bytes).unwrap_or(u128::MAX) * 1_000_000_000 / u128::from(self.rate);
        let won = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.left = self.left.saturating_add(won).saturating_sub(waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a body arrives at this many bytes each second.
    fn arrives(bytes: usize) -> bool {
        let mut pace = Pace::new(Duration::from_secs(30), 1000);
        let mut now = Instant::now();
        (0..100).all(|_| {
            let until = pace.wait_until(now);
            now += Duration::from_secs(1);
            pace.received(bytes, now);
            now <= until
        })
    }

    #[test]
    fn a_trickle_is_given_up_and_a_slow_line_is_not() {
        assert!(arrives(1000));
        assert!(arrives(800), "the grace lasts");
        assert!(!arrives(100));
    }

    #[test]
    fn what_came_before_buys_no_pause() {
        let (mut pace, now) = (Pace::new(Duration::from_secs(30), 1000), Instant::now());
        pace.received(1 << 30, now);
        assert_eq!(pace.wait_until(now), now + Duration::from_secs(30));
    }

    #[test]
    fn only_the_time_that_somebody_waited_counts() {
        let mut pace = Pace::new(Duration::from_secs(30), 1000);
        let begun = Instant::now();
        pace.received(10, begun + Duration::from_secs(3600));
        let now = begun + Duration::from_secs(7200);
        assert!(pace.wait_until(now) > now + Duration::from_secs(29));
    }
}
