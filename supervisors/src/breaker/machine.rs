//! The states of a breaker and what moves it from one to the next. It belongs to one thread, or stands behind a lock.

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
    /// Lets a few through to find out whether it works again.
    HalfOpen,
    /// Lets none through.
    Open,
    /// Lets every call through because an operator says so.
    ForcedClosed,
    /// Lets none through because an operator says so.
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

/// What a call says about what it called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It works: it replied, or refused for reasons of its own.
    Works,
    /// It does not: a failure of the infrastructure, or no answer in time.
    Fails,
    /// The call says nothing: it never began.
    Nothing,
}

/// What an operator wants.
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
    /// Counts the phases: the outcome of a call that began in an earlier one says nothing about this one.
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

    /// When an open breaker lets the first call through.
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

    /// An operator's wish, or the end of it: the breaker then begins anew, closed.
    pub(crate) fn force(&mut self, forced: Option<Force>, now: Instant) {
        if self.forced != forced {
            self.forced = forced;
            self.close(now);
        }
    }

    /// Lets a call through, or says how long to wait.
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

    /// What a call that was let through has shown.
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
            // A probe that never began gives its turn back.
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

    /// Forgets what it was told, and what calls that are under way will tell.
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
