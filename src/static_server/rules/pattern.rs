//! Paths with placeholders and a splat, as the rules of a site name them.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A pattern of paths. A slash at the end makes no difference.
#[derive(Debug, PartialEq, Eq)]
pub struct Pattern(Shape);

#[derive(Debug, PartialEq, Eq)]
enum Shape {
    /// `/blog/:year/*`: whole parts, and whether anything may follow them.
    Parts(Vec<Part>, bool),
    /// `/assets/*.js`: anything between a beginning and an end.
    Between(String, String),
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// This text, decoded.
    Text(String),
    /// Any one part; its name.
    Any(String),
}

/// A path that is asked for, decoded once for all patterns that it is compared with.
#[derive(Debug)]
pub struct Requested<'a> {
    whole: Cow<'a, str>,
    parts: Vec<RequestedPart<'a>>,
}

#[derive(Debug)]
struct RequestedPart<'a> {
    /// As it stands there: encoded.
    text: &'a str,
    decoded: Cow<'a, str>,
    /// The path from here on, encoded.
    rest: &'a str,
}

impl<'a> Requested<'a> {
    pub fn of(path: &'a str) -> Self {
        let mut parts = Vec::new();
        let mut rest = path.trim_start_matches('/');
        while !rest.is_empty() {
            let (text, after) = rest.split_once('/').unwrap_or((rest, ""));
            parts.push(RequestedPart { text, decoded: percent_decode_str(text).decode_utf8_lossy(), rest });
            rest = after.trim_start_matches('/');
        }
        Self { whole: percent_decode_str(path).decode_utf8_lossy(), parts }
    }
}

/// The values of placeholders in a path that matched, as they stand there: encoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Captured<'a>(Vec<(String, &'a str)>);

impl Captured<'_> {
    /// The value of a placeholder.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
    }
}

/// The name of what a `*` stands for.
pub const SPLAT: &str = "splat";

impl Pattern {
    /// A pattern whose `*` is at its end, as a redirect needs it.
    pub fn of_redirect(text: &str) -> Result<Self, String> {
        match Self::of_headers(text)? {
            Self(Shape::Between(..)) => Err("`*` may only be the end of the path, behind a slash".to_owned()),
            pattern => Ok(pattern),
        }
    }

    /// A pattern whose `*`, if it has one, may be anywhere.
    pub fn of_headers(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(match text.contains("://") {
                true => "rules for other hosts can't be served here; begin the path with `/`".to_owned(),
                false => "the path must begin with `/`".to_owned(),
            });
        };
        if text.contains(['?', '#']) {
            return Err("the path may hold no `?` and no `#`".to_owned());
        }
        if let Some((before, after)) = text.split_once('*')
            && !(before.ends_with('/') && after.is_empty())
        {
            if after.contains('*') || text.contains("/:") {
                return Err(
                    "only one `*` may be in a path, and no placeholder beside one that is not its end".to_owned()
                );
            }
            return Ok(Self(Shape::Between(decoded(before), decoded(after))));
        }
        let rest = path.strip_suffix('*');
        let parts = rest.unwrap_or(path).split('/').filter(|part| !part.is_empty()).map(part);
        Ok(Self(Shape::Parts(parts.collect::<Result<_, _>>()?, rest.is_some())))
    }

    /// What its placeholders stand for in this path, if it matches.
    pub fn matches<'a>(&self, path: &Requested<'a>) -> Option<Captured<'a>> {
        let (parts, splat) = match &self.0 {
            Shape::Between(before, after) => {
                let between = path.whole.strip_prefix(before.as_str())?;
                return between.ends_with(after.as_str()).then(Captured::default);
            }
            Shape::Parts(parts, splat) => (parts, *splat),
        };
        let mut captured = Captured::default();
        for (at, part) in parts.iter().enumerate() {
            let here = path.parts.get(at)?;
            match part {
                Part::Text(text) if here.decoded == *text => {}
                Part::Any(name) => captured.0.push((name.clone(), here.text)),
                Part::Text(_) => return None,
            }
        }
        let rest = path.parts.get(parts.len()).map_or("", |part| part.rest);
        if splat {
            captured.0.push((SPLAT.to_owned(), rest));
        }
        (splat || rest.is_empty()).then_some(captured)
    }

    /// Whether it has a placeholder of this name.
    pub fn has(&self, name: &str) -> bool {
        match &self.0 {
            Shape::Between(..) => false,
            Shape::Parts(parts, splat) => {
                (*splat && name == SPLAT) || parts.iter().any(|part| matches!(part, Part::Any(other) if other == name))
            }
        }
    }
}

