//! What git says of a folder.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::error::{Error, Result};

/// Variables that would make git speak of another repository, as they are set while it runs a hook.
const OTHER_REPOSITORY: [&str; 8] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE",
];

/// What a folder is to git.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing {
    /// In no work tree.
    Outside,
    /// The uppermost folder of a work tree.
    Top,
    /// A folder in a work tree.
    Inside,
    /// A folder in a work tree whose rules leave it out.
    LeftOut,
    /// There is a repository, and git says nothing of it: why.
    Unknown(String),
}

/// An entry of git's index.
#[derive(Debug)]
pub struct Tracked {
    pub path: PathBuf,
    /// A submodule, or another repository that was added like one.
    pub is_repository: bool,
}

/// An entry that git does not know and would not ignore.
#[derive(Debug)]
pub struct Untracked {
    pub path: PathBuf,
    /// A repository of its own.
    pub is_repository: bool,
}

/// What `folder` is to git.
pub fn standing(folder: &Path) -> Standing {
    let full = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    if !full.ancestors().any(|ancestor| ancestor.join(".git").symlink_metadata().is_ok()) {
        return Standing::Outside;
    }
    let answer = match ask(&full, &["rev-parse", "--is-inside-work-tree", "--show-prefix"]) {
        Ok(answer) => answer,
        Err(reason) => return Standing::Unknown(reason),
    };
    let mut lines = answer.split(|byte| *byte == b'\n');
    if lines.next() != Some(b"true") {
        return Standing::Outside;
    }
    if lines.next().is_none_or(<[u8]>::is_empty) {
        return Standing::Top;
    }
    let name = Path::new("..").join(full.file_name().unwrap_or_default());
    // What is in the index says nothing here: a folder that is ignored often has one file that holds its place.
    let mut command = command(&full);
    command.args(["check-ignore", "--no-index", "--quiet", "--"]).arg(name);
    match command.status() {
        Ok(status) if status.success() => Standing::LeftOut,
        _ => Standing::Inside,
    }
}

/// What git tracks in `folder` and below it.
pub fn tracked(folder: &Path) -> Result<Vec<Tracked>> {
    let listed = list(folder, &["ls-files", "-z", "--cached", "--stage"])?;
    let entries = listed.split(|byte| *byte == 0).filter_map(|entry| {
        // `100644 0123… 0<tab>path`
        let tab = entry.iter().position(|byte| *byte == b'\t')?;
        Some(Tracked { path: path(entry.get(tab + 1..)?), is_repository: entry.starts_with(b"160000 ") })
    });
    Ok(entries.collect())
}

/// What git does not track there and does not ignore either.
pub fn untracked(folder: &Path) -> Result<Vec<Untracked>> {
    let listed = list(folder, &["ls-files", "-z", "--others", "--exclude-standard"])?;
    let entries = listed.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    let entry = |entry: &[u8]| match entry.strip_suffix(b"/") {
        Some(folder) => Untracked { path: path(folder), is_repository: true },
        None => Untracked { path: path(entry), is_repository: false },
    };
    Ok(entries.map(entry).collect())
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn list(folder: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    ask(folder, arguments)
        .map_err(|reason| Error::failure(format!("git could not list what is in {}: {reason}", folder.display())))
}

/// What git prints; or in a sentence why it does not.
fn ask(folder: &Path, arguments: &[&str]) -> std::result::Result<Vec<u8>, String> {
    let output = command(folder).args(arguments).output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "git is not installed".to_owned(),
        _ => format!("git could not be started: {error}"),
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or("git gave no reason");
    Err(first.strip_prefix("fatal: ").unwrap_or(first).to_owned())
}

/// git in `folder`, without what it would run by the configuration of a repository: a folder may hold one of strangers.
fn command(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]);
    for variable in OTHER_REPOSITORY {
        command.env_remove(variable);
    }
    command.env("GIT_OPTIONAL_LOCKS", "0").env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::piped());
    command
}
