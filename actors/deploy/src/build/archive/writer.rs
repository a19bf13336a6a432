//! Judges entries and writes them, for the readers of both formats.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{ArchiveError, Limits, Summary, links};
use crate::folder::Dir;

/// Below this size a high ratio is harmless: a few lines of zeros compress a thousandfold.
const RATIO_FLOOR: u64 = 10 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Folder,
    /// A folder above an entry, without an entry of its own so far.
    ImpliedFolder,
    File,
    Link,
}

pub(super) struct Writer<'a> {
    root: &'a Dir,
    packed: u64,
    limits: &'a Limits,
    kinds: HashMap<PathBuf, Kind>,
    links: Vec<(PathBuf, PathBuf)>,
    summary: Summary,
}

impl<'a> Writer<'a> {
    pub(super) fn new(root: &'a Dir, packed: u64, limits: &'a Limits) -> Self {
        Self { root, packed, limits, kinds: HashMap::new(), links: Vec::new(), summary: Summary::default() }
    }

    pub(super) fn limits(&self) -> &Limits {
        self.limits
    }

    pub(super) fn folder(&mut self, name: &[u8]) -> Result<(), ArchiveError> {
        let Some(path) = self.begin(name)? else { return Ok(()) };
        match self.kinds.get(&path) {
            None => {
                self.make_folder(&path)?;
                self.kinds.insert(path, Kind::Folder);
            }
            Some(Kind::ImpliedFolder | Kind::Folder) => {
                self.kinds.insert(path, Kind::Folder);
            }
            Some(Kind::File | Kind::Link) => return Err(ArchiveError::Duplicate(shown(&path))),
        }
        Ok(())
    }

    pub(super) fn file(&mut self, name: &[u8], mode: u32, from: &mut dyn Read) -> Result<(), ArchiveError> {
        let path = self.begin_new(name, Kind::File)?;
        // setuid, setgid and sticky bits are left out, and so are differences of umask.
        let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
        let mut file = self.root.create_file(&path, mode).map_err(ArchiveError::Io)?;
        self.copy(&path, from, &mut file)
    }

