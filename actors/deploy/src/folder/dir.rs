//! An open folder, beneath which nothing leads out.
//!
//! Every call with a path looks it up anew, and a process that can write in a folder can put a link in the place of an
//! entry, or of any folder above that, between two calls. So what a build, an app or an archive can write is reached
//! from a descriptor only: the folder is opened where nobody else can write, everything in it is opened beneath that
//! descriptor and without following links, and what was opened is judged by its own descriptor.

#![expect(clippy::disallowed_methods, reason = "the way in makes sure that its thread may wait")]

use std::{
    ffi::{OsStr, OsString},
    fs::{File, Metadata},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{MetadataExt as _, PermissionsExt as _},
        },
    },
    path::{Component, Path, PathBuf},
};

use callboard_supervisors::fs;
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, openat},
    io::Errno,
};

use crate::process::trampoline::RunAs;

/// Flags of every descriptor.
const PLAIN: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);
/// Flags of a folder to read.
const FOLDER: OFlags = PLAIN.union(OFlags::RDONLY).union(OFlags::DIRECTORY);
/// Flags of a file to read. Opening a pipe would wait for its writer, and opening a terminal could make it ours.
const FILE: OFlags = PLAIN.union(OFlags::RDONLY).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
/// Flags of a file to create.
const NEW_FILE: OFlags = PLAIN.union(OFlags::WRONLY).union(OFlags::CREATE).union(OFlags::EXCL);
/// Flags of a file to append to, created if it does not exist.
const LOG_FILE: OFlags = PLAIN.union(OFlags::WRONLY).union(OFlags::CREATE).union(OFlags::APPEND);
/// Flags of a folder on the way to another: passing through it needs no right to read it.
#[cfg(target_os = "linux")]
const PASSED: OFlags = PLAIN.union(OFlags::PATH).union(OFlags::DIRECTORY);
#[cfg(not(target_os = "linux"))]
const PASSED: OFlags = FOLDER;

/// An open folder. Its functions block.
#[derive(Debug)]
pub struct Dir(File);

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the folder.
    pub name: OsString,
    /// Its kind when the folder was read.
    pub kind: FileType,
}

