//! The window of a breaker: the last calls, or those of the last seconds.

use std::time::{Duration, Instant};

use super::Window;

/// Sums over a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) calls: usize,
    pub(super) failed: usize,
    pub(super) slow: usize,
}

impl Tally {
    pub(super) fn add(&mut self, failed: bool, slow: bool) {
        self.calls += 1;
        self.failed += usize::from(failed);
        self.slow += usize::from(slow);
    }

    const fn subtract(&mut self, other: Self) {
        self.calls -= other.calls;
        self.failed -= other.failed;
        self.slow -= other.slow;
    }
}

pub(super) enum Outcomes {
    /// One byte per call, in a ring.
    Count { ring: Box<[u8]>, next: usize, tally: Tally },
    /// One tally per second, in a ring.
    Time { seconds: Box<[Tally]>, origin: Instant, newest: usize, tally: Tally },
}

const FAILED: u8 = 1;
const SLOW: u8 = 2;

impl Outcomes {
    pub(super) fn new(window: Window, now: Instant) -> Self {
        match window {
            Window::Count(calls) => {
                Self::Count { ring: vec![0; calls.max(1)].into(), next: 0, tally: Tally::default() }
            }
            Window::Time(time) => {
                let seconds = usize::try_from(time.as_secs()).unwrap_or(usize::MAX).clamp(1, 3600);
                Self::Time {
                    seconds: vec![Tally::default(); seconds].into(),
                    origin: now,
                    newest: 0,
                    tally: Tally::default(),
                }
            }
        }
    }

    /// Adds a call and returns the sums of the window.
    #[inline]
    pub(super) fn add(&mut self, now: Instant, failed: bool, slow: bool) -> Tally {
        match self {
            Self::Count { ring, next, tally } => {
                let size = ring.len();
                let Some(place) = ring.get_mut(*next) else { return *tally };
                if tally.calls == size {
                    tally.calls -= 1;
                    tally.failed -= usize::from(*place & FAILED != 0);
                    tally.slow -= usize::from(*place & SLOW != 0);
                }
                *place = u8::from(failed) * FAILED + u8::from(slow) * SLOW;
                *next = if *next + 1 == size { 0 } else { *next + 1 };
                tally.add(failed, slow);
                *tally
            }
            Self::Time { seconds, origin, newest, tally } => {
                let size = seconds.len();
                let elapsed: Duration = now.saturating_duration_since(*origin);
                let second = usize::try_from(elapsed.as_secs()).unwrap_or(usize::MAX).max(*newest);
                // The seconds since the last call leave the window, each at most once.
                for passed in (*newest + 1..=second).take(size) {
                    if let Some(place) = seconds.get_mut(passed % size) {
                        tally.subtract(std::mem::take(place));
                    }
                }
                *newest = second;
                if let Some(place) = seconds.get_mut(second % size) {
                    place.add(failed, slow);
                    tally.add(failed, slow);
                }
                *tally
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_window_holds_the_last_calls() {
        let now = Instant::now();
        let mut window = Outcomes::new(Window::Count(3), now);
        let tallies: Vec<_> = [(true, false), (false, true), (false, false), (true, true), (false, false)]
            .map(|(failed, slow)| window.add(now, failed, slow))
            .map(|tally| (tally.calls, tally.failed, tally.slow))
            .into();
        assert_eq!(tallies, [(1, 1, 0), (2, 1, 1), (3, 1, 1), (3, 1, 2), (3, 1, 1)]);
    }

    #[test]
    fn a_time_window_holds_the_calls_of_its_seconds() {
        let start = Instant::now();
        let mut window = Outcomes::new(Window::Time(Duration::from_secs(3)), start);
        let mut at = |milliseconds, failed| {
            let tally = window.add(start + Duration::from_millis(milliseconds), failed, false);
            (tally.calls, tally.failed)
        };
        assert_eq!(at(0, true), (1, 1));
        assert_eq!(at(1500, true), (2, 2));
        assert_eq!(at(2999, false), (3, 2));
        assert_eq!(at(3000, false), (3, 1), "the first second is out");
        assert_eq!(at(4000, false), (3, 0), "the second one too");
        assert_eq!(at(60_000, false), (1, 0), "all of them");
    }
}
