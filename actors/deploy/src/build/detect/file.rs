//! `callboard.toml`: what the app's own repository decides about its build and its processes.
//!
//! All mistakes are told at once, each with its line.

use std::{borrow::Cow, collections::BTreeMap, ops::Range};

use callboard_messages::project::{BuildConfig, StaticOptions, VERSIONED_LANGUAGES};
use indexmap::IndexMap;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{App, COMMAND_MAXIMUM, DetectError, MAXIMUM_PROCESSES, app::relative, mistakes::Mistakes};
use crate::logs::excerpt::excerpt;

/// The file's name.
pub(super) const NAME: &str = "callboard.toml";

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) config: BuildConfig,
    /// Lines of shell, by process type.
    pub(super) processes: IndexMap<String, String>,
}

/// What the app's file says; nothing when there is none.
pub(super) fn read(app: &App) -> Result<Settings, DetectError> {
    if app.has_folder(NAME) {
        return Err(DetectError::bad(NAME, "it is a folder; put its settings into a file of this name, or rename it"));
    }
    let Some(text) = app.read(NAME)? else { return Ok(Settings::default()) };
    parse(&text).map_err(|mistakes| DetectError::bad(NAME, mistakes))
}

fn parse(text: &str) -> Result<Settings, String> {
    let mut reader = Reader::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().unwrap_or(0..0).start;
        reader.mistakes.add(at, || error.message().lines().collect::<Vec<_>>().join(", "));
    }
    // After a mistake of syntax the rest is guessed, and is not judged.
    let settings = if errors.is_empty() { reader.settings(table.get_ref()) } else { Settings::default() };
    reader.mistakes.told(text).map_or(Ok(settings), Err)
}

/// The longest name of a setting that is quoted and compared, in bytes.
const NAME_MAXIMUM: usize = 100;

#[derive(Default)]
struct Reader {
    mistakes: Mistakes,
}

/// A value of the file.
type Value<'a> = Spanned<DeValue<'a>>;

impl Reader {
    fn mistake(&mut self, at: Range<usize>, sentence: impl AsRef<str>) {
        self.mistakes.add(at.start, || sentence.as_ref().to_owned());
    }