    fn copy(&mut self, path: &Path, from: &mut dyn Read, to: &mut File) -> Result<(), ArchiveError> {
        let mut buffer = vec![0; 64 * 1024];
        let mut size = 0;
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ArchiveError::Damaged(error.to_string())),
            };
            size += read as u64;
            if size > self.limits.file_bytes {
                return Err(ArchiveError::FileTooLarge { path: shown(path), limit: self.limits.file_bytes });
            }
            self.count(read as u64)?;
            to.write_all(buffer.get(..read).unwrap_or_default()).map_err(ArchiveError::Io)?;
        }
    }

    /// Counts unpacked bytes.
    fn count(&mut self, bytes: u64) -> Result<(), ArchiveError> {
        self.summary.bytes += bytes;
        if self.summary.bytes > self.limits.total_bytes {
            return Err(ArchiveError::TooLarge(self.limits.total_bytes));
        }
        if self.summary.bytes > RATIO_FLOOR.max(self.packed.saturating_mul(self.limits.ratio)) {
            return Err(ArchiveError::Bomb(self.limits.ratio));
        }
        Ok(())
    }

    pub(super) fn symbolic_link(&mut self, name: &[u8], target: &[u8]) -> Result<(), ArchiveError> {
        let path = self.begin_new(name, Kind::Link)?;
        let target = std::str::from_utf8(target).ok().filter(|target| {
            !target.is_empty() && target.len() <= self.limits.path_bytes && !target.contains(char::is_control)
        });
        let target = target.ok_or_else(|| ArchiveError::BadName(shown(&path)))?;
        self.links.push((path, PathBuf::from(target)));
        Ok(())
    }

    pub(super) fn hard_link(&mut self, name: &[u8], target: &[u8]) -> Result<(), ArchiveError> {
        let path = self.begin_new(name, Kind::File)?;
        let bad = || ArchiveError::BadHardLink { path: shown(&path), target: shown_bytes(target) };
        let target = self.path(target)?.ok_or_else(bad)?;
        if target == path || self.kinds.get(&target) != Some(&Kind::File) {
            return Err(bad());
        }
        // As a file of its own: ownership of a file with two names could be changed through either.
        let mut from = self.root.open_file(&target).map_err(ArchiveError::Io)?;
        let mode = from.metadata().map_err(ArchiveError::Io)?.permissions().mode();
        let mut to = self.root.create_file(&path, mode & 0o777).map_err(ArchiveError::Io)?;
        self.copy(&path, &mut from, &mut to).map_err(|error| match error {
            ArchiveError::Damaged(reason) => ArchiveError::Io(io::Error::other(reason)),
            other => other,
        })
    }

    /// Creates the links, now that nothing else will be written, and checks where they lead.
    pub(super) fn finish(self) -> Result<Summary, ArchiveError> {
        if self.summary.entries == 0 {
            return Err(ArchiveError::Empty);
        }
        for (path, target) in &self.links {
            self.root.create_link(target, path).map_err(ArchiveError::Io)?;
        }
        if !self.limits.links_out {
            for (path, _) in &self.links {
                links::check(self.root, path)?;
            }
        }
        Ok(self.summary)
    }

    /// Counts an entry and reads its path; `None` for the root itself.
    fn begin(&mut self, name: &[u8]) -> Result<Option<PathBuf>, ArchiveError> {
        self.count_entry()?;
        let path = self.path(name)?;
        if let Some(path) = &path {
            self.make_parents(path)?;
        }
        Ok(path)
    }

    fn count_entry(&mut self) -> Result<(), ArchiveError> {
        self.summary.entries += 1;
        if self.summary.entries > self.limits.entries {
            return Err(ArchiveError::TooManyEntries(self.limits.entries));
        }
        Ok(())
    }

    fn begin_new(&mut self, name: &[u8], kind: Kind) -> Result<PathBuf, ArchiveError> {
        let path = self.begin(name)?.ok_or_else(|| ArchiveError::BadName(shown_bytes(name)))?;
        if self.kinds.insert(path.clone(), kind).is_some() {
            return Err(ArchiveError::Duplicate(shown(&path)));
        }
        Ok(path)
    }

    fn path(&self, name: &[u8]) -> Result<Option<PathBuf>, ArchiveError> {
        if name.len() > self.limits.path_bytes {
            return Err(self.too_long(name));
        }
        let text = std::str::from_utf8(name).ok().filter(|_| is_good_name(name));
        let text = text.ok_or_else(|| ArchiveError::BadName(shown_bytes(name)))?;
        if text.starts_with('/') || text.split('/').any(|part| part == "..") {
            return Err(ArchiveError::LeavesFolder(shown_bytes(name)));
        }
        let path: PathBuf = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let deep = path.components().count() > self.limits.depth;
        if deep || path.components().any(|part| part.as_os_str().len() > 255) {
            return Err(self.too_long(name));
        }
        Ok((!path.as_os_str().is_empty()).then_some(path))
    }

    fn too_long(&self, name: &[u8]) -> ArchiveError {
        let (limit, depth) = (self.limits.path_bytes, self.limits.depth);
        ArchiveError::PathTooLong { path: shown_bytes(name.get(..80).unwrap_or(name)), limit, depth }
    }

    fn make_parents(&mut self, path: &Path) -> Result<(), ArchiveError> {
        let mut parents: Vec<&Path> =
            path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).collect();
        parents.reverse();
        for parent in parents {
            match self.kinds.get(parent) {
                Some(Kind::Folder | Kind::ImpliedFolder) => {}
                Some(Kind::File | Kind::Link) => {
                    return Err(ArchiveError::ThroughLink { path: shown(path), parent: shown(parent) });
                }
                None => {
                    // An archive of a few bytes could ask for any number of folders.
                    self.count_entry()?;
                    self.make_folder(parent)?;
                    self.kinds.insert(parent.to_owned(), Kind::ImpliedFolder);
                }
            }
        }
        Ok(())
    }

    fn make_folder(&self, path: &Path) -> Result<(), ArchiveError> {
        self.root.create_dir(path, 0o755).map_err(ArchiveError::Io)
    }
}

/// Whether every system takes these bytes for the same name.
pub(crate) fn is_good_name(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| !name.contains(|letter: char| letter.is_control() || letter == '\\'))
}

pub(crate) fn shown(path: &Path) -> String {
    shown_bytes(path.as_os_str().as_encoded_bytes())
}

/// For an error message: a path may hold anything.
pub(super) fn shown_bytes(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..200).unwrap_or(bytes));
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}
