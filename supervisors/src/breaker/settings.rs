//! When a breaker opens, and for how long.

use std::time::Duration;

/// The calls by which a breaker judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The last n calls.
    Count(usize),
    /// The calls of this last time, in whole seconds.
    Time(Duration),
}

/// The settings of a breaker; the semantics are resilience4j's.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The calls by which it judges. Default: the last 100.
    pub window: Window,
    /// Below this number of calls in the window it does not open. Default: 20.
    pub minimum_calls: usize,
    /// Percentage of failures that opens it. Default: 50.
    pub failure_rate: f64,
    /// Percentage of slow calls that opens it. Default: 80.
    pub slow_rate: f64,
    /// Duration from which a call is slow. Default: 2 s.
    pub slow_after: Duration,
    /// How long it stays open the first time. Default: 5 s.
    pub open_for: Duration,
    /// Each further opening in a row doubles that time, up to this. Default: 60 s.
    pub open_at_most: Duration,
    /// Part of that time by which it varies at random, up or down. Default: 0.2.
    pub jitter: f64,
    /// Calls let through when half-open. Default: 5.
    pub probes: usize,
    /// Time limit of the probes, after which it opens again. Default: 10 s.
    pub half_open_at_most: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: Window::Count(100),
            minimum_calls: 20,
            failure_rate: 50.0,
            slow_rate: 80.0,
            slow_after: Duration::from_secs(2),
            open_for: Duration::from_secs(5),
            open_at_most: Duration::from_secs(60),
            jitter: 0.2,
            probes: 5,
            half_open_at_most: Duration::from_secs(10),
        }
    }
}

/// Windows larger than this cost memory and forget too slowly to be of use.
const LARGEST_COUNT: usize = 100_000;
const LONGEST_TIME: Duration = Duration::from_secs(3600);

impl Settings {
    /// Checks every setting, so that an invalid one fails the start and not the service later.
    ///
    /// # Errors
    /// A sentence for each invalid setting.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let percentage = |rate: f64| rate > 0.0 && rate <= 100.0;
        let (window_is_valid, window_holds) = match self.window {
            Window::Count(calls) => ((1..=LARGEST_COUNT).contains(&calls), calls),
            Window::Time(time) => (time.subsec_nanos() == 0 && !time.is_zero() && time <= LONGEST_TIME, usize::MAX),
        };
        let rules: [(bool, &str); 11] = [
            (window_is_valid, "breaker: the window must be 1 to 100000 calls, or 1 to 3600 whole seconds"),
            (self.minimum_calls >= 1, "breaker: minimum_calls must be at least 1"),
            (
                self.minimum_calls <= window_holds,
                "breaker: minimum_calls must not exceed the window, or it never opens",
            ),
            (percentage(self.failure_rate), "breaker: failure_rate must be above 0 and at most 100 per cent"),
            (percentage(self.slow_rate), "breaker: slow_rate must be above 0 and at most 100 per cent"),
            (!self.slow_after.is_zero(), "breaker: slow_after must be longer than zero, or every call is slow"),
            (!self.open_for.is_zero(), "breaker: open_for must be longer than zero"),
            (self.open_at_most >= self.open_for, "breaker: open_at_most must not be shorter than open_for"),
            ((0.0..1.0).contains(&self.jitter), "breaker: jitter must be at least 0 and less than 1"),
            (self.probes >= 1, "breaker: probes must be at least 1, or it never closes again"),
            (!self.half_open_at_most.is_zero(), "breaker: half_open_at_most must be longer than zero"),
        ];
        crate::rules::sentences(&rules)
    }
}
