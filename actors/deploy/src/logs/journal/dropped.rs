//! Dropped lines: a notice in the log itself counts them, where they would have been.

use callboard_messages::deploy::LogLine;
use chrono::{DateTime, Utc};

/// The source of the notice.
const FROM: &str = "platform";

/// Dropped lines that no notice counts yet.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    lines: u64,
    /// The id of the last dropped line, which the notice takes over.
    last: u64,
}

impl Dropped {
    /// Counts lines that end with the line `last`.
    pub(super) const fn add(&mut self, lines: u64, last: u64) {
        self.lines += lines;
        self.last = last;
    }

    pub(super) const fn lines(&self) -> u64 {
        self.lines
    }

    /// The id of the notice.
    pub(super) const fn id(&self) -> u64 {
        self.last
    }

    /// The notice, serialized; empty when no line was dropped.
    pub(super) fn notice(&self, why: &str) -> Vec<u8> {
        if self.lines == 0 {
            return Vec::new();
        }
        let at = i64::try_from(self.last).ok().and_then(DateTime::<Utc>::from_timestamp_micros).unwrap_or_default();
        let what = if self.lines == 1 { "1 line was".to_owned() } else { format!("{} lines were", self.lines) };
        let text = format!("{what} dropped here: {why}");
        written(&LogLine { id: self.last, at, from: FROM.to_owned(), text })
    }
}

/// A line as a log holds it.
pub(super) fn written(line: &LogLine) -> Vec<u8> {
    // A line of plain strings and numbers always has a JSON form.
    let mut written = serde_json::to_vec(line).unwrap_or_default();
    written.push(b'\n');
    written
}
