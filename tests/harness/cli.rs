//! The command line as a child process.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

const LIMIT: Duration = Duration::from_secs(120);

/// A finished run.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// The one document that `--json` prints.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The home folder that the command line gets, below the node's.
pub fn home(folder: &Path) -> PathBuf {
    folder.join("home")
}

/// The binary with nothing of the tester's own settings.
pub fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callboard"));
    let ours = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("CALLBOARD_"));
    for name in ours {
        command.env_remove(name);
    }
    // Below this folder no node's data folder is found.
    let here = home(folder);
    std::fs::create_dir_all(&here).unwrap();
    command.env("HOME", &here).env_remove("XDG_CONFIG_HOME").env("NO_COLOR", "1").current_dir(here);
    command
}

/// Runs a command on a terminal of its own, and says what that was given, byte by byte.
const ON_A_TERMINAL: &str = r"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    try:
        given = os.read(terminal, 65536)
    except OSError:
        break
    os.write(1, given)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

/// Runs it to its end on a terminal, which gets output and errors alike.
pub async fn run_on_terminal(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let plain = program(folder);
    let plain = plain.as_std();
    let mut command = Command::new("python3");
    command.args(["-c", ON_A_TERMINAL]).arg(plain.get_program()).args(arguments).current_dir(home(folder));
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env_remove("NO_COLOR").env("TERM", "xterm-256color").envs(environment.iter().copied());
    finish(command, "").await
}

/// Runs it to its end.
pub async fn run(folder: &Path, arguments: &[&str], input: &str) -> Ran {
    let mut command = program(folder);
    command.args(arguments);
    finish(command, input).await
}

/// Runs a command to its end.
pub async fn finish(mut command: Command, input: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A verb that asks nothing ends before it reads.
    drop(stdin.write_all(input.as_bytes()).await);
    drop(stdin);
    let ended = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
    let Output { status, stdout, stderr } = ended.unwrap_or_else(|_| panic!("{command:?} did not end")).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}
