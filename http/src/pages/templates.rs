//! The templates, compiled once, and the filters that they use.

use anstream::adapter::strip_str;
use chrono::{DateTime, Utc};
use minijinja::{Environment, Value, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;
use url::form_urlencoded;

use super::assets;
use crate::problem::Problem;

macro_rules! templates {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("templates/", $name)))),+]
    };
}

const TEMPLATES: &[(&str, &str)] = templates!(
    "parts/base.html",
    "parts/dashboard.html",
    "parts/icons.html",
    "parts/components.html",
    "parts/log.html",
    "parts/chart.html",
    "apps/frame.html",
    "apps/list.html",
    "apps/new.html",
    "apps/overview.html",
    "apps/deployments.html",
    "apps/deployment.html",
    "apps/releases.html",
    "apps/variables.html",
    "apps/logs.html",
    "apps/settings.html",
    "cluster/frame.html",
    "cluster/actors.html",
    "cluster/dead_letters.html",
    "cluster/dead_letter.html",
    "cluster/sagas.html",
    "account.html",
    "components.html",
    "confirm.html",
    "docs.html",
    "keys.html",
    "nodes.html",
    "organization.html",
    "problem.html",
    "problems.html",
    "setup.html",
    "sign_in.html",
    "signed_in.html",
    "signed_out.html",
);

/// Names under which templates know the addresses of assets.
const ASSETS: &[(&str, &str)] = &[
    ("style", "style.css"),
    ("script", "dashboard.js"),
    ("icon", "icon.svg"),
    ("docs_script", "docs.js"),
    ("swagger_style", "swagger-ui.css"),
    ("swagger_script", "swagger-ui-bundle.js"),
];

/// The templates.
pub(crate) struct Templates(Environment<'static>);

impl Templates {
    pub(crate) fn new() -> Result<Self, minijinja::Error> {
        let mut templates = Environment::new();
        // A line with nothing but a tag leaves nothing behind.
        templates.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        for (name, text) in TEMPLATES {
            templates.add_template(name, text)?;
        }
        for (name, asset) in ASSETS {
            templates.add_global(*name, Value::from_safe_string(assets::address(asset)));
        }
        templates.add_filter("when", when);
        templates.add_filter("clock", clock);
        templates.add_filter("bytes", bytes);
        templates.add_filter("duration", duration);
        templates.add_filter("level", level);
        templates.add_filter("uncoloured", uncoloured);
        templates.add_filter("urlencode", urlencode);
        Ok(Self(templates))
    }

    pub(super) fn render(&self, name: &str, view: &impl Serialize) -> Result<String, Problem> {
        let rendered = self.0.get_template(name).and_then(|template| template.render(Value::from(Serde(view))));
        rendered.map_err(|error| Problem::internal(format!("template {name}: {error:#}")))
    }
}

/// A time as a `time` element, in UTC; a script shows it in the reader's zone.
fn when(time: &str) -> Value {
    element(time, "%-d %b %Y, %H:%M UTC")
}

/// A time of day, for the lines of a log.
fn clock(time: &str) -> Value {
    element(time, "%H:%M:%S")
}

fn element(time: &str, format: &str) -> Value {
    match DateTime::parse_from_rfc3339(time) {
        Ok(at) => {
            let at = at.with_timezone(&Utc);
            let machine = at.format("%Y-%m-%dT%H:%M:%S%.3fZ");
            Value::from_safe_string(format!("<time datetime=\"{machine}\">{}</time>", at.format(format)))
        }
        Err(_) => Value::from(time),
    }
}

/// A text as a value of a query.
fn urlencode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Bytes in units that people read.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} bytes");
    }
    let mut value = count as f64 / 1024.0;
    let mut units = UNITS.iter().peekable();
    let mut unit = units.next().copied().unwrap_or_default();
    while value >= 1024.0 && units.peek().is_some() {
        value /= 1024.0;
        unit = units.next().copied().unwrap_or(unit);
    }
    if value >= 10.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// Milliseconds in units that people read.
fn duration(milliseconds: i64) -> String {
    let seconds = milliseconds / 1_000;
    match seconds {
        ..1 => format!("{milliseconds} ms"),
        1..60 => format!("{seconds}.{} s", milliseconds % 1_000 / 100),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// A line of a log without the colours that build tools write for a terminal.
fn uncoloured(text: &str) -> String {
    strip_str(text).to_string()
}

/// How serious a line of a log is, by its words: `error`, `warning`, `debug`, or nothing.
fn level(text: &str) -> &'static str {
    let beginning: String = text.chars().take(120).collect::<String>().to_lowercase();
    let words = || beginning.split(|character: char| !character.is_ascii_alphanumeric());
    let has = |wanted: &[&str]| words().any(|word| wanted.contains(&word));
    match () {
        () if has(&["error", "err", "fatal", "panic", "critical", "exception", "traceback"]) => "error",
        () if has(&["warn", "warning"]) => "warning",
        () if has(&["debug", "trace"]) => "debug",
        () => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_compiles() {
        Templates::new().unwrap();
    }

    #[test]
    fn numbers_are_told_in_units_that_people_read() {
        assert_eq!(
            [bytes(7), bytes(1536), bytes(20 * 1024 * 1024), bytes(u64::MAX)],
            ["7 bytes", "1.5 KiB", "20 MiB", "16777216 TiB"]
        );
        assert_eq!(
            [duration(7), duration(1_250), duration(61_000), duration(7_260_000)],
            ["7 ms", "1.2 s", "1 min 1 s", "2 h 1 min"]
        );
    }

    #[test]
    fn a_line_is_shown_without_the_colours_of_a_terminal() {
        assert_eq!(uncoloured("\u{1b}[31mred\u{1b}[0m and [plain]\tü"), "red and [plain]\tü");
    }

    #[test]
    fn a_line_is_as_serious_as_its_words() {
        for (text, expected) in [
            ("npm ERR! missing script", "error"),
            ("[2026-11-30] ERROR: no", "error"),
            ("WARNING: deprecated", "warning"),
            ("{\"level\":\"debug\"}", "debug"),
            (&uncoloured("\u{1b}[1;31merror\u{1b}[0m: no such module"), "error"),
            ("terror and warned", ""),
            ("listening on 8080", ""),
        ] {
            assert_eq!(level(text), expected, "{text}");
        }
    }
}
