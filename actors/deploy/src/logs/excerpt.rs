//! Excerpts: text of any length, as much of it as a sentence or a line of a log has room for.

use std::borrow::Cow;

/// The longest sentence of the platform in a log or as the reason of a failure, in bytes. What an app's files hold, such
/// as a name of a million letters, is quoted in sentences.
pub(crate) const SENTENCE: usize = 16 * 1024;

/// The beginning of `text`, at most `limit` bytes of it, and how much was cut.
pub(crate) fn excerpt(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return text.into();
    }
    let (shown, cut) = text.split_at(text.floor_char_boundary(limit));
    format!("{shown}… ({} more bytes were cut)", cut.len()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_ends_between_two_characters_and_says_what_was_cut() {
        assert_eq!(excerpt("short", 5), "short");
        assert_eq!(excerpt("aéb", 2), "a… (3 more bytes were cut)");
    }
}
