//! Text from untrusted sources, made safe to print.
//!
//! Apps, builds and the hosts of repositories write escape sequences, and a terminal obeys them: it moves the cursor,
//! changes its title, answers as if somebody typed. What passes here is text and, where wanted, colours; a line that
//! sets colours ends with their reset. The other sequences (CSI, OSC, DCS and similar), control characters of C0 and C1
//! (also as U+0080 to U+009F) are dropped, and invisible characters that change the order of a line become U+FFFD.

use anstyle_parse::state::{Action, State, state_change};

/// Ends all colours.
const RESET: &str = "\u{1b}[0m";

/// Whether colours are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// They stay.
    Kept,
    /// They are dropped too.
    Dropped,
}

/// `line` made printable. Line breaks are the caller's: in here they are dropped as control characters.
#[must_use]
pub fn clean(line: &str, colours: Colours) -> String {
    let mut cleaner = Cleaner::new(colours);
    let mut text = String::with_capacity(line.len());
    cleaner.push(line, &mut text);
    cleaner.end(&mut text);
    text
}

/// `text` as part of another line: without colours, and with visible line breaks.
#[must_use]
pub fn plain(text: &str) -> String {
    clean(&one_line(text), Colours::Dropped)
}

/// `text` with visible line breaks, so that it can't look like several lines.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.trim_end_matches(['\r', '\n']).replace("\r\n", "\n").replace('\n', "\u{2424}")
}

/// The visible state of an overwritten line: what follows the last carriage return.
#[must_use]
pub fn last_state(line: &str) -> &str {
    line.rsplit('\r').find(|state| !state.trim().is_empty()).unwrap_or_default()
}

/// `json` with deceptive characters escaped; its meaning stays the same.
#[must_use]
pub fn escape_json(json: String) -> String {
    // These characters occur only inside strings.
    if !json.contains(is_suspect) {
        return json;
    }
    json.chars().fold(String::with_capacity(json.len() + 64), |mut text, letter| {
        if is_suspect(letter) {
            text.push_str(&format!("\\u{:04x}", u32::from(letter)));
        } else {
            text.push(letter);
        }
        text
    })
}

/// Characters that the JSON writer leaves as they are, and that must not reach a terminal.
fn is_suspect(letter: char) -> bool {
    is_c1(letter) || letter == '\u{7f}' || changes_order(letter)
}

const fn is_c1(letter: char) -> bool {
    matches!(letter, '\u{80}'..='\u{9f}')
}

