//! File systems that one test alone sees.

use std::{path::Path, process::Command};

use nix::unistd::geteuid;

/// Set in the process that a test runs in a second time.
const INSIDE: &str = "CALLBOARD_TEST_OWN_MOUNTS";

/// Runs the test `name` a second time, in a process whose mounts nobody else sees and which leaves none behind however
/// it ends. Whether this is that process; otherwise the test has ended well.
pub fn are_own(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--").arg(std::env::current_exe().unwrap()).args([name, "--exact", "--nocapture"]);
    let status = command.env(INSIDE, "1").status().unwrap_or_else(|error| panic!("unshare (util-linux): {error}"));
    assert!(status.success(), "in mounts of its own: {status}");
    false
}

/// Puts an empty file system of this size over a folder, which is made.
pub fn cover(folder: &Path, mebibytes: u32) {
    std::fs::create_dir_all(folder).unwrap();
    let size = format!("size={mebibytes}m,mode=700");
    let status = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).status().unwrap();
    assert!(status.success(), "mount: {status}");
}

/// Takes it away again, also while a process has something open there.
pub fn uncover(folder: &Path) {
    let status = Command::new("umount").arg("--lazy").arg(folder).status().unwrap();
    assert!(status.success(), "umount: {status}");
}