/// The identity of a folder, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Dir {
    /// The folder at a path of the node's own, in which no other user and no child can write: links are its operator's.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn trusted(path: &Path) -> io::Result<Self> {
        fs::off_shard();
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let dir = rustix::fs::open(path, FOLDER.difference(OFlags::NOFOLLOW), Mode::empty())?;
        Ok(dir.into())
    }

    /// The folder at a path, which is no link itself. The folders above it are the node's own.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (parent, name) = parted(path)?;
        Self::trusted(parent)?.open_dir(Path::new(name))
    }

    /// A folder beneath this one; an empty path is the folder itself.
    ///
    /// # Errors
    /// When it can't be opened, is no folder, or a link is on the way.
    pub fn open_dir(&self, path: &Path) -> io::Result<Self> {
        self.beneath(path, FOLDER, Mode::empty()).map(Self::from)
    }

    /// A file beneath this folder, to be read.
    ///
    /// # Errors
    /// When it can't be opened, is no regular file, or a link is on the way.
    pub fn open_file(&self, path: &Path) -> io::Result<File> {
        let file = File::from(self.beneath(path, FILE, Mode::empty())?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::INVAL.into()) }
    }

    /// Makes a file beneath this folder, where there is nothing yet.
    ///
    /// # Errors
    /// When it can't be made, or a link is on the way.
    pub fn create_file(&self, path: &Path, mode: u32) -> io::Result<File> {
        self.beneath(path, NEW_FILE, Mode::from_raw_mode(mode)).map(File::from)
    }

    /// Opens a file beneath this folder to write at its end, and makes it where there is none.
    ///
    /// # Errors
    /// When it can't be opened, or a link is on the way or in its place.
    pub fn append_file(&self, path: &Path, mode: u32) -> io::Result<File> {
        self.beneath(path, LOG_FILE, Mode::from_raw_mode(mode)).map(File::from)
    }

    /// Makes a folder beneath this one, where there is nothing yet.
    ///
    /// # Errors
    /// When it can't be made, or a link is on the way.
    pub fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        let (parent, name) = self.parent_of(path)?;
        Ok(rustix::fs::mkdirat(parent.as_fd(), name, Mode::from_raw_mode(mode))?)
    }

    /// Makes a symbolic link beneath this folder, where there is nothing yet.
    ///
    /// # Errors
    /// When it can't be made, or a link is on the way.
    pub fn create_link(&self, target: &Path, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent_of(path)?;
        Ok(rustix::fs::symlinkat(target, parent.as_fd(), name)?)
    }

    /// The text of a symbolic link beneath this folder.
    ///
    /// # Errors
    /// When there is none, or another link is on the way.
    pub fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let (parent, name) = self.parent_of(path)?;
        let target = rustix::fs::readlinkat(parent.as_fd(), name, Vec::new())?;
        Ok(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
    }

    /// Moves what is at a path beneath this folder to one beneath another folder; of a link, the link itself.
    ///
    /// # Errors
    /// When it can't be moved, there is something in its new place, or a link is on the way to either.
    pub(crate) fn move_to(&self, path: &Path, other: &Self, target: &Path) -> io::Result<()> {
        let ((parent, name), (into, new)) = (self.parent_of(path)?, other.parent_of(target)?);
        Ok(rustix::fs::renameat(parent.as_fd(), name, into.as_fd(), new)?)
    }

    /// What is in this folder, in no order.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn entries(&self) -> io::Result<impl Iterator<Item = io::Result<Entry>>> {
        let stream = rustix::fs::Dir::read_from(&self.0)?;
        let own = |name: &[u8]| name == b"." || name == b"..";
        let found = stream.filter(move |entry| !entry.as_ref().is_ok_and(|entry| own(entry.file_name().to_bytes())));
        Ok(found.map(|entry| {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            let kind = match entry.file_type() {
                // Some file systems do not say.
                FileType::Unknown => FileType::from_raw_mode(self.stat(&name)?.st_mode),
                kind => kind,
            };
            Ok(Entry { name, kind })
        }))
    }

    /// Whether there is nothing in this folder.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.entries()?.next().transpose()?.is_none())
    }

    /// The metadata of an entry; of a link, the link's own.
    pub(crate) fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        Ok(rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.0.metadata()
    }

    pub(crate) fn identity(&self) -> io::Result<Identity> {
        let metadata = self.0.metadata()?;
        Ok(Identity { device: metadata.dev(), inode: metadata.ino() })
    }

    /// The folder that this one is in, whichever that is by now: compare its identity.
    pub(crate) fn outer(&self) -> io::Result<Self> {
        Ok(openat(&self.0, "..", FOLDER, Mode::empty())?.into())
    }

    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.0.set_permissions(std::fs::Permissions::from_mode(mode))
    }

    /// Changes the owner of the folder itself, and of nothing in it.
    pub(crate) fn give(&self, user: RunAs) -> io::Result<()> {
        give(&self.0, user)
    }

    /// Changes the owner of an entry: of a link itself, and never of a file that has another name elsewhere.
    pub(crate) fn give_entry(&self, entry: &Entry, user: RunAs) -> io::Result<()> {
        if !entry.kind.is_file() {
            let owner = (Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)));
            let name = entry.name.as_os_str();
            return Ok(rustix::fs::chownat(&self.0, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?);
        }
        let file = self.open_file(Path::new(&entry.name))?;
        if file.metadata()?.nlink() > 1 {
            let sentence = format!("{} has another name elsewhere, so it can't be given away", entry.name.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        }
        give(&file, user)
    }

    /// Removes a file or link, or an empty folder.
    pub(crate) fn unlink(&self, name: &OsStr, flags: AtFlags) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.0, name, flags)
    }

    /// Lets its owner read and write a folder that can't be opened. By descriptor, because the call with a name follows
    /// links.
    #[cfg(target_os = "linux")]
    pub(crate) fn make_readable(&self, name: &OsStr) -> io::Result<()> {
        use std::os::fd::AsRawFd as _;
        let folder = openat(&self.0, name, PASSED, Mode::empty())?;
        Ok(rustix::fs::chmod(format!("/proc/self/fd/{}", folder.as_raw_fd()), Mode::RWXU)?)
    }

    /// Opens beneath this folder: in one call where the kernel can, else component by component.
    fn beneath(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let names = names(path)?;
        #[cfg(target_os = "linux")]
        if names.len() > 1 {
            use rustix::fs::ResolveFlags;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            match rustix::fs::openat2(&self.0, path, flags, mode, resolve) {
                // A kernel before 5.6, or a seccomp profile that does not know the call.
                Err(Errno::NOSYS | Errno::PERM) => {}
                outcome => return Ok(outcome?),
            }
        }
        Ok(by_component(&self.0, &names, flags, mode)?)
    }

    /// The folder of what a path names, and its name there.
    fn parent_of<'path>(&self, path: &'path Path) -> io::Result<(OwnedFd, &'path OsStr)> {
        let (parent, name) = parted(path)?;
        Ok((self.beneath(parent, PASSED, Mode::empty())?, name))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Dir {
    fn from(folder: OwnedFd) -> Self {
        Self(folder.into())
    }
}

impl From<Dir> for OwnedFd {
    fn from(folder: Dir) -> Self {
        folder.0.into()
    }
}

fn by_component(root: &File, names: &[&OsStr], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let Some((last, above)) = names.split_last() else { return openat(root, ".", flags, mode) };
    let mut here: Option<OwnedFd> = None;
    for name in above {
        let folder = here.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        here = Some(openat(folder, *name, PASSED, Mode::empty())?);
    }
    openat(here.as_ref().map_or(root.as_fd(), AsFd::as_fd), *last, flags, mode)
}

fn give(what: &File, user: RunAs) -> io::Result<()> {
    Ok(rustix::fs::fchown(what, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))?)
}

/// Whether an entry could not be opened because it is gone, or has been exchanged.
pub(crate) fn is_exchanged(error: &io::Error) -> bool {
    let errors = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::INVAL].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|error| errors.contains(&error))
}

/// The components of a path, none of which leads upwards.
fn names(path: &Path) -> io::Result<Vec<&OsStr>> {
    let plain = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(Ok(name)),
        Component::CurDir => None,
        Component::ParentDir | Component::RootDir | Component::Prefix(_) => Some(Err(Errno::XDEV.into())),
    });
    plain.collect()
}

/// The folder of a path, and the name in it.
fn parted(path: &Path) -> io::Result<(&Path, &OsStr)> {
    path.parent().zip(path.file_name()).ok_or_else(|| Errno::INVAL.into())
}

#[cfg(test)]
mod tests;
