//! Which installed version of a language an app gets.

use std::str::FromStr as _;

use nodejs_semver::{Range, Version};
use pep440_rs::{Version as PythonVersion, VersionSpecifiers};

use super::DetectError;
use crate::{
    build::tools::{Installed, Tool, Tools},
    logs::excerpt::excerpt,
};

/// The longest version that is understood, in bytes: ranges of many alternatives.
const LONGEST: usize = 1_024;
/// How much of a version sentences quote, in bytes.
const QUOTED: usize = 64;

/// A version that a file or the owner asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// What asks, for sentences: "`.nvmrc`".
    pub(super) by: String,
    pub(super) version: String,
}

impl Asked {
    pub(super) fn new(by: impl Into<String>, version: impl AsRef<str>) -> Option<Self> {
        let version = version.as_ref().trim();
        (!version.is_empty()).then(|| Self { by: by.into(), version: version.to_owned() })
    }
}

/// How an installed version answers what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is what is asked for.
    Exact,
    /// It is compatible: another patch of the same minor version, or a later minor of the same major.
    Near,
    No,
    /// What is asked for is no version.
    Unknown,
}

/// The version to use, and sentences about it. The first of `asked` decides.
pub(super) fn choose(
    tools: &Tools,
    tool: Tool,
    file: &str,
    asked: Option<&Asked>,
) -> Result<(Installed, Vec<String>), DetectError> {
    let missing = || not_installed(tool, file);
    let default = tools.default(tool).ok_or_else(missing)?;
    let Some(asked) = asked else { return Ok((default, Vec::new())) };
    let (title, wanted) = (tool.title(), excerpt(&asked.version, QUOTED));
    match fit(tool, &asked.version, &default.version) {
        Fit::Exact => return Ok((default, Vec::new())),
        Fit::Unknown => {
            let used = &default.version;
            let sentence = format!("{} asks for {title} `{wanted}`, which is no version; {used} is used", asked.by);
            return Ok((default, vec![sentence]));
        }
        Fit::Near | Fit::No => {}
    }
    let all = tools.all(tool);
    let of = |how: Fit| all.iter().find(|found| fit(tool, &asked.version, &found.version) == how);
    let say = |found: &Installed| format!("{} asks for {title} {wanted}: {} is used", asked.by, found.version);
    if let Some(found) = of(Fit::Exact).or_else(|| of(Fit::Near)) {
        return Ok((found.clone(), vec![say(found)]));
    }
    let installed: Vec<&str> = all.iter().map(|tool| tool.version.as_str()).collect();
    Err(DetectError::NoSuchVersion {
        by: asked.by.clone(),
        tool: title,
        asked: wanted.into_owned(),
        installed: installed.join(", "),
        get: tool.other_versions().to_owned(),
    })
}

/// The refusal of an app whose tool is not there.
pub(super) fn not_installed(tool: Tool, file: &str) -> DetectError {
    let get = tool.install();
    let get = if get.starts_with("https://") { format!("see {get}") } else { format!("`{get}`") };
    DetectError::NotInstalled { file: file.to_owned(), tool: tool.title(), get }
}

/// Refuses an app whose tool is not there.
pub(super) fn require(tools: &Tools, tool: Tool, file: &str) -> Result<Installed, DetectError> {
    tools.default(tool).ok_or_else(|| not_installed(tool, file))
}

/// How a version answers what is asked for, by the rules of the language.
pub(super) fn fit(tool: Tool, asked: &str, version: &str) -> Fit {
    if asked.len() > LONGEST {
        return Fit::Unknown;
    }
    match tool {
        Tool::Node => node(asked, version),
        Tool::Python => python(asked, version),
        // "at least", within the same major version.
        Tool::Go | Tool::Cargo => at_least(asked, version),
        _ => by_range(asked, version),
    }
}

/// Names of the long-term versions of Node.js, by their major version.
const LTS: [(&str, u64); 11] = [
    ("argon", 4),
    ("boron", 6),
    ("carbon", 8),
    ("dubnium", 10),
    ("erbium", 12),
    ("fermium", 14),
    ("gallium", 16),
    ("hydrogen", 18),
    ("iron", 20),
    ("jod", 22),
    ("krypton", 24),
];

