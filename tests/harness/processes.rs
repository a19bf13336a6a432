//! The processes of a node and its apps, found by their working folder.

use std::{fs, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A process whose working folder lies below the node's data folder.
#[derive(Debug, Clone)]
pub struct Process {
    pub pid: i32,
    pub command: String,
}

/// Everything that runs below a folder. A process that has ended but was not waited for has no working folder.
pub fn below(folder: &Path) -> Vec<Process> {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let at = fs::read_link(entry.path().join("cwd")).ok()?;
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            at.starts_with(&folder).then_some(Process { pid, command })
        })
        .collect()
}

/// Sends a signal to one process, which may be gone already.
pub fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}
