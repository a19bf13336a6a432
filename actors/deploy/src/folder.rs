//! Folders of work in progress.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown, lchown},
    path::{Path, PathBuf},
};

use crate::limits::RunAs;

/// What a folder holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Of all files; links count nothing.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

/// Counts what is in a folder, and stops once there is more than asked for. Blocks; follows no links.
#[must_use]
pub fn measure(folder: &Path, bytes: u64, entries: u64) -> Size {
    let mut size = Size::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            size.entries += 1;
            if size.bytes > bytes || size.entries > entries {
                return size;
            }
            // Files come and go while a build runs.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() {
                size.bytes += metadata.len();
            }
        }
    }
    size
}

/// Makes a folder that the apps' user passes through, whatever the umask of the node is: others see nothing of it but what
/// they know the name of. One that is there gets the same rights. Blocks.
pub(crate) fn make_passable(folder: &Path) -> io::Result<()> {
    const MODE: u32 = 0o711;
    DirBuilder::new().recursive(true).mode(MODE).create(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(MODE))
}

/// Makes a folder for a user alone, or else for the node's own. Blocks.
pub(crate) fn make_private(folder: &Path, user: Option<RunAs>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    match user {
        Some(user) => chown(folder, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}

/// Makes a folder and all in it a user's. Blocks; follows no links.
pub(crate) fn give(folder: &Path, user: RunAs) -> io::Result<()> {
    let (uid, gid) = (Some(user.uid), Some(user.gid));
    // From the inside out: a folder that is the user's already was given as a whole.
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            give(&entry.path(), user)?;
        } else {
            lchown(entry.path(), uid, gid)?;
        }
    }
    lchown(folder, uid, gid)
}

/// Gives a folder once, for the user alone: afterwards the user's own processes may change it under our hands.
pub(crate) fn give_once(folder: &Path, user: RunAs) -> io::Result<()> {
    if fs::symlink_metadata(folder)?.uid() == user.uid {
        return Ok(());
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    give(folder, user)
}

/// Removes a folder when dropped, unless it is to be kept.
pub(crate) struct Cleaner(Option<PathBuf>);

impl Cleaner {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(Some(folder.to_owned()))
    }

    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        if let Some(folder) = &self.0
            && let Err(error) = fs::remove_dir_all(folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %folder.display(), %error, "a folder could not be removed");
        }
    }
}
