//! Asks a program for its version.

#![expect(clippy::disallowed_methods, reason = "the way in makes sure that its thread may wait")]

use std::{
    io::Read as _,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use callboard_supervisors::fs;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::Tool;

/// How long a program may take to tell its version; a virtual machine takes a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const ANSWER_BYTES: u64 = 64 * 1024;

/// What tells whether a file is still the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

/// What a program has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) version: String,
    pub(super) executable: Option<PathBuf>,
    pub(super) has_pip: bool,
}

pub(super) fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

pub(super) fn stamp(file: &Path) -> Option<Stamp> {
    let found = fs::metadata(file).ok()?;
    Some(Stamp { modified: (found.mtime(), found.mtime_nsec()), size: found.len(), inode: found.ino() })
}

/// The version of a program; nothing when it does not tell one in time. Blocks.
pub(super) fn version(tool: Tool, file: &Path, path: &str) -> Option<Answer> {
    fs::off_shard();
    let text = match output(file, tool.question(), path) {
        Ok(text) => text,
        Err(error) => {
            tracing::debug!(file = %file.display(), %error, "a program did not tell its version");
            return None;
        }
    };
    if tool == Tool::Python {
        let mut lines = text.lines().map(str::trim);
        let version = number(lines.next()?)?;
        let executable = lines.next().map(PathBuf::from).filter(|path| path.is_absolute());
        return Some(Answer { version, executable, has_pip: lines.next() == Some("True") });
    }
    let version = match tool {
        // Its first release of a year has no dot: `openjdk 21 2023-09-19`.
        Tool::Java => text.split_whitespace().nth(1).map(|word| word.trim_matches('"').to_owned()),
        _ => number(&text),
    };
    let version = version.filter(|version| version.starts_with(|letter: char| letter.is_ascii_digit()))?;
    Some(Answer { version, executable: None, has_pip: false })
}

/// The first word of a text that begins with a number with dots, such as `v20.1.0`, `go1.22` or `(1.8.2)`.
pub(super) fn number(text: &str) -> Option<String> {
    text.split_whitespace().find_map(|word| {
        let word =
            word.trim_start_matches("go").trim_start_matches(|letter: char| !letter.is_ascii_digit() && letter != '.');
        let end = word.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(word.len());
        let number = word.get(..end)?.trim_end_matches('.');
        (number.contains('.') && number.starts_with(|letter: char| letter.is_ascii_digit())).then(|| number.to_owned())
    })
}

/// What a program writes, started as a build would start it: with nothing of the node's environment but `PATH`.
fn output(file: &Path, arguments: &[&str], path: &str) -> std::io::Result<String> {
    let mut child = Command::new(file)
        .args(arguments)
        .env_clear()
        .envs([("PATH", path), ("HOME", "/nonexistent"), ("LANG", "C.UTF-8"), ("COREPACK_ENABLE_NETWORK", "0")])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let group = Pid::from_raw(i32::try_from(child.id()).map_err(std::io::Error::other)?);
    let (sender, receiver) = mpsc::sync_channel(1);
    let stdout = child.stdout.take();
    // Ends with the group at the latest, which is killed below.
    let reader = thread::Builder::new().name("tool-version".to_owned()).spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(ANSWER_BYTES).read_to_end(&mut bytes));
        // Nobody listens any more when it took too long.
        let _ = sender.send(read.map(|_| String::from_utf8_lossy(&bytes).into_owned()));
    });
    let answer = match reader {
        Ok(_) => receiver.recv_timeout(PATIENCE).map_err(|_| std::io::ErrorKind::TimedOut.into()),
        Err(error) => Err(error),
    };
    // The child is not reaped yet, so the group is still its own. Whoever has answered is killed in its last moments.
    let _ = killpg(group, Signal::SIGKILL);
    child.wait()?;
    answer?
}
