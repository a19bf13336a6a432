//! What a verb prints: text for people, or one JSON document.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// Where and how to print.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// One JSON document on standard output and no text.
    pub json: bool,
    colour: bool,
}

impl Output {
    /// Colours only on a terminal, and not where `NO_COLOR` is set.
    pub fn new(json: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { json, colour: io::stdout().is_terminal() && !refused }
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
            Ok(json) => write_line(&json),
            Err(error) => eprintln!("error: could not write the answer as JSON: {error}"),
        }
    }

    /// One JSON document on one line, for streams.
    pub fn json_line<T: Serialize>(&self, document: &T) {
        if let Ok(json) = serde_json::to_string(document) {
            write_line(&json);
        }
    }

    /// A line for people; nothing with `--json`.
    pub fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            write_line(text.as_ref());
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

/// A reader that has gone away (`| head`) is no failure: there is nobody to tell, so the program ends.
fn write_line(text: &str) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Columns padded to their widest cell; the last column is not padded.
pub fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
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
    }
}