fn node(asked: &str, version: &str) -> Fit {
    let asked = asked.trim();
    match asked.to_ascii_lowercase().as_str() {
        "*" | "node" | "stable" | "latest" | "current" | "system" | "lts" | "lts/*" => return Fit::Exact,
        lower if lower.starts_with("lts/") => {
            let name = lower.trim_start_matches("lts/");
            let Some((_, major)) = LTS.iter().find(|(known, _)| *known == name) else { return Fit::Unknown };
            return by_range(&major.to_string(), version);
        }
        _ => {}
    }
    by_range(asked, version)
}

/// By the rules of npm: `20`, `20.x`, `^20.1`, `>=18 <21`.
fn by_range(asked: &str, version: &str) -> Fit {
    let Ok(range) = Range::parse(asked) else { return Fit::Unknown };
    let Some(version) = whole(version) else { return Fit::Unknown };
    if range.satisfies(&version) {
        return Fit::Exact;
    }
    // One exact version: a later one of the same major version does not break what ran on it.
    match Version::parse(asked.trim_start_matches(['v', '='])) {
        Ok(exact) if exact.major() == version.major() && version >= exact => Fit::Near,
        _ => Fit::No,
    }
}

/// A version of three numbers.
fn whole(version: &str) -> Option<Version> {
    let mut numbers: Vec<&str> = version.split('.').take(3).collect();
    numbers.resize(3, "0");
    Version::parse(numbers.join(".")).ok()
}

fn at_least(asked: &str, version: &str) -> Fit {
    match (whole(asked), whole(version)) {
        (Some(asked), Some(version)) if version >= asked && version.major() == asked.major() => Fit::Exact,
        (Some(_), Some(_)) => Fit::No,
        _ => Fit::Unknown,
    }
}

/// By the rules of Python: `3`, `3.11` and `3.11.4` are versions, all else are specifiers such as `>=3.9,<4`.
fn python(asked: &str, version: &str) -> Fit {
    let asked = asked.trim().trim_start_matches("python-").trim_start_matches("cpython-");
    let Ok(version) = PythonVersion::from_str(version) else { return Fit::Unknown };
    if let Ok(exact) = PythonVersion::from_str(asked) {
        let (asked, installed) = (exact.release().to_vec(), version.release().to_vec());
        let same = asked.iter().zip(&installed).take_while(|(asked, installed)| asked == installed).count();
        return match (same, asked.len()) {
            (same, asked) if same == asked => Fit::Exact,
            // Patches of one minor version are compatible in both directions.
            (2, 3) => Fit::Near,
            _ => Fit::No,
        };
    }
    let Ok(specifiers) = VersionSpecifiers::from_str(&specifiers(asked)) else { return Fit::Unknown };
    if specifiers.contains(&version) { Fit::Exact } else { Fit::No }
}

/// Specifiers as PEP 440 has them, of those and of Poetry's `^3.9` and `~3.9`.
fn specifiers(asked: &str) -> String {
    let part = |part: &str| {
        let part = part.trim();
        let (caret, rest) = match (part.strip_prefix('^'), part.strip_prefix('~').filter(|rest| !rest.starts_with('=')))
        {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) if part == "*" => return ">=0".to_owned(),
            // `3.9` and `3.9.*` among specifiers.
            (None, None) if part.starts_with(|letter: char| letter.is_ascii_digit()) => {
                return format!("=={}.*", part.trim_end_matches(".*"));
            }
            (None, None) => return part.to_owned(),
        };
        let mut numbers = rest.split('.').filter_map(|number| number.trim().parse::<u64>().ok());
        let (major, minor) = (numbers.next().unwrap_or(0), numbers.next());
        match minor {
            Some(minor) if !caret => format!(">={rest},<{major}.{}", minor + 1),
            _ => format!(">={rest},<{}", major + 1),
        }
    };
    asked.split(',').map(part).collect::<Vec<_>>().join(",")
}
