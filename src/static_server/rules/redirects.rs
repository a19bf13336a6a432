//! `_redirects`: where a path leads instead, one rule in a line, as Netlify and Cloudflare know them.

use actix_web::http::StatusCode;
use url::Url;

use super::{
    BadLine, LINE_MAXIMUM,
    pattern::{Captured, Pattern, Requested, placeholders},
};

/// Rules of a site, at most.
const RULES_MAXIMUM: usize = 2_000;

/// The redirects of a site, in their order: the first that matches decides.
#[derive(Debug, Default)]
pub struct Redirects(Vec<Redirect>);

#[derive(Debug)]
struct Redirect {
    from: Pattern,
    to: String,
    status: StatusCode,
    /// Whether it also holds for paths at which there is a file.
    force: bool,
}

/// What a rule says of a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Directed {
    /// The client shall go there.
    Away(StatusCode, String),
    /// Another path of the site is answered, with this status.
    Rewritten(StatusCode, String),
}

impl Redirects {
    /// The rules in the text of the file, and its lines that are none.
    pub fn parse(text: &str) -> (Self, Vec<BadLine>) {
        let (mut rules, mut bad) = (Vec::new(), Vec::new());
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if rules.len() == RULES_MAXIMUM {
                bad.push(BadLine::new(
                    number,
                    format!("there are more than {RULES_MAXIMUM} rules; the rest is left out"),
                ));
                break;
            }
            match Redirect::parse(line) {
                Ok(rule) => rules.push(rule),
                Err(reason) => bad.push(BadLine::new(number, reason)),
            }
        }
        (Self(rules), bad)
    }

    /// What the first rule for a path says. Where there is a file only rules that are forced count.
    pub fn direct(&self, path: &str, query: &str, is_there: impl FnOnce() -> bool) -> Option<Directed> {
        let mut is_there = Some(is_there);
        let mut shadowed = false;
        let requested = Requested::of(path);
        for rule in &self.0 {
            if !rule.force && shadowed {
                continue;
            }
            let Some(captured) = rule.from.matches(&requested) else { continue };
            if !rule.force && is_there.take().is_some_and(|is_there| is_there()) {
                shadowed = true;
                continue;
            }
            let to = rule.target(&captured);
            // A rule that leads to where it comes from would lead there for ever.
            if rule.status.is_redirection() && same(&to, path) {
                continue;
            }
            return Some(match rule.status.is_redirection() {
                true => Directed::Away(rule.status, with_query(to, query)),
                false => Directed::Rewritten(rule.status, to),
            });
        }
        None
    }
}

impl Redirect {
    fn parse(line: &str) -> Result<Self, String> {
        if line.len() > LINE_MAXIMUM {
            return Err(format!("it is longer than {LINE_MAXIMUM} bytes"));
        }
        // A comment may follow: ` # …`.
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        let (from, to, options) = match words.as_slice() {
            [from, to, options @ ..] => (*from, *to, options),
            _ => return Err("it needs a path and where that leads: `/old /new 301`".to_owned()),
        };
        let from = Pattern::of_redirect(from)?;
        if !to.starts_with('/') && to.contains('=') {
            return Err("conditions on the query are not supported".to_owned());
        }
        let (status, force) = match options {
            [] => (StatusCode::MOVED_PERMANENTLY, false),
            [status] => self::status(status)?,
            [_, condition, ..] => return Err(unsupported(condition)),
        };
        let relative = to.starts_with('/');
        if !relative {
            check_elsewhere(to, status)?;
        }
        let (names, _) = placeholders(to.split_once("://").map_or(to, |(_, rest)| rest));
        // Of another host only what stands behind it may be a placeholder.
        if !relative
            && to
                .split_once("://")
                .and_then(|(_, rest)| rest.split('/').next())
                .is_some_and(|host| !placeholders(host).0.is_empty())
        {
            return Err("the name of the host may hold no placeholder".to_owned());
        }
        if let Some((_, unknown)) = names.iter().find(|(_, name)| !from.has(name)) {
            return Err(format!("`:{unknown}` is not in the path before it"));
        }
        Ok(Self { from, to: to.to_owned(), status, force })
    }

    /// Its destination, with the values of the placeholders.
    fn target(&self, captured: &Captured<'_>) -> String {
        let (scheme, rest) = self.to.split_once("://").map_or(("", self.to.as_str()), |(scheme, rest)| (scheme, rest));
        let (names, end) = placeholders(rest);
        let mut target: String =
            names.iter().flat_map(|(before, name)| [*before, captured.get(name).unwrap_or_default()]).collect();
        target.push_str(end);
        if !scheme.is_empty() {
            return format!("{scheme}://{target}");
        }
        // One slash only: `//host/`, and `/\host/` to browsers, lead to another host.
        format!("/{}", target.trim_start_matches(['/', '\\']).replace('\\', "%5C"))
    }
}

fn status(text: &str) -> Result<(StatusCode, bool), String> {
    let (digits, force) = text.strip_suffix('!').map_or((text, false), |digits| (digits, true));
    let status = match digits {
        "200" => StatusCode::OK,
        "301" => StatusCode::MOVED_PERMANENTLY,
        "302" => StatusCode::FOUND,
        "303" => StatusCode::SEE_OTHER,
        "307" => StatusCode::TEMPORARY_REDIRECT,
        "308" => StatusCode::PERMANENT_REDIRECT,
        "404" => StatusCode::NOT_FOUND,
        other if other.bytes().all(|byte| byte.is_ascii_digit()) => {
            return Err(format!("the status {other} is not supported; use 200, 301, 302, 303, 307, 308 or 404"));
        }
        other => return Err(unsupported(other)),
    };
    Ok((status, force))
}

