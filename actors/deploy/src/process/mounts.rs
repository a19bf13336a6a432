//! A mount namespace of the child's own, where the node may make one: `/tmp` and `/var/tmp` are a folder of the child's then,
//! and what programs of this machine keep there is not seen.
//!
//! Only a node that runs as root makes one, for children that run as another user: within a user namespace of its own, a
//! child would see the files of all others as nobody's. Elsewhere `TMPDIR` alone leads to the child's own folder.

use std::{
    fs::DirBuilder,
    io,
    os::{fd::AsRawFd as _, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
};

use callboard_supervisors::fs;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use rustix::fs::{Mode, OFlags};

use super::trampoline::RunAs;

/// Folders in which all programs keep temporary files.
const SHARED: [&str; 2] = ["/tmp", "/var/tmp"];

/// What the mounts of a child are made for.
pub(super) struct Wanted<'a> {
    /// Becomes its `/tmp`.
    pub(super) temporary: &'a Path,
    /// All that is left of the hidden folder that it is in.
    pub(super) within: Option<&'a Path>,
    pub(super) hidden: &'a [PathBuf],
    /// What it must reach.
    pub(super) needed: &'a [PathBuf],
    /// The user that it becomes.
    pub(super) user: RunAs,
}

/// Separates this process from the mounts of the node, for good. Returns whether the user can list none of the hidden
/// folders by their names: the folders above them may be listed then.
pub(super) fn separate(wanted: &Wanted<'_>) -> io::Result<bool> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // What is mounted here is nobody else's business; what the machine mounts meanwhile is seen here as well.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    let real =
        |paths: &[PathBuf]| -> Vec<PathBuf> { paths.iter().filter_map(|path| fs::canonicalize(path).ok()).collect() };
    let (hidden, needed) = (real(wanted.hidden), real(wanted.needed));
    let within = wanted.within.and_then(|folder| fs::canonicalize(folder).ok());
    for shared in SHARED.map(Path::new) {
        let covers = needed.iter().chain(&hidden).any(|path| path.starts_with(shared));
        // A link leads to a place of its own, such as from one of them to the other.
        let is_folder = fs::symlink_metadata(shared).is_ok_and(|metadata| metadata.is_dir());
        if is_folder && !covers {
            mount(Some(wanted.temporary), shared, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
    }
    let mut listed = false;
    for folder in hidden.iter().filter(|path| fs::is_dir(path)) {
        let inner: Vec<&PathBuf> = needed.iter().filter(|path| path.starts_with(folder)).collect();
        match within.as_deref().filter(|within| within.starts_with(folder)) {
            Some(within) if inner.iter().all(|path| path.starts_with(within)) => leave(folder, within)?,
            _ if !fs::metadata(folder).is_ok_and(|metadata| wanted.user.may_list(&metadata)) => {}
            _ if inner.is_empty() => {
                let empty = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                mount(Some("none"), folder, Some("tmpfs"), empty, Some("size=4k,mode=555"))?;
            }
            _ => listed = true,
        }
    }
    Ok(!listed)
}

/// Covers a folder, and leaves of it nothing but another folder in it.
fn leave(folder: &Path, within: &Path) -> io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "this process becomes a program, and nothing else waits for it")]
    let kept = rustix::fs::open(within, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("none"), folder, Some("tmpfs"), plain, Some("size=64k,mode=755"))?;
    fs::create_dir_with(DirBuilder::new().recursive(true).mode(0o755), within)?;
    let kept = format!("/proc/self/fd/{}", kept.as_raw_fd());
    mount(Some(kept.as_str()), within, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}