/// Embeddings, overrides and isolates of bidirectional text, and separators that some take for line breaks.
const fn changes_order(letter: char) -> bool {
    matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// Cleans a line that comes in pieces, which may be cut anywhere between two characters.
#[derive(Debug)]
pub(crate) struct Cleaner {
    colours: Colours,
    state: State,
    /// The current sequence, without its introducer.
    sequence: String,
    /// Whether a colour is set.
    coloured: bool,
    /// Whether anything visible was passed on.
    visible: bool,
}

impl Cleaner {
    pub(crate) const fn new(colours: Colours) -> Self {
        Self { colours, state: State::Ground, sequence: String::new(), coloured: false, visible: false }
    }

    /// Appends the printable part of `piece` to `text`.
    pub(crate) fn push(&mut self, piece: &str, text: &mut String) {
        let mut rest = piece;
        while !rest.is_empty() {
            if self.state == State::Ground {
                let (plain, special) = rest.split_at(rest.find(is_special).unwrap_or(rest.len()));
                text.push_str(plain);
                self.visible |= plain.contains(|letter: char| !letter.is_whitespace());
                rest = special;
            }
            let mut letters = rest.chars();
            if let Some(letter) = letters.next() {
                self.letter(letter, text);
            }
            rest = letters.as_str();
        }
    }

    /// Ends the line. The text of an unterminated string sequence is shown: it would be lost otherwise.
    pub(crate) fn end(&mut self, text: &mut String) {
        if self.in_string() {
            self.visible |= !self.sequence.trim().is_empty();
            text.push_str(&self.sequence);
        }
        self.state = State::Ground;
        self.sequence.clear();
        self.pause(text);
    }

    /// Ends the colours only: what follows belongs to the same line.
    pub(crate) fn pause(&mut self, text: &mut String) {
        if std::mem::take(&mut self.coloured) {
            text.push_str(RESET);
        }
    }

    /// Whether anything visible was passed on since [`Self::take_visible`].
    pub(crate) const fn is_visible(&self) -> bool {
        self.visible
    }

    /// Whether anything visible was passed on since the last call.
    pub(crate) const fn take_visible(&mut self) -> bool {
        std::mem::replace(&mut self.visible, false)
    }

    const fn in_string(&self) -> bool {
        matches!(self.state, State::OscString | State::DcsPassthrough | State::DcsIgnore | State::SosPmApcString)
    }

    fn letter(&mut self, letter: char, text: &mut String) {
        if is_c1(letter) {
            // A character of C1 means the same as ESC with the letter 64 below it.
            self.byte(0x1b, text);
            self.byte((u32::from(letter) as u8).wrapping_sub(0x40), text);
        } else if letter.is_ascii() {
            self.byte(letter as u8, text);
        } else if self.in_string() {
            self.sequence.push(seen(letter));
        } else {
            // Other sequences are ASCII: this one is broken.
            self.state = State::Ground;
            self.sequence.clear();
            self.show(letter, text);
        }
    }

    fn byte(&mut self, byte: u8, text: &mut String) {
        let (next, action) = state_change(self.state, byte);
        let next = if next == State::Anywhere { self.state } else { next };
        match action {
            Action::Print if byte != 0x7f => self.show(byte.into(), text),
            Action::Execute if byte == b'\t' => text.push('\t'),
            Action::CsiDispatch if byte == b'm' => self.colour(text),
            _ => {}
        }
        if matches!(next, State::Ground | State::Escape) {
            self.sequence.clear();
        } else if matches!(byte, 0x20..=0x7e) && !(self.state == State::Escape && is_introducer(byte)) {
            self.sequence.push(byte.into());
        }
        self.state = next;
    }

    fn show(&mut self, letter: char, text: &mut String) {
        self.visible |= !letter.is_whitespace();
        text.push(seen(letter));
    }

    fn colour(&mut self, text: &mut String) {
        if self.colours == Colours::Dropped {
            return;
        }
        let kept = styles(&self.sequence);
        if let Some(last) = kept.last() {
            self.coloured = last != "0";
            text.push_str(&format!("\u{1b}[{}m", kept.join(";")));
        }
    }
}

/// Characters that are not passed on as they are: control characters, and those that change the order of a line.
fn is_special(letter: char) -> bool {
    (letter.is_control() && letter != '\t') || changes_order(letter)
}

const fn seen(letter: char) -> char {
    if changes_order(letter) { char::REPLACEMENT_CHARACTER } else { letter }
}

/// Bytes that begin a longer sequence after ESC: CSI, OSC, DCS, SOS, PM and APC.
const fn is_introducer(byte: u8) -> bool {
    matches!(byte, b'[' | b']' | b'P' | b'X' | b'^' | b'_')
}

/// The parameters of SGR that are colours and weights, without hidden and blinking text.
fn styles(parameters: &str) -> Vec<String> {
    let mut kept = Vec::new();
    if !parameters.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':')) {
        // A private sequence that ends like SGR, such as xterm's `CSI > 4 ; 2 m`.
        return kept;
    }
    let mut all = parameters.split(';');
    while let Some(parameter) = all.next() {
        match parameter {
            "38" | "48" => {
                let kind = all.next().unwrap_or_default();
                let count = match kind {
                    "5" => 1,
                    "2" => 3,
                    _ => return kept,
                };
                let values: Vec<&str> = all.by_ref().take(count).collect();
                if values.len() == count && values.iter().all(|value| value.parse::<u8>().is_ok()) {
                    kept.push(format!("{parameter};{kind};{}", values.join(";")));
                }
            }
            _ if parameter.starts_with("38:") || parameter.starts_with("48:") => kept.push(parameter.to_owned()),
            "" => kept.push("0".to_owned()),
            _ => {
                if let Ok(
                    style @ (0..=4 | 7 | 9 | 21..=24 | 27 | 29..=37 | 39..=47 | 49 | 53 | 55 | 90..=97 | 100..=107),
                ) = parameter.parse::<u8>()
                {
                    kept.push(style.to_string());
                }
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cut at every place, a line is cleaned to the same text.
    fn cleaned(line: &str, colours: Colours) -> String {
        let whole = clean(line, colours);
        for (cut, _) in line.char_indices() {
            let (mut cleaner, mut text) = (Cleaner::new(colours), String::new());
            let (first, second) = line.split_at(cut);
            cleaner.push(first, &mut text);
            cleaner.push(second, &mut text);
            cleaner.end(&mut text);
            assert_eq!(text, whole, "cut at {cut}: {line:?}");
        }
        whole
    }

    #[test]
    fn a_line_keeps_its_text_and_loses_what_a_terminal_would_obey() {
        for (line, text) in [
            ("plain \t text", "plain \t text"),
            ("größer 漢字 🎭", "größer 漢字 🎭"),
            ("\u{1b}[2J\u{1b}[Hcleared", "cleared"),
            ("up\u{1b}[1A\u{1b}[2Kover", "upover"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("\u{1b}]52;c;cm0gLXJm\u{1b}\\after", "after"),
            ("\u{1b}]8;;https://evil.example\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}P+q544e\u{1b}\\after", "after"),
            ("\u{1b}_apc\u{1b}\\\u{1b}^pm\u{1b}\\\u{1b}Xsos\u{1b}\\after", "after"),
            ("\u{1b}c\u{1b}7\u{1b}(0after", "after"),
            ("\u{1b}[6n\u{1b}[?1049h\u{1b}[>4;2mafter", "after"),
            ("bell\u{7}back\u{8}\u{8}null\0del\u{7f}", "bellbacknulldel"),
            // The same as characters of C1.
            ("\u{9b}2Jcleared", "cleared"),
            ("\u{9d}0;title\u{9c}after", "after"),
            ("\u{90}q\u{9c}after\u{85}\u{8d}", "after"),
            // A sequence that is broken off, and strings without an end.
            ("\u{1b}[12é", "é"),
            ("\u{1b}[31\u{18}after", "after"),
            ("\u{1b}]0;the rest of the line", "0;the rest of the line"),
            ("\u{1b}_the rest", "the rest"),
            ("ends with \u{1b}", "ends with "),
            ("ends with \u{1b}[3", "ends with "),
            // The order of a line.
            ("a\u{202e}b\u{2066}c\u{2028}d", "a\u{fffd}b\u{fffd}c\u{fffd}d"),
        ] {
            assert_eq!(cleaned(line, Colours::Dropped), text, "{line:?}");
            assert_eq!(cleaned(line, Colours::Kept), text, "{line:?}");
        }
    }

    #[test]
    fn colours_stay_where_they_are_wanted_and_end_with_the_line() {
        for (line, coloured, plain) in [
            ("\u{1b}[31mred\u{1b}[0m", "\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}[1;31mred", "\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}[mplain", "\u{1b}[0mplain", "plain"),
            ("\u{9b}32mgreen", "\u{1b}[32mgreen\u{1b}[0m", "green"),
            ("\u{1b}[38;5;196mx", "\u{1b}[38;5;196mx\u{1b}[0m", "x"),
            ("\u{1b}[38;2;1;2;3;1mx", "\u{1b}[38;2;1;2;3;1mx\u{1b}[0m", "x"),
            ("\u{1b}[38:2::1:2:3mx", "\u{1b}[38:2::1:2:3mx\u{1b}[0m", "x"),
            // Neither blinking nor hidden, nor what only looks like a colour.
            ("\u{1b}[8mhidden", "hidden", "hidden"),
            ("\u{1b}[5;31mx", "\u{1b}[31mx\u{1b}[0m", "x"),
            ("\u{1b}[38;5mx\u{1b}[38;9;1mx", "xx", "xx"),
            ("\u{1b}[?31mx\u{1b}[31 mx\u{1b}[999mx", "xxx", "xxx"),
        ] {
            assert_eq!(cleaned(line, Colours::Kept), coloured, "{line:?}");
            assert_eq!(cleaned(line, Colours::Dropped), plain, "{line:?}");
        }
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_left_of_any_line() {
        // Every pair of bytes behind each introducer.
        let introducers = ["", "\u{1b}", "\u{1b}[", "\u{1b}[3", "\u{1b}]", "\u{1b}P", "\u{1b}_", "\u{9b}", "\u{9d}"];
        for introducer in introducers {
            for (first, second) in (0..=0xa0_u8).flat_map(|first| (0..=0xa0_u8).map(move |second| (first, second))) {
                let line = format!("{introducer}{}{}x", char::from(first), char::from(second));
                let text = clean(&line, Colours::Dropped);
                assert!(!text.contains(|c: char| c.is_control() && c != '\t'), "{line:?}: {text:?}");
                let coloured = clean(&line, Colours::Kept);
                let without = coloured.split('\u{1b}').skip(1).all(|sequence| {
                    let end = sequence.find('m').unwrap();
                    sequence[1..end].bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':'))
                });
                assert!(without, "{line:?}: {coloured:?}");
            }
        }
    }

    #[test]
    fn text_within_a_line_is_one_line() {
        assert_eq!(plain("a\r\nb\n\u{1b}[31mc\n"), "a\u{2424}b\u{2424}c");
        assert_eq!(last_state("10%\r20%\r100%\r"), "100%");
    }

    #[test]
    fn json_is_escaped_and_means_the_same() {
        let value = serde_json::json!({ "text": "a\u{1b}[2J\u{9b}2J\u{7f}\u{202e}é\n" });
        let json = escape_json(value.to_string());
        assert!(!json.contains(is_special), "{json}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value);
    }
}