fn unsupported(word: &str) -> String {
    match word.split_once('=') {
        Some((name, _)) => format!("conditions such as `{name}=…` are not supported"),
        None => format!("`{word}` is neither a status nor anything else that is known here"),
    }
}

fn check_elsewhere(to: &str, status: StatusCode) -> Result<(), String> {
    let is_web = Url::parse(to).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !is_web {
        return Err("it must lead to a path that begins with `/`, or to an http:// or https:// address".to_owned());
    }
    if !status.is_redirection() {
        return Err("another host can't be answered for; use one of 301, 302, 303, 307 and 308".to_owned());
    }
    Ok(())
}

/// The query goes along, unless the rule has its own.
fn with_query(to: String, query: &str) -> String {
    if query.is_empty() || to.contains('?') {
        return to;
    }
    match to.split_once('#') {
        Some((path, fragment)) => format!("{path}?{query}#{fragment}"),
        None => format!("{to}?{query}"),
    }
}

fn same(to: &str, path: &str) -> bool {
    !to.contains(['?', '#']) && to.trim_end_matches('/') == path.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Redirects {
        let (rules, bad) = Redirects::parse(text);
        assert!(bad.is_empty(), "{bad:?}");
        rules
    }

    fn away(status: u16, to: &str) -> Option<Directed> {
        Some(Directed::Away(StatusCode::from_u16(status).unwrap(), to.to_owned()))
    }

    fn rewritten(status: u16, to: &str) -> Option<Directed> {
        Some(Directed::Rewritten(StatusCode::from_u16(status).unwrap(), to.to_owned()))
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = parse(
            "# comment\n\n/old /new\n/temp  /new 302 # a comment\n/news/* /blog/:splat 308\n/:y/:m/:d /archive/:y-:m-:d.html 200\n\
             /shop/* https://shop.example.org/:splat 301\n/own /new?a=1#x 303\n/en/* /en/404.html 404\n/* /index.html 200\n",
        );
        let of = |path: &str, query: &str| rules.direct(path, query, || false);
        assert_eq!(of("/old", ""), away(301, "/new"));
        assert_eq!(of("/old/", "a=b"), away(301, "/new?a=b"));
        assert_eq!(of("/temp", ""), away(302, "/new"));
        assert_eq!(of("/news/a/b", "q=1"), away(308, "/blog/a/b?q=1"));
        assert_eq!(of("/2026/11/30", ""), rewritten(200, "/archive/2026-11-30.html"));
        assert_eq!(of("/shop/x%20y", ""), away(301, "https://shop.example.org/x%20y"));
        assert_eq!(of("/own", "b=2"), away(303, "/new?a=1#x"));
        assert_eq!(of("/en/nothing", ""), rewritten(404, "/en/404.html"));
        assert_eq!(of("/anything/else", ""), rewritten(200, "/index.html"));
    }

    #[test]
    fn a_file_comes_before_a_rule_that_is_not_forced() {
        let rules = parse("/a /b 301\n/c /d 302!\n/* /index.html 200\n");
        assert_eq!(rules.direct("/a", "", || true), None);
        assert_eq!(rules.direct("/c", "", || true), away(302, "/d"));
        assert_eq!(rules.direct("/a", "", || false), away(301, "/b"));
    }

    #[test]
    fn no_rule_leads_to_another_host_by_what_a_client_asks_for_or_round_in_a_circle() {
        let rules = parse("/go/* /:splat 301\n/a/ /a 301\n");
        assert_eq!(rules.direct("/go//evil.example", "", || false), away(301, "/evil.example"));
        assert_eq!(rules.direct("/go/\\evil.example", "", || false), away(301, "/evil.example"));
        assert_eq!(rules.direct("/a", "", || false), None);
    }

    #[test]
    fn what_is_no_rule_is_told_by_its_line_and_the_others_hold() {
        let (rules, bad) = Redirects::parse(
            "/good /x\n/lonely\nold /new\n/a /b 418\n/a /b 301 Country=de\n/a id=:id /b/:id 301\n/a https://api.example.org 200\n\
             /a ftp://example.org\n/:x https://:x.example.org/\n/a /:b\n/a /b maybe\n/also /y 307\n",
        );
        let told: Vec<String> = bad.iter().map(|bad| format!("{} {}", bad.number, bad.reason)).collect();
        assert_eq!(bad.iter().map(|bad| bad.number).collect::<Vec<_>>(), (2..=11).collect::<Vec<_>>(), "{told:?}");
        assert!(told[2].contains("418") && told[3].contains("`Country=…`") && told[4].contains("query"), "{told:?}");
        assert!(told[5].contains("another host") && told[8].contains("`:b`"), "{told:?}");
        assert_eq!(rules.direct("/good", "", || false), away(301, "/x"));
        assert_eq!(rules.direct("/also", "", || false), away(307, "/y"));
        let many = "/a /b\n".repeat(RULES_MAXIMUM + 5);
        let (rules, bad) = Redirects::parse(&many);
        assert_eq!((rules.0.len(), bad.len(), bad[0].number), (RULES_MAXIMUM, 1, RULES_MAXIMUM + 1));
        assert_eq!(Redirects::parse(&format!("/a /{}", "b".repeat(3_000))).1.len(), 1);
    }
}
