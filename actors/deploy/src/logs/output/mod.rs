//! The output of programs: lines, bounded in length and in rate.
//!
//! Apps and builds write anything, as fast as they can. Everything that leaves this module is text without control
//! characters, with colours at most ([`terminal`](crate::terminal)); no line is longer than its limit, and the rate has
//! a budget: what exceeds it is counted, in a line where it would have been. The last lines before a pause or the end are
//! passed all the same: a program that fails says there why.

mod budget;
mod splitter;

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::Instant,
};

use self::{budget::Budget, splitter::Splitter};
use crate::logs::{
    excerpt::{SENTENCE, excerpt},
    terminal::plain,
};

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// From Callboard, about the program.
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

/// Receives lines as they come, on the thread that reads them: it must not block.
#[derive(Clone)]
pub struct LineSink(Arc<dyn Fn(Line) + Send + Sync>);

impl LineSink {
    /// Calls `take` with every line.
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

    /// Passes a line about the program, which may quote its output.
    pub fn say(&self, text: impl AsRef<str>) {
        self.line(Stream::System, plain(&excerpt(text.as_ref(), SENTENCE)));
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

/// Limits of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputLimits {
    /// Longest line, in bytes; longer ones are cut.
    pub line_length: usize,
    /// Lines a second; four seconds' worth may come at once.
    pub lines_per_second: u32,
    /// Bytes a second; four seconds' worth may come at once.
    pub bytes_per_second: u32,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self { line_length: 16 * 1024, lines_per_second: 1_000, bytes_per_second: 1024 * 1024 }
    }
}

