//! Folders that builds and apps write in: measured, given away and removed by descriptor.

mod descent;
mod dir;
mod follow;
mod remove;
#[cfg(test)]
mod tests;
pub mod trash;

use std::{
    ffi::OsString,
    fs::{DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use callboard_supervisors::fs;

pub(crate) use self::{
    descent::{Descent, Up},
    dir::is_exchanged,
};
pub use self::{
    dir::{Dir, Entry},
    follow::{Found, What},
    remove::remove,
};
use crate::process::trampoline::RunAs;

/// The content of a folder in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Size of all files; links count nothing.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

/// How often a folder is measured again because folders in it were moved meanwhile.
const MEASURED_AGAIN: u32 = 3;

/// Counts the content of a folder, and stops once a limit is exceeded. The folders above it are the node's own. Blocks;
/// follows no links.
///
/// A folder whose content is moved faster than it can be counted exceeds the limit of entries.
#[must_use]
pub fn measure(folder: &Path, bytes: u64, entries: u64) -> Size {
    for _ in 0..MEASURED_AGAIN {
        // A folder that does not exist, or that the node can't read, counts as empty.
        let Ok(root) = Dir::open(folder) else { return Size::default() };
        if let Some(size) = try_measure(root, bytes, entries) {
            return size;
        }
    }
    Size { bytes: 0, entries: entries.saturating_add(1) }
}

fn try_measure(root: Dir, bytes: u64, entries: u64) -> Option<Size> {
    let mut size = Size::default();
    let mut descent = Descent::new(root);
    let mut ahead: Vec<Vec<OsString>> = Vec::new();
    loop {
        let mut inner = Vec::new();
        for entry in descent.here().entries().into_iter().flatten().flatten() {
            size.entries += 1;
            if size.bytes > bytes || size.entries > entries {
                return Some(size);
            }
            if entry.kind.is_dir() {
                inner.push(entry.name);
            } else if entry.kind.is_file() {
                // Files come and go while a build runs.
                let length = descent.here().stat(&entry.name).ok().and_then(|stat| u64::try_from(stat.st_size).ok());
                size.bytes = size.bytes.saturating_add(length.unwrap_or_default());
            }
        }
        ahead.push(inner);
        loop {
            match ahead.last_mut().map(Vec::pop) {
                Some(Some(name)) if descent.enter(&name).is_ok() => break,
                Some(Some(_)) => {}
                Some(None) => {
                    ahead.pop();
                    match descent.leave() {
                        Ok(Up::Outer) => {}
                        Ok(Up::Root) => return Some(size),
                        Ok(Up::Moved) | Err(_) => return None,
                    }
                }
                None => return Some(size),
            }
        }
    }
}

/// Creates a folder that the apps' user passes through, whatever the umask of the node: others can reach entries of
/// known name, and list nothing. An existing folder gets the same rights. Blocks.
pub(crate) fn make_passable(folder: &Path) -> io::Result<()> {
    const MODE: u32 = 0o711;
    fs::create_dir_with(DirBuilder::new().recursive(true).mode(MODE), folder)?;
    fs::set_permissions(folder, Permissions::from_mode(MODE))
}

/// Creates a folder with these folders in it, each for a user alone, or else for the node's own. Blocks.
pub(crate) fn make_private(folder: &Path, inner: &[&str], user: Option<RunAs>) -> io::Result<()> {
    const MODE: u32 = 0o700;
    fs::create_dir_with(DirBuilder::new().mode(MODE), folder)?;
    let dir = Dir::open(folder)?;
    for name in inner.iter().map(Path::new) {
        dir.create_dir(name, MODE)?;
        if let Some(user) = user {
            dir.open_dir(name)?.give(user)?;
        }
    }
    // Last, because from now on the user's own processes may change its content.
    user.map_or(Ok(()), |user| dir.give(user))
}

/// Changes the owner of a folder and all in it, in which only the node has written so far. Blocks; follows no links.
///
/// # Errors
/// When a file in it has another name elsewhere: that file is not the user's.
pub(crate) fn give(folder: &Path, user: RunAs) -> io::Result<()> {
    give_all(Dir::open(folder)?, user)
}

fn give_all(root: Dir, user: RunAs) -> io::Result<()> {
    let mut descent = Descent::new(root);
    let mut ahead = vec![give_files(descent.here(), user)?];
    // From the inside out: a folder that is the user's already was given as a whole.
    while let Some(names) = ahead.last_mut() {
        if let Some(name) = names.pop() {
            descent.enter(&name)?;
            ahead.push(give_files(descent.here(), user)?);
            continue;
        }
        descent.here().give(user)?;
        ahead.pop();
        if descent.leave()? == Up::Moved {
            return Err(io::Error::other("a folder was moved while it was given away"));
        }
    }
    Ok(())
}

/// Changes the owner of a folder's entries, apart from folders. Returns those.
fn give_files(folder: &Dir, user: RunAs) -> io::Result<Vec<OsString>> {
    let mut folders = Vec::new();
    for entry in folder.entries()? {
        let entry = entry?;
        if entry.kind.is_dir() {
            folders.push(entry.name);
        } else {
            folder.give_entry(&entry, user)?;
        }
    }
    Ok(folders)
}

/// Gives a folder to a user, only once: afterwards the user's own processes may change it concurrently.
pub(crate) fn give_once(folder: &Path, user: RunAs) -> io::Result<()> {
    let dir = Dir::open(folder)?;
    if dir.metadata()?.uid() == user.uid {
        return Ok(());
    }
    dir.set_mode(0o700)?;
    give_all(dir, user)
}

/// Removes a folder when dropped, unless it was kept.
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
            && let Err(error) = remove(folder)
        {
            tracing::warn!(folder = %folder.display(), %error, "removing a folder failed");
        }
    }
}
