//! The state machine of a breaker. It belongs to one thread, or is behind a lock.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{
    Settings,
    window::{Outcomes, Tally},
};
use crate::restart::spread;

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// Lets every call through, and judges by their outcomes.
    Closed,
    /// Lets a few probes through.
    HalfOpen,
    /// Lets none through.
    Open,
    /// Lets every call through, forced by an operator.
    ForcedClosed,
    /// Lets none through, forced by an operator.
    ForcedOpen,
}

impl State {
    /// As written in metrics and views.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
            Self::ForcedClosed => "forced_closed",
            Self::ForcedOpen => "forced_open",
        }
    }
}

/// What a call shows about the called dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It works: it replied, or refused for reasons of its own.
    Works,
    /// It fails: a failure of the infrastructure, or no answer in time.
    Fails,
    /// Nothing: the call never began.
    Nothing,
}

/// The state that an operator forces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Let no call through.
    Open,
    /// Let every call through.
    Closed,
}

/// The right to make one call; its outcome is recorded with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admission(u64);

pub(crate) struct Machine {
    settings: Settings,
    phase: Phase,
    forced: Option<Force>,
    /// Number of the phase: the outcome of a call that began in an earlier one does not count.
    epoch: u64,
    openings_in_a_row: u32,
    outcomes: Outcomes,
}

enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen { admitted: usize, ended: Tally, oldest: Instant },
}

impl Machine {
    pub(crate) fn new(settings: Settings, now: Instant) -> Self {
        let outcomes = Outcomes::new(settings.window, now);
        Self { settings, phase: Phase::Closed, forced: None, epoch: 0, openings_in_a_row: 0, outcomes }
    }

    pub(crate) const fn state(&self) -> State {
        match (self.forced, &self.phase) {
            (Some(Force::Open), _) => State::ForcedOpen,
            (Some(Force::Closed), _) => State::ForcedClosed,
            (None, Phase::Closed) => State::Closed,
            (None, Phase::Open { .. }) => State::Open,
            (None, Phase::HalfOpen { .. }) => State::HalfOpen,
        }
    }

    /// When an open breaker lets the first probe through.
    pub(crate) const fn open_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open { until } => Some(until),
            Phase::Closed | Phase::HalfOpen { .. } => None,
        }
    }

    /// Changes with every change of the state.
    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) const fn forced(&self) -> Option<Force> {
        self.forced
    }

    /// Forces a state, or ends that: the breaker is then closed and begins anew.
    pub(crate) fn force(&mut self, forced: Option<Force>, now: Instant) {
        if self.forced != forced {
            self.forced = forced;
            self.close(now);
        }
    }

    /// Lets a call through, or returns how long to wait.
    #[inline]
    pub(crate) fn admit(&mut self, now: Instant) -> Result<Admission, Duration> {
        if self.forced.is_none() && matches!(self.phase, Phase::Closed) {
            return Ok(Admission(self.epoch));
        }
        self.admit_unless_open(now)
    }

    #[cold]
    fn admit_unless_open(&mut self, now: Instant) -> Result<Admission, Duration> {
        match self.forced {
            Some(Force::Open) => return Err(self.settings.open_for),
            Some(Force::Closed) => return Ok(Admission(self.epoch)),
            None => {}
        }
        if let Phase::Open { until } = self.phase {
            if now < until {
                return Err(until - now);
            }
            self.enter(Phase::HalfOpen { admitted: 0, ended: Tally::default(), oldest: now });
        }
        let Phase::HalfOpen { admitted, ended, oldest } = &mut self.phase else { return Ok(Admission(self.epoch)) };
        let pending = *admitted - ended.calls;
        let waited = now.saturating_duration_since(*oldest);
        if pending > 0 && waited >= self.settings.half_open_at_most {
            return Err(self.open(now));
        }
        if *admitted == self.settings.probes {
            return Err(self.settings.half_open_at_most.saturating_sub(waited).min(Duration::from_secs(1)));
        }
        if pending == 0 {
            *oldest = now;
        }
        *admitted += 1;
        Ok(Admission(self.epoch))
    }

    /// Records the outcome of a call that was let through.
    #[inline]
    pub(crate) fn record(&mut self, Admission(epoch): Admission, now: Instant, verdict: Verdict, took: Duration) {
        if epoch != self.epoch || self.forced.is_some() {
            return;
        }
        let (failed, slow) = (verdict == Verdict::Fails, took >= self.settings.slow_after);
        match &mut self.phase {
            Phase::Closed if verdict == Verdict::Nothing => {}
            Phase::Closed => {
                let tally = self.outcomes.add(now, failed, slow);
                if (tally.failed > 0 || tally.slow > 0)
                    && tally.calls >= self.settings.minimum_calls
                    && self.is_too_much(tally)
                {
                    self.open(now);
                }
            }
            // A probe that never began frees its place.
            Phase::HalfOpen { admitted, .. } if verdict == Verdict::Nothing => *admitted -= 1,
            Phase::HalfOpen { ended, .. } => {
                ended.add(failed, slow);
                let ended = *ended;
                if ended.calls < self.settings.probes {
                    return;
                }
                if self.is_too_much(ended) {
                    self.open(now);
                } else {
                    self.close(now);
                }
            }
            Phase::Open { .. } => {}
        }
    }

    fn is_too_much(&self, tally: Tally) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "a window has at most some hundred thousand calls")]
        let reaches = |part: usize, rate: f64| part as f64 * 100.0 >= rate * tally.calls as f64;
        reaches(tally.failed, self.settings.failure_rate) || reaches(tally.slow, self.settings.slow_rate)
    }

    fn open(&mut self, now: Instant) -> Duration {
        let doubled = 2_u32.saturating_pow(self.openings_in_a_row);
        let wait = self.settings.open_for.saturating_mul(doubled).min(self.settings.open_at_most);
        let wait = spread(wait, self.settings.jitter);
        self.openings_in_a_row = self.openings_in_a_row.saturating_add(1);
        self.enter(Phase::Open { until: now + wait });
        wait
    }

    /// Closes, and forgets all outcomes, including those of calls in progress.
    pub(crate) fn close(&mut self, now: Instant) {
        self.openings_in_a_row = 0;
        self.outcomes = Outcomes::new(self.settings.window, now);
        self.enter(Phase::Closed);
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.epoch += 1;
    }
}
