//! Paths through links that stay in the folder.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    path::{Component, Path, PathBuf},
};

use rustix::{fs::FileType, io::Errno};

use super::dir::Dir;

/// Most links on one path; the kernel has the same limit.
const MOST_LINKS: u32 = 40;

/// The result of following a path.
#[derive(Debug)]
pub struct Found {
    /// Its path beneath the folder, without links.
    pub path: PathBuf,
    /// The open file or folder: another may be at the path by now.
    pub what: What,
}

/// A folder or a file.
#[derive(Debug)]
pub enum What {
    /// An open folder.
    Folder(Dir),
    /// An open regular file.
    File(File),
}

impl Dir {
    /// Opens what a path leads to, through links as well; each component of the path, and of the links, must be one
    /// that `admits` accepts. Nothing above the folder is passed on the way, not even to come back.
    ///
    /// # Errors
    /// `EXDEV` when the way leads out, `ENOENT` when a component is not there or not admitted, `ELOOP` when there are too
    /// many links, `EINVAL` when it ends at what is neither a file nor a folder.
    pub fn follow(&self, path: &Path, admits: impl Fn(&OsStr) -> bool) -> io::Result<Found> {
        // Open folders on the way, with their names, and the components still to walk, last one first.
        let mut passed: Vec<(OsString, Dir)> = Vec::new();
        let mut ahead = parts(path);
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            let name = match part {
                Part::Root => return Err(Errno::XDEV.into()),
                Part::Up if passed.pop().is_none() => return Err(Errno::XDEV.into()),
                Part::Up => continue,
                Part::Name(name) if admits(&name) => name,
                Part::Name(_) => return Err(Errno::NOENT.into()),
            };
            let here = passed.last().map_or(self, |(_, dir)| dir);
            let kind = FileType::from_raw_mode(here.stat(&name)?.st_mode);
            if kind.is_symlink() {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP.into());
                }
                ahead.extend(parts(&here.read_link(Path::new(&name))?));
            } else if kind.is_dir() {
                let inner = here.open_dir(Path::new(&name))?;
                passed.push((name, inner));
            } else if !ahead.is_empty() {
                return Err(Errno::NOTDIR.into());
            } else if kind.is_file() {
                let file = here.open_file(Path::new(&name))?;
                let path = passed.iter().map(|(name, _)| name).chain([&name]).collect();
                return Ok(Found { path, what: What::File(file) });
            } else {
                return Err(Errno::INVAL.into());
            }
        }
        let path = passed.iter().map(|(name, _)| name).collect();
        let folder = passed.pop().map_or_else(|| self.open_dir(Path::new("")), |(_, dir)| Ok(dir))?;
        Ok(Found { path, what: What::Folder(folder) })
    }
}

enum Part {
    Root,
    Up,
    Name(OsString),
}

/// The components of a path, last one first.
fn parts(path: &Path) -> Vec<Part> {
    let parts = path.components().filter_map(|part| match part {
        Component::RootDir | Component::Prefix(_) => Some(Part::Root),
        Component::ParentDir => Some(Part::Up),
        Component::CurDir => None,
        Component::Normal(name) => Some(Part::Name(name.to_owned())),
    });
    parts.rev().collect()
}
