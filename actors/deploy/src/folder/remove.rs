//! Removal of what a build or an app has left.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType},
    io::Errno,
};

use super::{
    descent::{Descent, Up},
    dir::{Dir, is_exchanged},
};

/// Most folders to go through: no build can leave so many, so a process must be creating them as fast as they go.
const MOST: u32 = 20_000_000;

/// Removes a folder and all in it, or the file or link in its place; succeeds where there is nothing. The folders above
/// it are the node's own. Blocks.
///
/// Nothing outside is touched, however links and folders are exchanged meanwhile, and any depth is possible.
///
/// # Errors
/// When something can't be removed; the rest of it may be gone.
pub fn remove(folder: &Path) -> io::Result<()> {
    let Some(name) = folder.file_name() else { return Err(Errno::INVAL.into()) };
    match Dir::trusted(folder.parent().unwrap_or(Path::new(""))) {
        Ok(parent) => parent.remove(name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

impl Dir {
    /// Removes an entry of this folder, as [`remove`] does.
    ///
    /// # Errors
    /// When something can't be removed; the rest of it may be gone.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        let mut visited = 0;
        let mut kind = FileType::Directory;
        while !remove_one(self, name, kind)? {
            count(&mut visited)?;
            kind = match open(self, name) {
                Ok(root) => {
                    empty(root, &mut visited)?;
                    FileType::Directory
                }
                // A file, a link, or nothing any more.
                Err(error) if is_exchanged(&error) => FileType::RegularFile,
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }
}

/// Removes the content of a folder, or as much as possible until a folder is moved.
fn empty(root: Dir, visited: &mut u32) -> io::Result<()> {
    let mut descent = Descent::new(root);
    loop {
        count(visited)?;
        let Some(inner) = clear(descent.here())? else {
            match descent.leave()? {
                Up::Outer => continue,
                Up::Root | Up::Moved => return Ok(()),
            }
        };
        match open(descent.here(), &inner) {
            Ok(inner) => descent.enter_opened(inner)?,
            Err(error) if is_exchanged(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn count(visited: &mut u32) -> io::Result<()> {
    *visited += 1;
    if *visited > MOST {
        return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, "something still writes to it"));
    }
    Ok(())
}

/// Removes entries other than full folders. Returns the name of a full one.
fn clear(folder: &Dir) -> io::Result<Option<OsString>> {
    match try_clear(folder) {
        // Package managers create folders without write permission.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            folder.set_mode(0o700)?;
            try_clear(folder)
        }
        outcome => outcome,
    }
}

fn try_clear(folder: &Dir) -> io::Result<Option<OsString>> {
    for entry in folder.entries()? {
        let entry = entry?;
        if !remove_one(folder, &entry.name, entry.kind)? {
            return Ok(Some(entry.name));
        }
    }
    Ok(None)
}

/// Removes a file, a link or an empty folder; false when it is a full folder, or was exchanged meanwhile.
fn remove_one(folder: &Dir, name: &OsStr, kind: FileType) -> io::Result<bool> {
    let flags = if kind.is_dir() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match folder.unlink(name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::ISDIR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens a folder, also one that its owner may not read.
fn open(folder: &Dir, name: &OsStr) -> io::Result<Dir> {
    match folder.open_dir(Path::new(name)) {
        #[cfg(target_os = "linux")]
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            folder.make_readable(name)?;
            folder.open_dir(Path::new(name))
        }
        opened => opened,
    }
}
