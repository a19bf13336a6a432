//! `_headers`: fields of answers by path, as Netlify and Cloudflare know them.

use actix_web::{
    HttpResponse,
    http::header::{self, HeaderMap, HeaderName, HeaderValue},
};

use super::{
    BadLine, LINE_MAXIMUM,
    pattern::{Pattern, Requested},
};

/// Rules of a site, and fields of a rule, at most.
const RULES_MAXIMUM: usize = 500;
const FIELDS_MAXIMUM: usize = 50;

/// Fields that say how an answer is sent, which the server knows.
const OF_THE_SERVER: [HeaderName; 16] = [
    header::ACCEPT_RANGES,
    header::AGE,
    header::ALLOW,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::DATE,
    header::ETAG,
    header::HOST,
    header::LOCATION,
    header::SERVER,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The fields of a site's answers. All rules that match a path hold, in their order.
#[derive(Debug, Default)]
pub struct Fields(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    paths: Pattern,
    fields: Vec<(HeaderName, Field)>,
}

#[derive(Debug)]
enum Field {
    Set(HeaderValue),
    /// `! Name`: that of a rule before, or the server's own, is left out.
    Removed,
}

impl Fields {
    /// The rules in the text of the file, and its lines that are none.
    pub fn parse(text: &str) -> (Self, Vec<BadLine>) {
        let (mut rules, mut bad): (Vec<Rule>, Vec<BadLine>) = (Vec::new(), Vec::new());
        // Fields of a path that is no pattern belong to no other.
        let mut open = false;
        for (number, line) in (1..).zip(text.lines()) {
            let text = line.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let is_path = !line.starts_with([' ', '\t']);
            if is_path && rules.len() == RULES_MAXIMUM {
                bad.push(BadLine::new(
                    number,
                    format!("there are more than {RULES_MAXIMUM} rules; the rest is left out"),
                ));
                break;
            }
            let outcome = match is_path {
                _ if text.len() > LINE_MAXIMUM => Err(format!("it is longer than {LINE_MAXIMUM} bytes")),
                true => {
                    let paths = Pattern::of_headers(text);
                    open = paths.is_ok();
                    paths.map(|paths| rules.push(Rule { paths, fields: Vec::new() }))
                }
                false if !open => {
                    Err("it belongs to no path; write the path above it, at the beginning of a line".to_owned())
                }
                false => field(text).and_then(|field| match rules.last_mut() {
                    Some(rule) if rule.fields.len() < FIELDS_MAXIMUM => {
                        rule.fields.push(field);
                        Ok(())
                    }
                    _ => Err(format!("a path has at most {FIELDS_MAXIMUM} fields")),
                }),
            };
            bad.extend(outcome.err().map(|reason| BadLine::new(number, reason)));
        }
        (Self(rules), bad)
    }

    /// Whether there is any rule.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets the fields of an answer to a request for this path.
    pub fn apply(&self, path: &str, answer: &mut HttpResponse) {
        let mut set: Vec<(&HeaderName, Vec<&HeaderValue>)> = Vec::new();
        let requested = Requested::of(path);
        let rules = self.0.iter().filter(|rule| rule.paths.matches(&requested).is_some());
        let mut removed: Vec<&HeaderName> = Vec::new();
        for (name, field) in rules.flat_map(|rule| &rule.fields) {
            match field {
                Field::Removed => {
                    set.retain(|(other, _)| *other != name);
                    removed.push(name);
                }
                Field::Set(value) => match set.iter_mut().find(|(other, _)| *other == name) {
                    Some((_, values)) => values.push(value),
                    None => set.push((name, vec![value])),
                },
            }
        }
        let fields = answer.headers_mut();
        removed.iter().for_each(|name| drop(fields.remove(*name)));
        for (name, values) in set {
            put(fields, name, &values);
        }
    }
}

/// What the site says stands in the place of what the server would say, joined as fields of one name are.
fn put(fields: &mut HeaderMap, name: &HeaderName, values: &[&HeaderValue]) {
    // What an answer depends on, the server knows as well; and cookies can't be joined.
    if *name == header::VARY || *name == header::SET_COOKIE {
        values.iter().for_each(|value| fields.append(name.clone(), (*value).clone()));
        return;
    }
    let joined = values.iter().map(|value| value.as_bytes()).collect::<Vec<_>>().join(&b", "[..]);
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        fields.insert(name.clone(), value);
    }
}

