//! Values of an app's variables, which the logs of its deployments show by their names: `***DATABASE_URL***`.
//!
//! Builds print what they find in their environment, and more people read logs than may read variables. A value that
//! many a line could hold by chance, such as `production` or `8080`, is left as it is. A value is also found as programs
//! write it into JSON, addresses and base64, but not within something else that is encoded as a whole.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use aho_corasick::{AhoCorasick, MatchKind};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE},
};
use callboard_messages::project::Config;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    output::{Line, LineSink},
    terminal::{Colours, clean},
};

/// Shorter values are found everywhere.
const SHORTEST: usize = 8;
/// A word of one kind of letters is no secret unless it is so long.
const LONG: usize = 16;
/// All values together, in bytes, and all their encoded forms together: the automaton takes a multiple of it.
const TOGETHER: usize = 1024 * 1024;

/// What Python's `quote_plus` and Go's `QueryEscape` encode, and most others.
const STRICT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// What JavaScript's `encodeURIComponent` encodes.
const OF_JAVASCRIPT: AsciiSet = STRICT.remove(b'!').remove(b'*').remove(b'\'').remove(b'(').remove(b')');
/// What Python's `quote` encodes.
const OF_PATHS: AsciiSet = STRICT.remove(b'/');

/// Replaces values by names. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mask(Option<Arc<Values>>);

#[derive(Debug)]
struct Values {
    automaton: AhoCorasick,
    shown: Vec<String>,
}

impl Mask {
    /// A mask of these variables.
    pub(crate) fn new<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let (mut names, mut together, mut encoded) = (BTreeMap::new(), 0, 0);
        let variables: Vec<_> = variables.into_iter().collect();
        for (name, value) in &variables {
            // A log has lines: of a key in several each is a value.
            for line in value.lines().map(str::trim).filter(|line| is_telling(line)) {
                together += line.len();
                if together > TOGETHER {
                    tracing::warn!(name, "the values of an app's variables are too long to be masked in its logs");
                    break;
                }
                names.entry(line.to_owned()).or_insert(*name);
            }
        }
        for (name, value) in variables.iter().filter(|(_, value)| is_telling(value.trim())) {
            // All forms of one together are about so long.
            if encoded + 16 * value.len() > TOGETHER {
                tracing::warn!(name, "the value of an app's variable is too long to be masked where it is encoded");
                continue;
            }
            for form in forms(value.trim()) {
                encoded += form.len();
                names.entry(form).or_insert(*name);
            }
        }
        if names.is_empty() {
            return Self::default();
        }
        let (values, shown): (Vec<String>, Vec<String>) =
            names.into_iter().map(|(value, name)| (value, format!("***{name}***"))).unzip();
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(values);
        match automaton {
            Ok(automaton) => Self(Some(Arc::new(Values { automaton, shown }))),
            Err(error) => {
                tracing::warn!(%error, "the values of an app's variables can't be masked in its logs");
                Self::default()
            }
        }
    }

    /// A mask of a project's variables, but those that are no secrets.
    pub(crate) fn of(config: &Config) -> Self {
        let secret = config.environment.iter().filter(|(name, _)| !config.plain.contains(name));
        Self::new(secret.map(|(name, value)| (name.as_str(), value.expose())))
    }

    /// The text with the names in the place of the values.
    pub(crate) fn cover<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some(values) = &self.0 else { return text.into() };
        let cover = |text: &str| values.automaton.replace_all(text, &values.shown);
        if text.contains('\u{1b}') {
            // Colours may stand in the midst of a value: they go where it is found only without them.
            let covered = cover(text);
            let plain = clean(&covered, Colours::Dropped);
            return if values.automaton.is_match(&plain) { cover(&plain).into() } else { covered.into() };
        }
        if values.automaton.is_match(text) { cover(text).into() } else { text.into() }
    }

    /// Passes lines on with the names in the place of the values.
    pub(crate) fn before(&self, sink: &LineSink) -> LineSink {
        if self.0.is_none() {
            return sink.clone();
        }
        let (mask, sink) = (self.clone(), sink.clone());
        LineSink::new(move |line: Line| {
            let text = mask.cover(&line.text).into_owned();
            sink.pass(Line { text, ..line });
        })
    }
}

