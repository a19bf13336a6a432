//! Restart policies: whether, when and how often a child is restarted.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::rules::sentences;

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It finished its work.
    Normal,
    /// It stopped when asked to.
    Shutdown,
    /// It failed or panicked, for this reason.
    Abnormal(String),
}

/// After which exits a child is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// After every exit.
    Permanent,
    /// After an abnormal exit.
    Transient,
    /// Never; the supervisor forgets the child.
    Temporary,
}

impl Restart {
    /// Whether a child is restarted after this exit.
    #[must_use]
    pub const fn after(self, exit: &Exit) -> bool {
        match self {
            Self::Permanent => true,
            Self::Transient => matches!(exit, Exit::Abnormal(_)),
            Self::Temporary => false,
        }
    }
}

/// Which other children are restarted together with one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strategy {
    /// None of the others.
    #[default]
    OneForOne,
    /// All of them: stopped in reverse order, started in order.
    OneForAll,
    /// Those that were started after it.
    RestForOne,
}

/// The limit of restarts in a sliding time: one more, and the supervisor gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts allowed. Default: 5.
    pub restarts: usize,
    /// In this time, sliding. Default: 30 s.
    pub within: Duration,
}

impl Default for Intensity {
    fn default() -> Self {
        Self { restarts: 5, within: Duration::from_secs(30) }
    }
}

impl Intensity {
    pub(crate) fn validate(&self) -> Result<(), Vec<String>> {
        sentences(&[(!self.within.is_zero(), "intensity: within must be longer than zero, or nothing ever escalates")])
    }
}

/// Pauses before retries: longer with each in a row, so that a crash loop, or an outage of a dependency, costs little.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Before the first retry. Default: 100 ms.
    pub first: Duration,
    /// The longest pause. Default: 30 s.
    pub at_most: Duration,
    /// Each pause is this many times the one before. Default: 2.
    pub factor: f64,
    /// Part of a pause by which it varies at random, up or down. Default: 0.2.
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), at_most: Duration::from_secs(30), factor: 2.0, jitter: 0.2 }
    }
}

impl Backoff {
    /// The same pause before every retry.
    #[must_use]
    pub const fn constant(pause: Duration) -> Self {
        Self { first: pause, at_most: pause, factor: 1.0, jitter: 0.0 }
    }

    pub(crate) fn validate(&self) -> Result<(), Vec<String>> {
        sentences(&[
            (self.at_most >= self.first, "backoff: at_most must not be shorter than first"),
            (self.factor >= 1.0 && self.factor.is_finite(), "backoff: factor must be at least 1"),
            ((0.0..1.0).contains(&self.jitter), "backoff: jitter must be at least 0 and less than 1"),
        ])
    }

    /// The pause after failure number `nth` in a row, counted from zero.
    #[must_use]
    pub fn delay(&self, nth: u32) -> Duration {
        let exact = self.first.as_secs_f64() * self.factor.powi(i32::try_from(nth).unwrap_or(i32::MAX));
        spread(Duration::from_secs_f64(exact.min(self.at_most.as_secs_f64())), self.jitter)
    }
}

/// `duration`, varied at random by the part `jitter`, up or down.
pub(crate) fn spread(duration: Duration, jitter: f64) -> Duration {
    if jitter <= 0.0 { duration } else { duration.mul_f64(rand::random_range(1.0 - jitter..1.0 + jitter)) }
}

/// Recent restarts.
#[derive(Debug)]
pub(crate) struct RestartLog {
    intensity: Intensity,
    recent: VecDeque<Instant>,
}

impl RestartLog {
    pub(crate) const fn new(intensity: Intensity) -> Self {
        Self { intensity, recent: VecDeque::new() }
    }

    /// Records a restart; false when it exceeds the intensity.
    pub(crate) fn allow(&mut self, now: Instant) -> bool {
        while self.recent.front().is_some_and(|&at| now.saturating_duration_since(at) >= self.intensity.within) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.recent.len() <= self.intensity.restarts
    }
}

/// The pauses of one child: they grow with every restart in a row, and start again once it has run for a while.
#[derive(Debug)]
pub(crate) struct Patience {
    backoff: Backoff,
    in_a_row: u32,
    /// When the last restart was due, and its pause.
    last: Option<(Instant, Duration)>,
}

/// A run that lasted this many times the pause before it ends the row.
const LIVED_FACTOR: u32 = 10;
/// So does a run of this length, however short the pause.
const LIVED: Duration = Duration::from_secs(1);