    fn settings(&mut self, table: &DeTable<'_>) -> Settings {
        let mut settings = Settings::default();
        let config = &mut settings.config;
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match name {
                "root" => config.root = self.folder(name, value),
                "publish" => config.publish = self.folder(name, value),
                "build" => config.build_command = self.command(name, value),
                "start" => config.start_command = self.command(name, value),
                "release" => config.release_command = self.command(name, value),
                "processes" => settings.processes = self.processes(value),
                "health_check" => self.health_check(value, config),
                "static" => config.static_options = self.options(value),
                "versions" => config.versions = self.versions(value),
                _ => self.unknown(
                    key,
                    "",
                    &[
                        "root",
                        "build",
                        "start",
                        "release",
                        "publish",
                        "processes",
                        "health_check",
                        "static",
                        "versions",
                    ],
                ),
            }
        }
        let present = |name: &str| table.iter().find(|(key, _)| key.get_ref() == name).map(|(key, _)| key.span());
        if let (Some(_), Some(at)) = (present("start"), present("publish")) {
            self.mistake(at, "`publish` and `start` exclude each other: a published folder is served by the platform");
        }
        if let (Some(at), true) = (present("start"), settings.processes.contains_key(crate::WEB)) {
            self.mistake(at, "`start` and `web` of `processes` are the same command; keep one");
        }
        settings
    }

    fn unknown(&mut self, key: &Spanned<Cow<'_, str>>, table: &str, known: &[&str]) {
        self.mistakes.add(key.span().start, || {
            let name = excerpt(key.get_ref(), NAME_MAXIMUM);
            let alike = known.iter().map(|known| (strsim::jaro_winkler(known, &name), known));
            let hint = match alike.max_by(|(left, _), (right, _)| left.total_cmp(right)) {
                Some((alike, near)) if alike > 0.8 => format!("did you mean `{near}`?"),
                _ => format!("there are {}", known.join(", ")),
            };
            format!("`{table}{name}` is no setting; {hint}")
        });
    }

    fn text<'v>(&mut self, name: &str, value: &'v Value<'_>) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            let kind = value.get_ref().type_str();
            self.mistake(value.span(), format!("`{name}` must be a text in quotes, and is of the kind {kind}"));
        }
        text
    }

    fn command(&mut self, name: &str, value: &Value<'_>) -> Option<String> {
        let command = self.text(name, value)?.trim();
        if command.is_empty() || command.len() > COMMAND_MAXIMUM || command.contains('\0') {
            self.mistake(value.span(), format!("`{name}` must be a command of 1 to 4,096 bytes"));
            return None;
        }
        Some(command.to_owned())
    }

    fn folder(&mut self, name: &str, value: &Value<'_>) -> Option<String> {
        let folder = self.text(name, value)?;
        if folder.is_empty() || folder.len() > 1_024 || relative(folder).is_none() {
            self.mistake(value.span(), format!("`{name}` must be a relative folder without `..`, such as \"dist\""));
            return None;
        }
        Some(folder.to_owned())
    }

    fn table<'v, 'a>(&mut self, name: &str, value: &'v Value<'a>) -> Option<&'v DeTable<'a>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.mistake(value.span(), format!("`{name}` must be a table: [{name}] and its settings below it"));
        }
        table
    }

    fn processes(&mut self, value: &Value<'_>) -> IndexMap<String, String> {
        let mut processes = IndexMap::new();
        let Some(table) = self.table("processes", value) else { return processes };
        let mut in_order: Vec<_> = table.iter().collect();
        in_order.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in in_order {
            let name = key.get_ref().as_ref();
            if !is_process_type(name) || name == "release" {
                self.mistake(
                    key.span(),
                    format!(
                        "`{}` is no process type: letters, digits, `-` and `_`, at most 40",
                        excerpt(name, NAME_MAXIMUM)
                    ),
                );
            } else if let Some(command) = self.command(&format!("processes.{name}"), value) {
                processes.insert(name.to_owned(), command);
            }
        }
        if processes.len() > MAXIMUM_PROCESSES {
            self.mistake(value.span(), format!("`processes` names more than {MAXIMUM_PROCESSES} process types"));
        }
        processes
    }

    fn health_check(&mut self, value: &Value<'_>, config: &mut BuildConfig) {
        let Some(table) = self.table("health_check", value) else { return };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "path" => {
                    let Some(path) = self.text("health_check.path", value) else { continue };
                    let good = path.starts_with('/') && path.len() <= 1_024 && !path.contains('#');
                    if !good || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
                        self.mistake(value.span(), "`health_check.path` must be a path that begins with `/`");
                    } else {
                        config.health_check_path = Some(path.to_owned());
                    }
                }
                "grace_seconds" => {
                    let seconds = value
                        .get_ref()
                        .as_integer()
                        .and_then(|number| u32::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok());
                    config.health_check_grace_seconds = seconds.filter(|seconds| (1..=600).contains(seconds));
                    if config.health_check_grace_seconds.is_none() {
                        self.mistake(value.span(), "`health_check.grace_seconds` must be a number from 1 to 600");
                    }
                }
                _ => self.unknown(key, "health_check.", &["path", "grace_seconds"]),
            }
        }
    }

    fn options(&mut self, value: &Value<'_>) -> StaticOptions {
        let mut options = StaticOptions::default();
        let Some(table) = self.table("static", value) else { return options };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let option = match name {
                "single_page" => &mut options.single_page,
                "clean_urls" => &mut options.clean_urls,
                "trailing_slash" => &mut options.trailing_slash,
                _ => {
                    self.unknown(key, "static.", &["single_page", "clean_urls", "trailing_slash"]);
                    continue;
                }
            };
            *option = value.get_ref().as_bool();
            if option.is_none() {
                self.mistake(value.span(), format!("`static.{name}` must be true or false"));
            }
        }
        options
    }

    fn versions(&mut self, value: &Value<'_>) -> BTreeMap<String, String> {
        let mut versions = BTreeMap::new();
        let Some(table) = self.table("versions", value) else { return versions };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if !VERSIONED_LANGUAGES.contains(&name) {
                self.unknown(key, "versions.", &VERSIONED_LANGUAGES);
                continue;
            }
            let Some(version) = self.text(&format!("versions.{name}"), value) else { continue };
            let is_version = |letter: char| letter.is_ascii_alphanumeric() || " .,-_<>=!~^*|/+".contains(letter);
            if version.trim().is_empty() || version.len() > 64 || !version.chars().all(is_version) {
                let sentence = format!("`versions.{name}` must be a version such as \"22\" or \">=3.11\"");
                self.mistake(value.span(), sentence);
                continue;
            }
            versions.insert(name.to_owned(), version.to_owned());
        }
        versions
    }
}

/// Whether a word can name a process type.
pub(super) fn is_process_type(name: &str) -> bool {
    let letters = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    !name.is_empty() && name.len() <= 40 && name.chars().all(letters)
}
