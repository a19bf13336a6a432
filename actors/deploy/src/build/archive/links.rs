//! Where a symbolic link leads.
//!
//! Counting `..` in the text of a link is not enough: `a/b/../..` means one thing when `b` is a folder and another when
//! it is a link. So each link is followed as the file system would follow it, one component at a time, and must at no
//! point be above the folder.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use crate::folder::Dir;

/// Why a link was refused.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It leads out of the folder.
    #[error("`{path}` is a link to `{target}`, which leads out of the app's folder; link to files of the app only")]
    LeavesFolder {
        /// The link, relative to the folder.
        path: String,
        /// Its target as written.
        target: String,
    },
    /// It leads to itself, or through too many links.
    #[error("`{path}` is a link to `{target}`, which never arrives; remove it")]
    Loop {
        /// The link, relative to the folder.
        path: String,
        /// Its text.
        target: String,
    },
    /// Reading the folder failed.
    #[error("the links of the app could not be checked: {0}")]
    Io(#[from] io::Error),
}

const MAXIMUM_HOPS: usize = 40;

/// Refuses any symbolic link below `root` that leads out of it. A link to nothing is fine.
///
/// # Errors
/// See [`LinkError`].
pub fn check_links(root: &Path) -> Result<(), LinkError> {
    let root = Dir::open(root)?;
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in root.open_dir(&folder)?.entries()? {
            let entry = entry?;
            let path = folder.join(entry.name);
            if entry.kind.is_symlink() {
                check(&root, &path)?;
            } else if entry.kind.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(())
}

/// Refuses the link at `path`, relative to `root`, if it leads out.
pub(super) fn check(root: &Dir, path: &Path) -> Result<(), LinkError> {
    let target = root.read_link(path)?;
    let told = || (path.display().to_string(), target.display().to_string());
    // The components still to walk, last one first, and the current position, relative to root.
    let mut ahead = components(&target);
    let mut place: Vec<std::ffi::OsString> =
        path.parent().into_iter().flat_map(Path::components).map(|part| part.as_os_str().to_owned()).collect();
    let mut hops = 0;
    while let Some(part) = ahead.pop() {
        match part {
            Part::Root => {
                let (path, target) = told();
                return Err(LinkError::LeavesFolder { path, target });
            }
            Part::Up => {
                if place.pop().is_none() {
                    let (path, target) = told();
                    return Err(LinkError::LeavesFolder { path, target });
                }
            }
            Part::Name(name) => {
                place.push(name);
                let Ok(next) = root.read_link(&place.iter().collect::<PathBuf>()) else { continue };
                hops += 1;
                if hops > MAXIMUM_HOPS {
                    let (path, target) = told();
                    return Err(LinkError::Loop { path, target });
                }
                place.pop();
                ahead.extend(components(&next));
            }
        }
    }
    Ok(())
}

enum Part {
    Root,
    Up,
    Name(std::ffi::OsString),
}

fn components(path: &Path) -> Vec<Part> {
    let parts = path.components().filter_map(|part| match part {
        Component::RootDir | Component::Prefix(_) => Some(Part::Root),
        Component::ParentDir => Some(Part::Up),
        Component::CurDir => None,
        Component::Normal(name) => Some(Part::Name(name.to_owned())),
    });
    parts.rev().collect()
}
