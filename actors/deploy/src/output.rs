//! What a program says while it runs: lines, bounded in length and in rate.
//!
//! Apps and builds write whatever they like, as fast as they can. Everything that leaves this module is valid UTF-8
//! without NUL (PostgreSQL stores none), no line is longer than its limit, and no more than a budget per second
//! passes: the rest is counted and told in one line.

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::Instant,
};

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Said by Callboard about the program.
    System,
    /// The program's standard output.
    Stdout,
    /// The program's standard error.
    Stderr,
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it was read.
    pub at: DateTime<Utc>,
    /// Where it came from.
    pub stream: Stream,
    /// The text, without its line break.
    pub text: String,
}

/// Takes lines as they come. Called on the thread that reads them: it must not block.
#[derive(Clone)]
pub struct LineSink(Arc<dyn Fn(Line) + Send + Sync>);

impl LineSink {
    /// Every line goes to `take`.
    pub fn new(take: impl Fn(Line) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// Drops every line.
    #[must_use]
    pub fn none() -> Self {
        Self::new(|_| {})
    }

    /// Passes a line on.
    pub fn line(&self, stream: Stream, text: impl Into<String>) {
        self.pass(Line { at: Utc::now(), stream, text: text.into() });
    }

    /// Says something about the program.
    pub fn say(&self, text: impl Into<String>) {
        self.line(Stream::System, text);
    }

    pub(crate) fn pass(&self, line: Line) {
        (self.0)(line);
    }
}

impl fmt::Debug for LineSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LineSink")
    }
}

/// How much output passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputLimits {
    /// Longer lines are cut, in bytes.
    pub line_length: usize,
    /// Lines that pass in a second; four seconds' worth may come at once.
    pub lines_per_second: u32,
    /// Bytes that pass in a second; four seconds' worth may come at once.
    pub bytes_per_second: u32,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self { line_length: 16 * 1024, lines_per_second: 1_000, bytes_per_second: 1024 * 1024 }
    }
}

/// Splits bytes into lines of at most `limit` bytes; what a longer line has more is dropped and told at its end.
pub(crate) struct Splitter {
    limit: usize,
    partial: Vec<u8>,
    cut: u64,
}

impl Splitter {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), partial: Vec::new(), cut: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8], emit: &mut impl FnMut(String)) {
        let mut pieces = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let room = self.limit.saturating_sub(self.partial.len());
            let taken = piece.get(..room).unwrap_or(piece);
            self.partial.extend_from_slice(taken);
            self.cut += (piece.len() - taken.len()) as u64;
            if pieces.peek().is_some() {
                emit(self.take());
            }
        }
    }

    /// The last line, if it had no line break.
    pub(crate) fn finish(&mut self) -> Option<String> {
        (!self.partial.is_empty() || self.cut > 0).then(|| self.take())
    }

    fn take(&mut self) -> String {
        if self.partial.last() == Some(&b'\r') {
            self.partial.pop();
        }
        let mut text = String::from_utf8_lossy(&self.partial).replace('\0', "\u{fffd}");
        if self.cut > 0 {
            text.push_str(&format!(" … ({} more bytes of this line were cut)", self.cut));
        }
        self.partial.clear();
        self.cut = 0;
        text
    }
}

/// A token bucket for lines and bytes that counts what it refuses.
pub(crate) struct Budget {
    limits: OutputLimits,
    lines: f64,
    bytes: f64,
    filled: Instant,
    told: Instant,
    dropped_lines: u64,
    dropped_bytes: u64,
}

const BURST_SECONDS: f64 = 4.0;

impl Budget {
    pub(crate) fn new(limits: OutputLimits) -> Self {
        let now = Instant::now();
        let (lines, bytes) = (f64::from(limits.lines_per_second), f64::from(limits.bytes_per_second));
        let (lines, bytes) = (lines * BURST_SECONDS, bytes * BURST_SECONDS);
        Self { limits, lines, bytes, filled: now, told: now, dropped_lines: 0, dropped_bytes: 0 }
    }

