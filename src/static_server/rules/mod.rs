//! The rules that a site brings along: `_redirects` and `_headers`, in its top folder.
//!
//! They are read once, when the server starts. A line that can't be used is told in the app's log, by its number, and the
//! others hold. The files themselves are never answered with.

mod fields;
mod pattern;
mod redirects;

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

pub use self::{
    fields::Fields,
    redirects::{Directed, Redirects},
};

/// The names of the files.
const REDIRECTS: &str = "_redirects";
const HEADERS: &str = "_headers";
/// The largest file of rules, in bytes.
const FILE_MAXIMUM: u64 = 512 * 1024;
/// The longest line, in bytes.
const LINE_MAXIMUM: usize = 2_000;
/// Lines of a file that are told of one by one.
const TOLD: usize = 20;

/// The rules of a site.
#[derive(Debug, Default)]
pub struct Rules {
    pub redirects: Redirects,
    pub fields: Fields,
}

/// A line of a file that can't be used.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine {
    number: usize,
    reason: String,
}

impl BadLine {
    fn new(number: usize, reason: impl Into<String>) -> Self {
        Self { number, reason: reason.into() }
    }
}

impl Rules {
    /// The rules of the site in which `open` opens files, and sentences on what of them can't be used. Blocks.
    pub fn read(open: impl Fn(&Path) -> Option<File>) -> (Self, Vec<String>) {
        let mut notes = Vec::new();
        let mut text_of = |name: &str| {
            let text = open(Path::new(name)).map(read);
            text.and_then(|text| text.map_err(|reason| notes.push(format!("{name} is not used: {reason}"))).ok())
        };
        let (redirects, headers) = (text_of(REDIRECTS), text_of(HEADERS));
        let (redirects, bad) = redirects.map(|text| Redirects::parse(&text)).unwrap_or_default();
        tell(REDIRECTS, bad, &mut notes);
        let (fields, bad) = headers.map(|text| Fields::parse(&text)).unwrap_or_default();
        tell(HEADERS, bad, &mut notes);
        (Self { redirects, fields }, notes)
    }
}

/// Whether a path below the site's folder is one of the files of rules.
pub fn is_rules(path: &Path) -> bool {
    path == Path::new(REDIRECTS) || path == Path::new(HEADERS)
}

fn read(file: File) -> Result<String, String> {
    let mut bytes = Vec::new();
    file.take(FILE_MAXIMUM + 1).read_to_end(&mut bytes).map_err(|error: io::Error| error.to_string())?;
    if bytes.len() as u64 > FILE_MAXIMUM {
        return Err(format!("it is larger than {} KiB", FILE_MAXIMUM / 1024));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

fn tell(name: &str, bad: Vec<BadLine>, notes: &mut Vec<String>) {
    let more = bad.len().saturating_sub(TOLD);
    notes.extend(bad.iter().take(TOLD).map(|bad| format!("{name}, line {}: {}", bad.number, bad.reason)));
    if more > 0 {
        notes.push(format!("{name}: {more} more lines can't be used"));
    }
}