impl Patience {
    pub(crate) const fn new(backoff: Backoff) -> Self {
        Self { backoff, in_a_row: 0, last: None }
    }

    pub(crate) fn next_delay(&mut self, now: Instant) -> Duration {
        let has_lived = self.last.is_none_or(|(began, waited)| {
            now.saturating_duration_since(began) >= LIVED.max(waited.saturating_mul(LIVED_FACTOR))
        });
        if has_lived {
            self.in_a_row = 0;
        }
        let delay = self.backoff.delay(self.in_a_row);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.last = Some((now + delay, delay));
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread() {
        let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
        let waits: Vec<u128> = (0..10).map(|nth| backoff.delay(nth).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000]);
        assert_eq!(backoff.delay(u32::MAX), backoff.at_most);
        for _ in 0..1000 {
            let wait = Backoff::default().delay(0).as_secs_f64();
            assert!((0.08..0.12).contains(&wait), "{wait}");
        }
    }

    #[test]
    fn the_sixth_restart_in_a_sliding_thirty_seconds_is_too_many() {
        let mut log = RestartLog::new(Intensity::default());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!([0, 7, 14, 21, 28].into_iter().all(|second| log.allow(at(second))));
        // A fixed window would start anew here; a sliding one has only dropped the first restart.
        assert!(log.allow(at(30)));
        assert!(!log.allow(at(31)));
    }

    #[test]
    fn waits_begin_anew_after_a_long_life() {
        let mut patience = Patience::new(Backoff { jitter: 0.0, ..Backoff::default() });
        let start = Instant::now();
        let mut at = |milliseconds| patience.next_delay(start + Duration::from_millis(milliseconds)).as_millis();
        assert_eq!(at(0), 100);
        assert_eq!(at(1099), 200, "lived for less than a second");
        assert_eq!(at(1299 + 1999), 400, "lived for less than ten times its wait");
        assert_eq!(at(3698 + 4000), 100);
    }

    #[test]
    fn a_life_is_long_from_a_second_on_and_from_ten_times_the_wait_before_it() {
        let patience = || Patience::new(Backoff { jitter: 0.0, ..Backoff::default() });
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut second = patience();
        assert_eq!(second.next_delay(at(0)).as_millis(), 100);
        assert_eq!(second.next_delay(at(1100)).as_millis(), 100, "a second from when it was due");
        let mut tenfold = patience();
        assert_eq!(tenfold.next_delay(at(0)).as_millis(), 100);
        assert_eq!(tenfold.next_delay(at(200)).as_millis(), 200);
        // Due at 400: it has run ten times its pause of 200 ms.
        assert_eq!(tenfold.next_delay(at(2400)).as_millis(), 100);
    }

    #[test]
    fn what_is_restarted_depends_on_how_it_ended() {
        let abnormal = Exit::Abnormal("on purpose".to_owned());
        for (restart, expected) in [
            (Restart::Permanent, [true, true, true]),
            (Restart::Transient, [false, false, true]),
            (Restart::Temporary, [false, false, false]),
        ] {
            let restarted = [&Exit::Normal, &Exit::Shutdown, &abnormal].map(|exit| restart.after(exit));
            assert_eq!(restarted, expected, "{restart:?}");
        }
    }

    #[test]
    fn the_edges_of_what_a_policy_may_be() {
        let base = Backoff::default;
        let second = Duration::from_secs(1);
        let allowed = [
            Backoff { first: second, at_most: second, ..base() },
            Backoff { factor: 1.0, jitter: 0.0, ..base() },
            Backoff { jitter: 0.99, ..base() },
        ];
        for backoff in allowed {
            assert_eq!(backoff.validate(), Ok(()), "{backoff:?}");
        }
        let refused = [
            Backoff { first: second, at_most: second / 2, ..base() },
            Backoff { factor: 0.99, ..base() },
            Backoff { factor: f64::INFINITY, ..base() },
            Backoff { jitter: 1.0, ..base() },
            Backoff { jitter: -0.1, ..base() },
        ];
        for backoff in refused {
            assert!(backoff.validate().is_err(), "{backoff:?}");
        }
        assert_eq!(Intensity { restarts: 0, within: second }.validate(), Ok(()));
        assert!(Intensity { restarts: 5, within: Duration::ZERO }.validate().is_err());
        let mut none = RestartLog::new(Intensity { restarts: 0, within: second });
        assert!(!none.allow(Instant::now()), "no restart at all");
        assert_eq!(spread(second, 0.0), second);
    }
}