    /// Whether a line of this size may pass now.
    pub(crate) fn admit(&mut self, size: usize) -> bool {
        self.refill();
        if self.lines >= 1.0 && self.bytes >= 1.0 {
            self.lines -= 1.0;
            self.bytes -= size as f64;
            return true;
        }
        self.dropped_lines += 1;
        self.dropped_bytes += size as u64 + 1;
        false
    }

    /// Whether the budget is used up for now.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.lines < 1.0 || self.bytes < 1.0
    }

    /// What was dropped since it was last told, at most once a second unless `now`.
    pub(crate) fn notice(&mut self, now: bool) -> Option<String> {
        if self.dropped_lines == 0 || (!now && self.told.elapsed() < Duration::from_secs(1)) {
            return None;
        }
        let text = format!(
            "{} lines ({} KiB) of output were dropped: more than {} lines or {} KiB a second; log less",
            self.dropped_lines,
            self.dropped_bytes.div_ceil(1024),
            self.limits.lines_per_second,
            self.limits.bytes_per_second / 1024,
        );
        self.told = Instant::now();
        (self.dropped_lines, self.dropped_bytes) = (0, 0);
        Some(text)
    }

    fn refill(&mut self) {
        let now = Instant::now();
        let seconds = now.duration_since(self.filled).as_secs_f64();
        self.filled = now;
        let (lines, bytes) = (f64::from(self.limits.lines_per_second), f64::from(self.limits.bytes_per_second));
        self.lines = (self.lines + seconds * lines).min(lines * BURST_SECONDS);
        self.bytes = (self.bytes + seconds * bytes).min(bytes * BURST_SECONDS);
    }
}

/// Reads `from` to its end and passes its lines within the limits.
///
/// A program that writes more than its budget is slowed to about 30 MiB/s by its full pipe, so that reading what is
/// thrown away does not take the processor from the other apps.
pub(crate) async fn pump(from: impl AsyncRead + Unpin, stream: Stream, limits: OutputLimits, sink: LineSink) {
    let mut from = from;
    let mut splitter = Splitter::new(limits.line_length);
    let mut budget = Budget::new(limits);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        splitter.push(bytes, &mut |text| {
            if budget.admit(text.len()) {
                sink.line(stream, text);
            }
        });
        if let Some(notice) = budget.notice(false) {
            sink.say(notice);
        }
        if budget.is_exhausted() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
    if let Some(text) = splitter.finish()
        && budget.admit(text.len())
    {
        sink.line(stream, text);
    }
    if let Some(notice) = budget.notice(true) {
        sink.say(notice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(limit: usize, chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut splitter = Splitter::new(limit);
        for chunk in chunks {
            splitter.push(chunk, &mut |line| lines.push(line));
        }
        lines.extend(splitter.finish());
        lines
    }

    #[test]
    fn lines_are_joined_over_chunks_and_carriage_returns_go() {
        assert_eq!(split(100, &[b"on", b"e\r\ntwo\n", b"\nfour"]), ["one", "two", "", "four"]);
    }

    #[test]
    fn long_lines_are_cut_and_say_so() {
        let lines = split(4, &[b"abcdefgh", b"ij\nkl"]);
        assert_eq!(lines, ["abcd … (6 more bytes of this line were cut)", "kl"]);
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        assert_eq!(split(100, &[b"a\xff\0b\n"]), ["a\u{fffd}\u{fffd}b"]);
    }

    #[tokio::test]
    async fn more_than_the_budget_is_dropped_and_told() {
        let limits = OutputLimits { lines_per_second: 10, ..OutputLimits::default() };
        let input: Vec<u8> = b"line\n".repeat(1_000);
        let lines = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let sink = LineSink::new({
            let lines = lines.clone();
            move |line| lines.lock().push(line)
        });
        pump(&input[..], Stream::Stdout, limits, sink).await;
        let lines = lines.lock();
        assert_eq!(lines.iter().filter(|line| line.stream == Stream::Stdout).count(), 40);
        let notice = lines.iter().find(|line| line.stream == Stream::System).unwrap();
        assert!(notice.text.starts_with("960 lines"), "{}", notice.text);
    }
}
