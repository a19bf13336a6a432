//! A mount namespace of the child's own, where the node may make one: `/tmp` and `/var/tmp` are a folder of the child's then,
//! and what programs of this machine keep there is not seen.
//!
//! Only a node that runs as root makes one, for children that run as another user: within a user namespace of its own, a
//! child would see the files of all others as nobody's. Elsewhere `TMPDIR` alone leads to the child's own folder.

use std::path::{Path, PathBuf};

use callboard_supervisors::fs;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::trampoline::RunAs;

/// Folders in which all programs keep temporary files.
const SHARED: [&str; 2] = ["/tmp", "/var/tmp"];

/// Separates this process from the mounts of the node, for good. Returns whether the user can list none of the hidden
/// folders by their names: the folders above them may be listed then.
pub(super) fn separate(temporary: &Path, hidden: &[PathBuf], needed: &[PathBuf], user: RunAs) -> nix::Result<bool> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // What is mounted here is nobody else's business; what the machine mounts meanwhile is seen here as well.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    let hidden: Vec<PathBuf> = hidden.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let needed: Vec<PathBuf> = needed.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    for shared in SHARED.map(Path::new) {
        let covers = needed.iter().chain(&hidden).any(|path| path.starts_with(shared));
        // A link leads to a place of its own, such as from one of them to the other.
        let is_folder = fs::symlink_metadata(shared).is_ok_and(|metadata| metadata.is_dir());
        if is_folder && !covers {
            mount(Some(temporary), shared, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
    }
    let mut listed = false;
    for folder in hidden.iter().filter(|path| fs::metadata(path).is_ok_and(|it| it.is_dir() && user.may_list(&it))) {
        if needed.iter().any(|path| path.starts_with(folder)) {
            listed = true;
            continue;
        }
        let empty = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("none"), folder, Some("tmpfs"), empty, Some("size=4k,mode=555"))?;
    }
    Ok(!listed)
}