/// A value as programs write it into other texts.
fn forms(value: &str) -> Vec<String> {
    let in_json = serde_json::Value::from(value).to_string();
    let in_json = in_json.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned();
    let mut all = vec![in_json];
    for set in [&STRICT, &OF_JAVASCRIPT, &OF_PATHS] {
        let in_address = utf8_percent_encode(value, set).to_string();
        all.extend([in_address.replace("%20", "+"), in_address]);
    }
    // With the line break that `echo` adds, too.
    for bytes in [value.to_owned(), format!("{value}\n")] {
        for encoded in [BASE64_STANDARD.encode(&bytes), BASE64_URL_SAFE.encode(&bytes)] {
            all.push(encoded.trim_end_matches('=').to_owned());
            all.push(encoded);
        }
    }
    all.retain(|form| form != value && !form.is_empty());
    all.sort();
    all.dedup();
    all
}

/// Whether a value would be missed by nobody who reads a log, and says something to who must not know it.
fn is_telling(value: &str) -> bool {
    if value.len() < SHORTEST {
        return false;
    }
    let kinds: [fn(&u8) -> bool; 4] =
        [u8::is_ascii_lowercase, u8::is_ascii_uppercase, u8::is_ascii_digit, |byte| !byte.is_ascii_alphanumeric()];
    let has = kinds.iter().filter(|kind| value.as_bytes().iter().any(kind)).count();
    let mut letters = value.bytes();
    let first = letters.next();
    // `********`, `00000000`.
    let is_uniform = letters.all(|letter| Some(letter) == first);
    !is_uniform && (has >= 2 || value.len() >= LONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_as_programs_write_them_into_other_texts() {
        let value = "p\"a:s/s w!rd&9";
        let mask = Mask::new([("SECRET", value), ("KEY", "-----BEGIN-----\nabcdEFGH12\n")]);
        for encoded in [
            serde_json::json!({ "a": value }).to_string().replace("{\"a\":\"", "").replace("\"}", ""),
            "p%22a%3As%2Fs%20w%21rd%269".to_owned(),
            "p%22a%3As%2Fs%20w!rd%269".to_owned(),
            "p%22a%3As/s%20w%21rd%269".to_owned(),
            "p%22a%3As%2Fs+w%21rd%269".to_owned(),
            BASE64_STANDARD.encode(value),
            BASE64_STANDARD.encode(format!("{value}\n")),
            BASE64_STANDARD.encode(value).trim_end_matches('=').to_owned(),
        ] {
            assert_eq!(mask.cover(&format!("it is {encoded} there")), "it is ***SECRET*** there", "{encoded}");
        }
        assert_eq!(mask.cover(r"-----BEGIN-----\nabcdEFGH12"), "***KEY***");
        assert_eq!(mask.cover("\u{1b}[31mred\u{1b}[0m"), "\u{1b}[31mred\u{1b}[0m");
        assert_eq!(mask.cover("at abcd\u{1b}[31mEFGH12\u{1b}[0m"), "at ***KEY***");
    }

    #[test]
    fn values_that_tell_something_are_shown_by_their_names_and_others_as_they_are() {
        let mask = Mask::new([
            ("DATABASE_URL", "postgres://me:hunter2@db/app"),
            ("PASSWORD", "hunter22"),
            ("LONGER", "hunter22-and-more"),
            ("NODE_ENV", "production"),
            ("PORT_OF_IT", "8080"),
            ("ID", "1234567890"),
            ("KEY", "-----BEGIN KEY-----\nabcdEFGH1234\n-----END KEY-----"),
            ("EMPTY", ""),
        ]);
        for (text, shown) in [
            ("connecting to postgres://me:hunter2@db/app now", "connecting to ***DATABASE_URL*** now"),
            ("hunter22 hunter22-and-more hunter2", "***PASSWORD*** ***LONGER*** hunter2"),
            ("NODE_ENV=production on 8080 at 1234567890", "NODE_ENV=production on 8080 at 1234567890"),
            ("abcdEFGH1234", "***KEY***"),
            ("plain", "plain"),
        ] {
            assert_eq!(mask.cover(text), shown);
        }
        assert_eq!(Mask::new([]).cover("x"), "x");
    }
}
