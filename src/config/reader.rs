//! Reads settings from flags, the environment and a TOML file, in this order, and gathers every error before it tells.
//!
//! Each setting has one name: `CALLBOARD_LISTEN` in the environment is `listen` in the file. A secret may also be
//! named by a file that holds it (`CALLBOARD_MASTER_KEY_FILE`).

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{self, Path, PathBuf},
};

use callboard_messages::Secret;
use serde::Serialize;

use super::value::Value;
use crate::output::complain;

const PREFIX: &str = "CALLBOARD_";
/// Variables that belong to the command line or to tests rather than to a node.
const ELSEWHERE: &[&str] = &[
    "CALLBOARD_CONFIG",
    "CALLBOARD_CONTEXT",
    "CALLBOARD_TOKEN",
    "CALLBOARD_URL",
    // An app's own, should an app start a node.
    "CALLBOARD_NODE",
    "CALLBOARD_INSTANCE",
];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Nobody said otherwise.
    Default,
    /// The TOML file.
    File,
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::Flag => "command line",
        })
    }
}

/// One setting as `callboard config` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Its name.
    pub variable: Cow<'static, str>,
    /// Its value; a secret only says whether it is set.
    pub value: String,
    /// Where it came from.
    pub source: Source,
    /// What it is for.
    pub about: Cow<'static, str>,
}

/// What the settings are read from.
#[derive(Debug, Default)]
pub struct Reader {
    flags: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    file: toml::Table,
    /// Where the file is, as an absolute path.
    file_path: PathBuf,
    private: BTreeSet<PathBuf>,
    entries: Vec<Entry>,
    errors: Vec<String>,
}

impl Reader {
    /// From these sources. Flags are named like variables.
    pub fn new(
        flags: impl IntoIterator<Item = (&'static str, String)>,
        environment: impl IntoIterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Self {
        let mut reader = Self {
            flags: flags.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            // An empty variable is how a shell or a compose file says "not set".
            environment: environment.into_iter().filter(|(n, v)| is_read(n) && !v.is_empty()).collect(),
            ..Self::default()
        };
        if let Some(path) = file {
            reader.file_path = absolute(path);
            let parsed = fs::read_to_string(path)
                .map_err(|e| e.to_string())
                .and_then(|text| text.parse::<toml::Table>().map_err(|error| error.to_string().trim_end().to_owned()));
            match parsed {
                Ok(table) => reader.file = table,
                Err(error) => reader.errors.push(format!("{}: {error}", path.display())),
            }
        }
        reader
    }

    /// A setting with a default.
    pub fn value<T: Value>(&mut self, variable: &'static str, about: &'static str, default: impl Into<T>) -> T {
        let (value, source) = match self.find::<T>(variable) {
            Some(found) => found,
            None => (default.into(), Source::Default),
        };
        self.entries.push(Entry { variable: variable.into(), value: value.show(), source, about: about.into() });
        value
    }

    /// A setting with a default, which also has a name that other programs know.
    pub fn value_or_standard<T: Value>(
        &mut self,
        variable: &'static str,
        standard: &'static str,
        about: &'static str,
        default: impl Into<T>,
    ) -> T {
        let found = self.find::<T>(variable).or_else(|| self.find::<T>(standard));
        let (value, source) = found.unwrap_or_else(|| (default.into(), Source::Default));
        self.entries.push(Entry { variable: variable.into(), value: value.show(), source, about: about.into() });
        value
    }

    /// A setting with a default that must lie within bounds.
    pub fn within<T: Value + PartialOrd + Copy>(
        &mut self,
        variable: &'static str,
        about: &'static str,
        default: T,
        bounds: std::ops::RangeInclusive<T>,
    ) -> T {
        let value = self.value(variable, about, default);
        if !bounds.contains(&value) {
            let (low, high) = (bounds.start().show(), bounds.end().show());
            self.errors.push(format!("{variable} is {}, but must lie between {low} and {high}", value.show()));
        }
        value
    }

    /// A secret, or the file that holds it.
    pub fn secret(
        &mut self,
        variable: impl Into<Cow<'static, str>>,
        about: impl Into<Cow<'static, str>>,
    ) -> Option<Secret> {
        let (variable, about) = (variable.into(), about.into());
        let direct = self.find::<String>(&variable);
        let by_file = self.find::<String>(&format!("{variable}_FILE"));
        self.private.extend(by_file.iter().map(|(path, _)| absolute(Path::new(path))));
        if self.file.contains_key(&key_of(&variable)) {
            self.private.insert(self.file_path.clone());
        }
        let (secret, source) = match (direct, by_file) {
            (Some(_), Some(_)) => {
                self.errors.push(format!("{variable} and {variable}_FILE are both set; keep one"));
                (None, Source::Default)
            }
            (Some((text, source)), None) => (Some(Secret::new(text)), source),
            (None, Some((path, source))) => match fs::read_to_string(&path) {
                Ok(text) => (Some(Secret::new(text.trim_end())), source),
                Err(error) => {
                    self.errors.push(format!("{variable}_FILE: {path} can't be read: {error}"));
                    (None, source)
                }
            },
            (None, None) => (None, Source::Default),
        };
        let value = if secret.is_some() { "(set, not shown)" } else { "(not set)" };
        self.entries.push(Entry { variable, value: value.to_owned(), source, about });
        secret
    }

    /// The files that hold a secret, as absolute paths: those that were named, and the configuration file if one is
    /// in it, used or not.
    pub fn private(&self) -> Vec<PathBuf> {
        self.private.iter().cloned().collect()
    }

    /// A rule that concerns several settings.
    pub fn require(&mut self, holds: bool, sentence: impl FnOnce() -> String) {
        if !holds {
            self.errors.push(sentence());
        }
    }

    /// Whether something is wrong with a setting already.
    pub fn complains_of(&self, variable: &str) -> bool {
        self.errors.iter().any(|error| error.starts_with(variable))
    }

    /// Every setting that was read; or every error there is.
    pub fn finish(mut self) -> Result<Vec<Entry>, Vec<String>> {
        let known = |name: &str| {
            let plain = name.strip_suffix("_FILE").unwrap_or(name);
            self.entries.iter().any(|entry| entry.variable == name || entry.variable == plain)
        };
        let elsewhere = |name: &str| ELSEWHERE.contains(&name) || name.starts_with("CALLBOARD_TEST_");
        let ours = self.environment.keys().filter(|name| name.starts_with(PREFIX));
        for name in ours.filter(|name| !known(name) && !elsewhere(name)) {
            complain(&format!("warning: the variable {name} is not known, so it has no effect"));
        }
        let strange: Vec<&String> = self.file.keys().filter(|key| !known(&variable_of(key))).collect();
        let errors: Vec<String> =
            strange.iter().map(|key| format!("the configuration file has {key}, which is no setting")).collect();
        self.errors.extend(errors);
        if self.errors.is_empty() { Ok(self.entries) } else { Err(self.errors) }
    }

    fn find<T: Value>(&mut self, variable: &str) -> Option<(T, Source)> {
        let (text, source) = self.text(variable)?;
        match T::parse(&text) {
            Ok(value) => Some((value, source)),
            Err(error) => {
                self.errors.push(format!("{variable} is {text:?}, but must be {error} ({source})"));
                None
            }
        }
    }

    fn text(&mut self, variable: &str) -> Option<(String, Source)> {
        if let Some(text) = self.flags.get(variable) {
            return Some((text.clone(), Source::Flag));
        }
        if let Some(text) = self.environment.get(variable) {
            return Some((text.clone(), Source::Environment));
        }
        let value = self.file.get(&key_of(variable))?;
        match plain(value) {
            Some(text) => Some((text, Source::File)),
            None => {
                self.errors
                    .push(format!("{} in the configuration file must be a text, a number or a list", key_of(variable)));
                None
            }
        }
    }
}

/// Ours, and those of OpenTelemetry, which have standard names.
pub(super) fn is_read(name: &str) -> bool {
    name.starts_with(PREFIX) || name.starts_with("OTEL_")
}

/// As children find it, whose current folder is another.
fn absolute(path: &Path) -> PathBuf {
    path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn key_of(variable: &str) -> String {
    variable.strip_prefix(PREFIX).unwrap_or(variable).to_lowercase()
}

fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase())
}

fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(items) => Some(items.iter().map(plain).collect::<Option<Vec<_>>>()?.join(",")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_flag_outranks_the_environment_and_the_environment_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        fs::write(&path, "a = 1\nb = 1\nc = 1\n").unwrap();
        let environment = environment(&[("CALLBOARD_A", "2"), ("CALLBOARD_B", "2"), ("CALLBOARD_D", "")]);
        let mut reader = Reader::new([("CALLBOARD_A", "3".to_owned())], environment, Some(&path));
        let values: Vec<u64> = ["CALLBOARD_A", "CALLBOARD_B", "CALLBOARD_C", "CALLBOARD_D"]
            .map(|name| reader.value(name, "", 0_u64))
            .to_vec();
        assert_eq!(values, [3, 2, 1, 0]);
        let sources: Vec<Source> = reader.finish().unwrap().into_iter().map(|entry| entry.source).collect();
        assert_eq!(sources, [Source::Flag, Source::Environment, Source::File, Source::Default]);
    }

