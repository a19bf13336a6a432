//! Requirements: their names, and those of Poetry and Pipenv in the words of pip.

use toml::{Table, Value};

/// The name of a requirement, and with each of its extras: `fastapi[standard]>=0.1 ; python_version > '3'`.
pub(super) fn names(line: &str) -> Vec<String> {
    let line = line.trim();
    if !line.starts_with(|letter: char| letter.is_ascii_alphanumeric()) {
        return Vec::new();
    }
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let end = line.find(|letter| !is_name(letter)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let name = normalized(name);
    let extras = rest.trim_start().strip_prefix('[').and_then(|rest| rest.split(']').next()).unwrap_or_default();
    let extras = extras.split(',').map(str::trim).filter(|extra| !extra.is_empty());
    let with: Vec<String> = extras.map(|extra| format!("{name}[{extra}]")).collect();
    std::iter::once(name).chain(with).collect()
}

/// A name as package indexes compare it.
pub(super) fn normalized(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

/// The requirements of a table of Poetry or Pipenv, as pip has them; nothing when pip has no words for one of them.
pub(super) fn listed(dependencies: &Table, is_poetry: bool) -> Option<Vec<String>> {
    let packages = dependencies.iter().filter(|(name, _)| *name != "python");
    packages.map(|(name, value)| requirement(name, value, is_poetry)).collect()
}

fn requirement(name: &str, value: &Value, is_poetry: bool) -> Option<String> {
    let (version, extras) = match value {
        Value::String(version) => (version.as_str(), Vec::new()),
        Value::Table(table) => {
            if table.keys().any(|key| !["version", "extras"].contains(&key.as_str())) {
                return None;
            }
            let extras = table.get("extras").and_then(Value::as_array).into_iter().flatten();
            (table.get("version")?.as_str()?, extras.filter_map(Value::as_str).collect())
        }
        _ => return None,
    };
    let version = match version.trim() {
        "*" | "" => String::new(),
        version => {
            let parts: Option<Vec<String>> = version.split(',').map(|part| specifier(part.trim(), is_poetry)).collect();
            parts?.join(",")
        }
    };
    let extras = if extras.is_empty() { String::new() } else { format!("[{}]", extras.join(",")) };
    let requirement = format!("{name}{extras}{version}");
    // An argument that begins with `-` would be an option of pip.
    requirement.starts_with(|letter: char| letter.is_ascii_alphanumeric()).then_some(requirement)
}

/// One specifier as pip has it.
fn specifier(part: &str, is_poetry: bool) -> Option<String> {
    if let Some(rest) = part.strip_prefix('^').filter(|_| is_poetry) {
        let numbers = numbers(rest)?;
        // The first number that is not zero stays.
        let at = numbers.iter().position(|number| *number > 0).unwrap_or(numbers.len().saturating_sub(1));
        return Some(format!(">={},<{}", rest.trim(), next(numbers, at)?));
    }
    if let Some(rest) = part.strip_prefix('~').filter(|rest| is_poetry && !rest.starts_with('=')) {
        let numbers = numbers(rest)?;
        let at = numbers.len().saturating_sub(1).min(1);
        return Some(format!(">={},<{}", rest.trim(), next(numbers, at)?));
    }
    let is_plain = part.starts_with(|letter: char| letter.is_ascii_digit());
    let text = if is_plain { format!("=={part}") } else { part.to_owned() };
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "<>=!~.*+ -".contains(letter);
    (text.starts_with(['<', '>', '=', '!', '~']) && text.chars().all(allowed)).then(|| text.replace(' ', ""))
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    text.split('.').map(|number| number.trim().parse().ok()).collect()
}

/// The version in which the number at a place is one higher, and which ends there.
fn next(mut numbers: Vec<u64>, at: usize) -> Option<String> {
    numbers.truncate(at + 1);
    *numbers.get_mut(at)? += 1;
    Some(numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join("."))
}
