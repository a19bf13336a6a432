//! Splits a stream of bytes into lines.

use std::time::Duration;

use tokio::time::Instant;

use crate::logs::terminal::{Cleaner, Colours};

/// A line without an end is shown after this pause: a prompt, a dot for each test.
const QUIET: Duration = Duration::from_millis(500);
/// A line that grows without an end is shown at this interval: a progress bar.
const SHOWN_EVERY: Duration = Duration::from_secs(5);

/// Splits bytes into lines of at most `limit` bytes; the rest of a longer line is dropped, with a note at its end.
///
/// A line that is overwritten after a carriage return is kept in its last state. A line without an end is shown after a
/// moment; what follows is a line of its own.
pub(super) struct Splitter {
    limit: usize,
    cleaner: Cleaner,
    /// The current line.
    text: String,
    /// The line at the last carriage return.
    before: String,
    /// Bytes of an incomplete character.
    undecoded: Vec<u8>,
    /// Bytes of the current line.
    taken: usize,
    cut: u64,
    /// When the first and the last unshown byte came.
    waiting: Option<(Instant, Instant)>,
    /// When the beginning of this line was last shown.
    shown: Option<Instant>,
}

impl Splitter {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            cleaner: Cleaner::new(Colours::Kept),
            text: String::new(),
            before: String::new(),
            undecoded: Vec::new(),
            taken: 0,
            cut: 0,
            waiting: None,
            shown: None,
        }
    }

    /// Takes bytes that were read at `now`.
    pub(super) fn push(&mut self, bytes: &[u8], now: Instant, emit: &mut impl FnMut(String)) {
        let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            let mut states = line.split(|byte| *byte == b'\r').peekable();
            while let Some(state) = states.next() {
                self.append(state, now);
                if states.peek().is_some() {
                    self.carriage_return();
                }
            }
            if lines.peek().is_some() {
                self.end(emit);
            }
        }
    }

    /// When a line without an end is due to be shown.
    pub(super) fn due(&self) -> Option<Instant> {
        let (first, last) = self.waiting?;
        let due = (last + QUIET).min(first + SHOWN_EVERY);
        Some(self.shown.map_or(due, |shown| due.max(shown + SHOWN_EVERY)))
    }

    /// Shows a line without an end, if it is due.
    pub(super) fn show(&mut self, now: Instant, emit: &mut impl FnMut(String)) {
        if self.due().is_none_or(|due| now < due) {
            return;
        }
        self.waiting = None;
        if !self.cleaner.is_visible() && self.before.is_empty() {
            return;
        }
        self.shown = Some(now);
        let mut text = self.take();
        self.cleaner.pause(&mut text);
        emit(text);
    }

    /// The last line, if it had no line break.
    pub(super) fn finish(&mut self, emit: &mut impl FnMut(String)) {
        if self.taken > 0 || !self.undecoded.is_empty() || !self.before.is_empty() {
            self.end(emit);
        }
    }

    fn append(&mut self, bytes: &[u8], now: Instant) {
        if bytes.is_empty() {
            return;
        }
        self.waiting = Some(self.waiting.map_or((now, now), |(first, _)| (first, now)));
        let room = self.limit.saturating_sub(self.taken);
        let fits = bytes.get(..room).unwrap_or(bytes);
        self.taken += fits.len();
        self.cut += (bytes.len() - fits.len()) as u64;
        if self.undecoded.is_empty() {
            self.decode(fits);
        } else {
            let mut whole = std::mem::take(&mut self.undecoded);
            whole.extend_from_slice(fits);
            self.decode(&whole);
        }
    }

    fn decode(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.cleaner.push(chunk.valid(), &mut self.text);
            let invalid = chunk.invalid();
            let may_go_on = || std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if chunks.peek().is_none() && may_go_on() {
                self.undecoded = invalid.to_vec();
            } else if !invalid.is_empty() {
                self.cleaner.push("\u{fffd}", &mut self.text);
            }
        }
    }

    /// Ends an incomplete character.
    fn end_of_characters(&mut self) {
        if !std::mem::take(&mut self.undecoded).is_empty() {
            self.cleaner.push("\u{fffd}", &mut self.text);
        }
    }

    fn carriage_return(&mut self) {
        self.end_of_characters();
        if self.cleaner.take_visible() {
            self.cleaner.pause(&mut self.text);
            self.before = std::mem::take(&mut self.text);
        } else {
            self.text.clear();
        }
        (self.taken, self.cut) = (0, 0);
    }

    fn end(&mut self, emit: &mut impl FnMut(String)) {
        self.end_of_characters();
        self.cleaner.end(&mut self.text);
        self.waiting = None;
        // The end of a line that was shown is not a line.
        let is_told = self.shown.take().is_some() && !self.cleaner.is_visible() && self.before.is_empty();
        let text = self.take();
        if !is_told {
            emit(text);
        }
    }

    fn take(&mut self) -> String {
        let (text, before) = (std::mem::take(&mut self.text), std::mem::take(&mut self.before));
        let mut text = if self.cleaner.take_visible() || before.is_empty() { text } else { before };
        if self.cut > 0 {
            text.push_str(&format!(" … ({} more bytes of this line were cut)", self.cut));
        }
        (self.taken, self.cut) = (0, 0);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(limit: usize, chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut splitter = Splitter::new(limit);
        for chunk in chunks {
            splitter.push(chunk, Instant::now(), &mut |line| lines.push(line));
        }
        splitter.finish(&mut |line| lines.push(line));
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
        assert_eq!(
            split(100, &[b"a\xff\0b\n", b"\xe2\x82", b"\xac \xe2", b"\n\xe2"]),
            ["a\u{fffd}b", "€ \u{fffd}", "\u{fffd}"]
        );
    }

    #[test]
    fn progress_is_kept_as_its_last_state() {
        assert_eq!(split(100, &[b"10%\r20%\r10", b"0%\n"]), ["100%"]);
        assert_eq!(split(100, &[b"\r10%\r20%\r\n", b"next\n"]), ["20%", "next"]);
        // What is wiped before the line ends was said all the same.
        assert_eq!(split(100, &[b"working\r       \r\x1b[K\n"]), ["working"]);
        assert_eq!(split(100, &[b"\x1b[32m10%\r\x1b[32m20%\n"]), ["\x1b[32m20%\x1b[0m"]);
        // Each state has the line's whole length.
        assert_eq!(split(4, &[b"abcd\r", b"efgh\r", b"ijkl\n"]), ["ijkl"]);
    }

    #[test]
    fn sequences_are_dropped_wherever_they_are_cut() {
        let line = b"a\x1b]0;title\x07b\x1b[2J\xc2\x9b1Ac\x1b[31md\n";
        for cut in 0..line.len() {
            let (first, second) = line.split_at(cut);
            assert_eq!(split(100, &[first, second]), ["abc\x1b[31md\x1b[0m"], "{cut}");
        }
        // The next line does not suffer from it.
        assert_eq!(split(100, &[b"\x1b]0;title\nnext\n"]), ["0;title", "next"]);
    }

    /// What is shown of a splitter as time goes on, without a clock that runs.
    struct Story {
        splitter: Splitter,
        now: Instant,
        lines: Vec<String>,
    }

    impl Story {
        fn new() -> Self {
            Self { splitter: Splitter::new(100), now: Instant::now(), lines: Vec::new() }
        }

        fn writes(&mut self, text: &str) {
            let Self { splitter, now, lines } = self;
            splitter.push(text.as_bytes(), *now, &mut |line| lines.push(line));
        }

        /// Wakes the splitter whenever it wants to be woken.
        fn after(&mut self, milliseconds: u64) -> Vec<String> {
            let end = self.now + Duration::from_millis(milliseconds);
            while let Some(due) = self.splitter.due().filter(|due| *due <= end) {
                self.now = due;
                self.splitter.show(due, &mut |line| self.lines.push(line));
            }
            self.now = end;
            std::mem::take(&mut self.lines)
        }
    }

    #[test]
    fn a_line_without_an_end_is_shown_after_a_moment_and_once() {
        let mut story = Story::new();
        story.writes("Go on? [y/N] ");
        assert!(story.after(499).is_empty());
        assert_eq!(story.after(1), ["Go on? [y/N] "]);
        assert!(story.after(60_000).is_empty());
        story.writes("\n");
        assert!(story.after(0).is_empty());
        story.writes("Name: ");
        assert_eq!(story.after(1_000), ["Name: "]);
        story.writes("x\nnext\n");
        assert_eq!(story.after(0), ["x", "next"]);
    }

    #[test]
    fn progress_is_shown_now_and_then_while_it_lasts() {
        let mut story = Story::new();
        let mut seen = Vec::new();
        for percent in 1..=100 {
            story.writes(&format!("{percent}%\r"));
            seen.extend(story.after(100));
        }
        story.writes("done\n");
        seen.extend(story.after(0));
        assert_eq!(seen, ["50%", "100%", "done"]);
    }

    #[test]
    fn a_sequence_is_not_shown_half() {
        let mut story = Story::new();
        story.writes("a\u{1b}[3");
        assert_eq!(story.after(1_000), ["a"]);
        story.writes("1mb\n");
        assert_eq!(story.after(0), ["\u{1b}[31mb\u{1b}[0m"]);
    }
}