fn part(text: &str) -> Result<Part, String> {
    let Some(name) = text.strip_prefix(':') else { return Ok(Part::Text(decoded(text))) };
    match is_name(name) {
        true => Ok(Part::Any(name.to_owned())),
        false => Err(format!("`:{name}` is no placeholder: its name is of letters, digits and `_`")),
    }
}

/// Whether a placeholder may have this name.
fn is_name(name: &str) -> bool {
    name.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// The parts of a text that are placeholders, with what is before each, and what is behind the last one.
pub fn placeholders(text: &str) -> (Vec<(&str, &str)>, &str) {
    let (mut found, mut rest, mut from) = (Vec::new(), text, 0);
    while let Some(colon) = rest.get(from..).and_then(|ahead| ahead.find(':')).map(|at| from + at) {
        let (before, after) = rest.split_at(colon);
        let after = after.strip_prefix(':').unwrap_or_default();
        let length = after.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(after.len());
        let (name, behind) = after.split_at(length);
        if is_name(name) {
            found.push((before, name));
            (rest, from) = (behind, 0);
        } else {
            from = colon + 1;
        }
    }
    (found, rest)
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(pattern: &str, path: &str) -> Option<Vec<(String, String)>> {
        let captured = Pattern::of_redirect(pattern).unwrap().matches(&Requested::of(path))?;
        Some(captured.0.into_iter().map(|(name, value)| (name, value.to_owned())).collect())
    }

    #[test]
    fn paths_match_by_parts_placeholders_and_a_splat() {
        let none = Some(Vec::new());
        let of = |pairs: &[(&str, &str)]| Some(pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect());
        for (pattern, path, expected) in [
            ("/a", "/a", none.clone()),
            ("/a", "/a/", none.clone()),
            ("/a/", "/a", none.clone()),
            ("/a", "/ab", None),
            ("/a", "/a/b", None),
            ("/", "/", none.clone()),
            ("/", "/a", None),
            ("/caf%C3%A9", "/café", none.clone()),
            ("/café", "/caf%c3%a9", none.clone()),
            ("/*", "/", of(&[("splat", "")])),
            ("/*", "/a/b.html", of(&[("splat", "a/b.html")])),
            ("/news/*", "/news", of(&[("splat", "")])),
            ("/news/*", "/news/a%20b/c", of(&[("splat", "a%20b/c")])),
            ("/news/*", "/newsletter", None),
            ("/:year/:slug", "/2026/x", of(&[("year", "2026"), ("slug", "x")])),
            ("/:year/:slug", "/2026", None),
            ("/u/:id/*", "/u/7/a/b", of(&[("id", "7"), ("splat", "a/b")])),
        ] {
            assert_eq!(redirect(pattern, path), expected, "{pattern} {path}");
        }
        let script = Pattern::of_headers("/assets/*.js").unwrap();
        let is_script = |path: &str| script.matches(&Requested::of(path)).is_some();
        assert!(is_script("/assets/a/b.js") && is_script("/assets/.js"));
        assert!(!is_script("/assets/a.css") && !is_script("/a.js"));
        // The beginning and the end of a path are no same letters.
        assert!(Pattern::of_headers("/aa*aa").unwrap().matches(&Requested::of("/aaa")).is_none());
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for wrong in ["a", "", "https://example.com/a", "/a?b", "/a#b", "/a/*/b", "/a*", "/:1", "/:", "/*/*"] {
            assert!(Pattern::of_redirect(wrong).is_err(), "{wrong}");
        }
        for right in ["/a/*/b", "/a*", "/*.js"] {
            assert!(Pattern::of_headers(right).is_ok(), "{right}");
        }
        assert!(Pattern::of_headers("/*/*").is_err());
    }

    #[test]
    fn placeholders_are_told_from_other_colons() {
        assert_eq!(placeholders("/a/:b-:c.html"), (vec![("/a/", "b"), ("-", "c")], ".html"));
        assert_eq!(placeholders("https://x.org:80/:splat"), (vec![("https://x.org:80/", "splat")], ""));
        assert_eq!(placeholders("/plain:"), (vec![], "/plain:"));
    }
}