    #[test]
    fn all_errors_are_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        fs::write(&path, "typo = 1\n").unwrap();
        let environment = environment(&[("CALLBOARD_A", "x"), ("CALLBOARD_B", "99"), ("CALLBOARD_K_FILE", "/no/such")]);
        let mut reader = Reader::new([], environment, Some(&path));
        let _: Duration = reader.value("CALLBOARD_A", "", Duration::from_secs(1));
        reader.within("CALLBOARD_B", "", 1_u64, 1..=9);
        assert!(reader.secret("CALLBOARD_K", "").is_none());
        let errors = reader.finish().unwrap_err();
        assert_eq!(errors.len(), 4, "{errors:#?}");
    }

    #[test]
    fn the_files_that_hold_secrets_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let [file, key] = ["c.toml", "key"].map(|name| folder.path().join(name));
        fs::write(&key, "hunter2").unwrap();
        let private = |text: &str, variable: &str, value: &str| {
            fs::write(&file, text).unwrap();
            let mut reader = Reader::new([], environment(&[(variable, value)]), Some(&file));
            let _: u64 = reader.value("CALLBOARD_A", "", 0_u64);
            assert_eq!(reader.secret("CALLBOARD_K", "").unwrap().expose(), "hunter2");
            reader.private()
        };
        assert_eq!(private("a = 1", "CALLBOARD_K", "hunter2"), [] as [&Path; 0]);
        assert_eq!(private("a = 1", "CALLBOARD_K_FILE", key.to_str().unwrap()), [&*key]);
        // One that another outranks may be good all the same.
        assert_eq!(private("k = 'other'", "CALLBOARD_K", "hunter2"), [&*file]);
        assert_eq!(private(&format!("k_file = {key:?}"), "CALLBOARD_A", "1"), [&*key]);
    }

    #[test]
    fn a_secret_is_never_shown() {
        let mut reader = Reader::new([], environment(&[("CALLBOARD_K", "hunter2")]), None);
        assert_eq!(reader.secret("CALLBOARD_K", "").unwrap().expose(), "hunter2");
        assert!(!format!("{:?}", reader.finish().unwrap()).contains("hunter2"));
    }
}