fn field(text: &str) -> Result<(HeaderName, Field), String> {
    if let Some(name) = text.strip_prefix('!') {
        return Ok((self::name(name.trim())?, Field::Removed));
    }
    let (name, value) = text.split_once(':').ok_or("it is not `Name: value`")?;
    let value =
        HeaderValue::from_str(value.trim()).map_err(|_| "the value holds letters that no field may hold".to_owned())?;
    Ok((self::name(name.trim())?, Field::Set(value)))
}

fn name(text: &str) -> Result<HeaderName, String> {
    if text.eq_ignore_ascii_case("basic-auth") {
        return Err("protection by `Basic-Auth` is not supported, and its password is sent to nobody".to_owned());
    }
    let name: HeaderName = text.parse().map_err(|_| format!("`{text}` is no name of a field"))?;
    if OF_THE_SERVER.contains(&name) {
        return Err(format!("`{name}` is set by the server and can't be changed"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(text: &str, path: &str) -> Vec<String> {
        let (fields, bad) = Fields::parse(text);
        assert!(bad.is_empty(), "{bad:?}");
        let mut answer = HttpResponse::Ok();
        answer.insert_header((header::CACHE_CONTROL, "no-cache")).insert_header((header::VARY, "Accept-Encoding"));
        let mut answer = answer.finish();
        fields.apply(path, &mut answer);
        let mut all: Vec<String> =
            answer.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        all.sort();
        all
    }

    #[test]
    fn all_rules_of_a_path_hold_and_stand_in_the_place_of_the_servers_own() {
        let text = "# comment\n/*\n  X-Frame-Options: DENY\n  X-Robots-Tag: noindex\n\n/assets/*.js\n\tCache-Control: public, max-age=60\n\
                    /secure/*\n  X-Robots-Tag: nofollow\n  ! X-Frame-Options\n  Vary: Cookie\n  Set-Cookie: a=1\n  Set-Cookie: b=2\n";
        let plain = ["cache-control: no-cache", "vary: Accept-Encoding"];
        assert_eq!(applied(text, "/"), [plain[0], plain[1], "x-frame-options: DENY", "x-robots-tag: noindex"]);
        assert_eq!(applied(text, "/assets/a.js")[0], "cache-control: public, max-age=60");
        assert_eq!(
            applied(text, "/secure/page"),
            [
                plain[0],
                "set-cookie: a=1",
                "set-cookie: b=2",
                plain[1],
                "vary: Cookie",
                "x-robots-tag: noindex, nofollow"
            ]
        );
        assert_eq!(applied("/a\n  ! Cache-Control\n", "/a"), [plain[1]]);
    }

    #[test]
    fn what_is_no_field_is_told_by_its_line_and_the_others_hold() {
        let (fields, bad) = Fields::parse(
            "  X-Early: 1\n/a\n  Nonsense\n  Content-Length: 3\n  Basic-Auth: me:secret\n  Bad Name: x\n  X-Good: 1\nno-path\n  X-Lost: 1\n",
        );
        assert_eq!(bad.iter().map(|bad| bad.number).collect::<Vec<_>>(), [1, 3, 4, 5, 6, 8, 9], "{bad:?}");
        assert!(!bad.iter().any(|bad| bad.reason.contains("secret")));
        let mut answer = HttpResponse::Ok().finish();
        fields.apply("/a", &mut answer);
        assert_eq!(answer.headers().len(), 1);
    }
}
