//! What a verb prints: text for people, or one JSON document.
//!
//! All of it passes here, because much of it is in the words of others: apps, builds, nodes, repositories. A terminal
//! gets their colours at most, until the line's end, and a file or a pipe nothing but text.

use std::io::{self, IsTerminal, Write};

use callboard_deploy::logs::terminal::{Colours, clean, escape_json, last_state, one_line, plain};
use serde::Serialize;

/// Where and how to print.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// One JSON document on standard output and no text.
    pub json: bool,
    colour: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json, colour: shows_colours(&io::stdout()) }
    }

    /// The outcome: `document` as JSON, or what `text` makes of it.
    pub fn show<T: Serialize>(&self, document: &T, text: impl FnOnce(&T) -> String) {
        if self.json {
            self.document(document);
        } else {
            self.line(text(document).trim_end());
        }
    }

    /// One JSON document.
    pub fn document<T: Serialize>(&self, document: &T) {
        match serde_json::to_string_pretty(document) {
            Ok(json) => write_line(&escape_json(json)),
            Err(error) => complain(&format!("error: could not write the answer as JSON: {error}")),
        }
    }

    /// One JSON document on one line, for streams.
    pub fn json_line<T: Serialize>(&self, document: &T) {
        if let Ok(json) = serde_json::to_string(document) {
            write_line(&escape_json(json));
        }
    }

    /// A line for people, or several; nothing with `--json`.
    pub fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            write_line(&printable(text.as_ref(), self.colour));
        }
    }

    /// What a person should know of, though nothing has failed; with `--json` on standard error.
    pub fn note(&self, text: &str) {
        if self.json {
            complain(&format!("warning: {text}"));
        } else {
            self.line(format!(" !     {text}"));
        }
    }

    /// In bold, where that can be seen.
    pub fn bold(&self, text: &str) -> String {
        self.styled("1", text)
    }

    /// In grey, where that can be seen.
    pub fn dim(&self, text: &str) -> String {
        self.styled("2", text)
    }

    /// In a colour that stays the same for the same `name`.
    pub fn tinted(&self, name: &str, text: &str) -> String {
        const COLOURS: [&str; 6] = ["36", "32", "33", "35", "34", "31"];
        let sum = name.bytes().map(usize::from).sum::<usize>();
        self.styled(COLOURS.get(sum % COLOURS.len()).copied().unwrap_or("0"), text)
    }

    fn styled(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Colours only on a terminal, and not where `NO_COLOR` is set.
fn shows_colours(to: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    to.is_terminal() && !refused
}

/// What may be printed of lines that others have a part in.
fn printable(text: &str, colour: bool) -> String {
    let colours = if colour { Colours::Kept } else { Colours::Dropped };
    text.split('\n').map(|line| clean(last_state(line), colours)).collect::<Vec<_>>().join("\n")
}

/// A line on standard error.
pub fn complain(text: &str) {
    eprintln!("{}", printable(text, shows_colours(&io::stderr())));
}

/// A question on standard error, which is answered in the same line.
pub fn question(text: &str) {
    eprint!("{}", printable(text, false));
    drop(io::stderr().flush());
}

/// What one line of a log says, in one line.
pub fn line_of_log(text: &str) -> String {
    one_line(last_state(text))
}

/// A reader that has gone away (`| head`) is no failure: there is nobody to tell, so the program ends.
fn write_line(text: &str) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Columns padded to their widest cell; the last column is not padded. A cell is one line without colours of its own.
pub fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows = rows.into_iter().map(|row| row.map(|cell| plain(&cell)));
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let text = table(["NAME", "URL"], [["a".to_owned(), "b".to_owned()], ["longer".to_owned(), String::new()]]);
        assert_eq!(text, "NAME    URL\na       b\nlonger\n");
        let hostile = [["\u{1b}[31ma\nb\u{1b}[2J".to_owned(), "c".to_owned()]];
        assert_eq!(table(["NAME", "URL"], hostile), "NAME  URL\na\u{2424}b   c\n");
    }

    #[test]
    fn a_terminal_gets_colours_that_end_with_the_line_and_a_file_gets_none() {
        let text = "\u{1b}[31mred\n\u{1b}[2J10%\r\u{9b}1A20%";
        assert_eq!(printable(text, true), "\u{1b}[31mred\u{1b}[0m\n20%");
        assert_eq!(printable(text, false), "red\n20%");
        assert_eq!(line_of_log("10%\r20%\nforged"), "20%\u{2424}forged");
    }
}
