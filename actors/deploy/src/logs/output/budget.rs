//! The budget of a program's output.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::OutputLimits;

/// Largest burst, in seconds' worth of output.
const BURST: f64 = 4.0;
/// Once the budget is exhausted, nothing passes until this many seconds' worth is available: the output then has whole
/// passages, not every hundredth line.
const PASSAGE: f64 = 0.5;
/// Delay of the notice of dropped lines after the first of them, also when no line follows.
const TOLD_AFTER: Duration = Duration::from_secs(1);
/// Lines that are held while the budget is exhausted, the last ones, and passed beyond it afterwards.
const HELD: usize = 20;

/// A token bucket for lines and bytes that holds the last lines of what it refuses and counts those before them.
pub(super) struct Budget {
    limits: OutputLimits,
    lines: f64,
    bytes: f64,
    filled: Instant,
    /// Since when it refuses everything.
    closed: Option<Instant>,
    held: VecDeque<String>,
    dropped_lines: u64,
    dropped_bytes: u64,
}

impl Budget {
    pub(super) fn new(limits: OutputLimits, now: Instant) -> Self {
        let (lines, bytes) = (f64::from(limits.lines_per_second), f64::from(limits.bytes_per_second));
        let (lines, bytes) = (lines * BURST, bytes * BURST);
        Self {
            limits,
            lines,
            bytes,
            filled: now,
            closed: None,
            held: VecDeque::new(),
            dropped_lines: 0,
            dropped_bytes: 0,
        }
    }

    /// A line that may pass now; nothing when it is held or dropped.
    pub(super) fn admit(&mut self, text: String, now: Instant) -> Option<String> {
        self.refill(now);
        let enough = if self.closed.is_some() { self.passage() } else { (1.0, 1.0) };
        if self.lines >= enough.0 && self.bytes >= enough.1 {
            self.closed = None;
            self.lines -= 1.0;
            self.bytes -= text.len() as f64;
            return Some(text);
        }
        self.closed.get_or_insert(now);
        if self.held.len() == HELD
            && let Some(dropped) = self.held.pop_front()
        {
            self.dropped_lines += 1;
            self.dropped_bytes += dropped.len() as u64 + 1;
        }
        self.held.push_back(text);
        None
    }

    /// Whether the budget is used up for now.
    pub(super) const fn is_exhausted(&self) -> bool {
        self.closed.is_some()
    }

    /// When the notice of dropped lines and the lines after them are due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.closed.filter(|_| !self.held.is_empty()).map(|closed| closed + TOLD_AFTER)
    }

    /// The notice of the lines dropped since the last one, and the lines held since then. They belong, in this order,
    /// before the next line that passes.
    pub(super) fn release(&mut self, now: Instant) -> (Option<String>, VecDeque<String>) {
        let notice = self.notice();
        self.closed = self.closed.map(|_| now);
        (notice, std::mem::take(&mut self.held))
    }

    fn notice(&mut self) -> Option<String> {
        if self.dropped_lines == 0 {
            return None;
        }
        let lines = if self.dropped_lines == 1 { "line" } else { "lines" };
        let text = format!(
            "{} {lines} ({} KiB) of output were dropped here: more than {} lines or {} KiB a second; log less",
            self.dropped_lines,
            self.dropped_bytes.div_ceil(1024),
            self.limits.lines_per_second,
            self.limits.bytes_per_second / 1024,
        );
        (self.dropped_lines, self.dropped_bytes) = (0, 0);
        Some(text)
    }

    /// Lines and bytes that must be available to open it again.
    fn passage(&self) -> (f64, f64) {
        let of = |per_second: u32| (f64::from(per_second) * PASSAGE).max(1.0);
        (of(self.limits.lines_per_second), of(self.limits.bytes_per_second))
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        let (lines, bytes) = (f64::from(self.limits.lines_per_second), f64::from(self.limits.bytes_per_second));
        self.lines = (self.lines + seconds * lines).min(lines * BURST);
        self.bytes = (self.bytes + seconds * bytes).min(bytes * BURST);
    }
}
