//! Values of an app's variables, which the logs of its deployments show by their names: `***DATABASE_URL***`.
//!
//! Builds print what they find in their environment, and more people read logs than may read variables. A value that
//! many a line could hold by chance, such as `production` or `8080`, is left as it is.

use std::{borrow::Cow, sync::Arc};

use aho_corasick::{AhoCorasick, MatchKind};
use callboard_messages::project::Config;

use super::output::{Line, LineSink};

/// Shorter values are found everywhere.
const SHORTEST: usize = 8;
/// A word of one kind of letters is no secret unless it is so long.
const LONG: usize = 16;
/// All values together, in bytes: their automaton takes a multiple of it.
const TOGETHER: usize = 1024 * 1024;

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
        let (mut values, mut shown, mut together) = (Vec::new(), Vec::new(), 0);
        for (name, value) in variables {
            // A log has lines: of a key in several each is a value.
            for line in value.lines().map(str::trim).filter(|line| is_telling(line)) {
                together += line.len();
                if together > TOGETHER {
                    tracing::warn!(name, "the values of an app's variables are too long to be masked in its logs");
                    break;
                }
                values.push(line);
                shown.push(format!("***{name}***"));
            }
        }
        if values.is_empty() {
            return Self::default();
        }
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
        match &self.0 {
            Some(values) if values.automaton.is_match(text) => values.automaton.replace_all(text, &values.shown).into(),
            _ => text.into(),
        }
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
