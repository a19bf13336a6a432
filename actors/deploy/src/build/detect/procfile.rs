//! `Procfile`: one `name: command` per line.

use indexmap::IndexMap;

use super::{App, COMMAND_MAXIMUM, Command, DetectError, MAXIMUM_PROCESSES, file::is_process_type};

pub(super) struct Procfile {
    pub(super) processes: IndexMap<String, Command>,
    pub(super) release: Option<Command>,
}

pub(super) fn read(app: &App) -> Result<Option<Procfile>, DetectError> {
    let Some(text) = app.read("Procfile")? else { return Ok(None) };
    let bad = |reason: String| DetectError::bad("Procfile", reason);
    let mut processes = IndexMap::new();
    let mut release = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = index + 1;
        let (name, command) = line
            .split_once(':')
            .map(|(name, command)| (name.trim(), command.trim()))
            .ok_or_else(|| bad(format!("line {number} is not `name: command`")))?;
        if !is_process_type(name) {
            return Err(bad(format!("line {number}: a process type is named by letters, digits, `-` and `_`")));
        }
        if command.is_empty() || command.len() > COMMAND_MAXIMUM || command.contains('\0') {
            return Err(bad(format!("line {number}: `{name}` needs a command of at most 4,096 bytes")));
        }
        let command = Command::Shell(command.to_owned());
        let former =
            if name == "release" { release.replace(command) } else { processes.insert(name.to_owned(), command) };
        if former.is_some() {
            return Err(bad(format!("line {number}: `{name}` is there twice")));
        }
    }
    // With a `release` line alone, what runs is detected.
    if processes.is_empty() && release.is_none() {
        return Err(bad("it names no process; add a line such as `web: node server.js`".to_owned()));
    }
    if processes.len() > MAXIMUM_PROCESSES {
        return Err(bad(format!("it names more than {MAXIMUM_PROCESSES} process types")));
    }
    Ok(Some(Procfile { processes, release }))
}