/// Reads `from` to its end and passes its lines within the limits.
///
/// A program that writes more than its budget is slowed to about 30 MiB/s by its full pipe, so that reading what is
/// thrown away does not take the processor from the other apps.
pub(crate) async fn pump(from: impl AsyncRead + Unpin, stream: Stream, limits: OutputLimits, sink: LineSink) {
    let mut from = from;
    let mut buffer = vec![0; 64 * 1024];
    let mut lines = Lines::new(stream, limits, sink);
    loop {
        let read = tokio::select! {
            biased;
            read = from.read(&mut buffer) => read,
            () = until(lines.due()) => {
                lines.wake();
                continue;
            }
        };
        match read {
            Ok(0) | Err(_) => break,
            Ok(read) => lines.take(buffer.get(..read).unwrap_or_default()),
        }
        lines.wake();
        if lines.budget.is_exhausted() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
    lines.finish();
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The lines of one stream, before they reach a sink.
struct Lines {
    stream: Stream,
    sink: LineSink,
    splitter: Splitter,
    budget: Budget,
}

impl Lines {
    fn new(stream: Stream, limits: OutputLimits, sink: LineSink) -> Self {
        let splitter = Splitter::new(limits.line_length);
        Self { stream, sink, splitter, budget: Budget::new(limits, Instant::now()) }
    }

    fn take(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        let Self { stream, sink, splitter, budget } = self;
        splitter.push(bytes, now, &mut |text| pass(*stream, sink, budget, text, now));
    }

    /// When a notice or an unfinished line is due, though nothing was read.
    fn due(&self) -> Option<Instant> {
        self.splitter.due().into_iter().chain(self.budget.due()).min()
    }

    fn wake(&mut self) {
        let now = Instant::now();
        let Self { stream, sink, splitter, budget } = self;
        splitter.show(now, &mut |text| pass(*stream, sink, budget, text, now));
        if budget.due().is_some_and(|due| due <= now) {
            catch_up(*stream, sink, budget, now);
        }
    }

    fn finish(mut self) {
        let now = Instant::now();
        let Self { stream, sink, splitter, budget } = &mut self;
        splitter.finish(&mut |text| pass(*stream, sink, budget, text, now));
        catch_up(*stream, sink, budget, now);
    }
}

/// Passes a line within the budget, after what is due of the lines before it.
fn pass(stream: Stream, sink: &LineSink, budget: &mut Budget, text: String, now: Instant) {
    if let Some(text) = budget.admit(text, now) {
        catch_up(stream, sink, budget, now);
        sink.line(stream, text);
    }
}

/// Passes the notice of dropped lines, and the lines that came after those.
fn catch_up(stream: Stream, sink: &LineSink, budget: &mut Budget, now: Instant) {
    let (notice, held) = budget.release(now);
    if let Some(notice) = notice {
        sink.say(notice);
    }
    held.into_iter().for_each(|text| sink.line(stream, text));
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    type Said = Arc<parking_lot::Mutex<Vec<Line>>>;

    fn listening() -> (Said, LineSink) {
        let lines = Said::default();
        let sink = LineSink::new({
            let lines = lines.clone();
            move |line| lines.lock().push(line)
        });
        (lines, sink)
    }

    fn limits() -> OutputLimits {
        OutputLimits { lines_per_second: 10, ..OutputLimits::default() }
    }

    #[tokio::test]
    async fn more_than_the_budget_is_dropped_and_told() {
        let input: Vec<u8> = b"line\n".repeat(1_000);
        let (lines, sink) = listening();
        pump(&input[..], Stream::Stdout, limits(), sink).await;
        let lines = lines.lock();
        assert_eq!(lines.iter().filter(|line| line.stream == Stream::Stdout).count(), 60);
        let notice = lines.iter().find(|line| line.stream == Stream::System).unwrap();
        assert!(notice.text.starts_with("940 lines"), "{}", notice.text);
    }

    #[test]
    fn what_is_dropped_is_told_where_it_would_have_been() {
        let now = Instant::now();
        let mut budget = Budget::new(limits(), now);
        let (lines, sink) = listening();
        let mut write = |number: u64, after: u64| {
            pass(Stream::Stdout, &sink, &mut budget, number.to_string(), now + Duration::from_millis(after));
        };
        (0..65).for_each(|number| write(number, 0));
        // A tenth of a second later there is room for one line, but not for a passage.
        write(65, 100);
        (66..71).for_each(|number| write(number, 600));
        let said: Vec<String> = lines.lock().iter().map(|line| line.text.clone()).collect();
        assert!(said[40].starts_with("6 lines"), "{said:?}");
        let shown: Vec<String> = (46..71).map(|number| number.to_string()).collect();
        assert_eq!((said[39].as_str(), &said[41..]), ("39", &shown[..]));
    }

    #[test]
    fn what_is_dropped_is_told_after_a_moment_though_nothing_follows() {
        let now = Instant::now();
        let mut budget = Budget::new(limits(), now);
        assert_eq!((0..70).filter_map(|_| budget.admit("line".to_owned(), now)).count(), 40);
        let due = budget.due().unwrap();
        assert_eq!(due - now, Duration::from_secs(1));
        let (notice, held) = budget.release(due);
        assert!(notice.unwrap().starts_with("10 lines") && held.len() == 20);
        assert!(budget.due().is_none() && budget.release(due) == (None, VecDeque::new()));
    }

    #[tokio::test]
    async fn the_end_of_a_burst_is_passed_because_it_may_be_the_reason_for_a_failure() {
        let mut input: Vec<u8> = (0..6_000).flat_map(|number| format!("{number}\n").into_bytes()).collect();
        input.extend_from_slice(b"the reason");
        let (lines, sink) = listening();
        pump(&input[..], Stream::Stderr, OutputLimits::default(), sink).await;
        let lines = lines.lock();
        let end: Vec<&str> = lines.iter().rev().take(2).map(|line| line.text.as_str()).collect();
        assert_eq!(end, ["the reason", "5999"]);
        assert!(lines.iter().any(|line| line.text.contains("of output were dropped here")));
    }

    #[test]
    fn a_sentence_that_quotes_very_much_is_cut() {
        let (lines, sink) = listening();
        sink.say("x".repeat(700_000));
        assert!(lines.lock()[0].text.len() < 17_000);
    }

    #[tokio::test]
    async fn a_program_that_waits_for_an_answer_is_heard() {
        let (mut program, from) = tokio::io::duplex(1024);
        let (lines, sink) = listening();
        let pumping = tokio::spawn(pump(from, Stream::Stdout, OutputLimits::default(), sink));
        program.write_all(b"Go on? ").await.unwrap();
        let heard = async {
            while lines.lock().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), heard).await.expect("the question is heard");
        assert_eq!(lines.lock()[0].text, "Go on? ");
        program.write_all(b"\n").await.unwrap();
        drop(program);
        pumping.await.unwrap();
        assert_eq!(lines.lock().len(), 1);
    }
}
