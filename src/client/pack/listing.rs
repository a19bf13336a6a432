//! What of a folder is sent.
//!
//! In a work tree git itself is asked: what it tracks, and what it does not track and does not ignore, since a folder is
//! often deployed before it is committed. Submodules that are checked out, and other repositories within, are asked in
//! their turn. Elsewhere it is all of the folder but what its `.gitignore` files name. `.callboardignore` takes away from
//! either, and `.git` is never sent. Whatever is tracked and not sent is named.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    git::{self, Standing},
    ignored::Ignored,
};
use crate::error::{Context, Result};

/// Names in a sentence; of the others it says how many there are.
const NAMED: usize = 5;

/// The paths to send, relative to the folder, with the folders they are in; and what its owner should know.
#[derive(Debug)]
pub struct Listing {
    pub paths: BTreeSet<PathBuf>,
    pub notes: Vec<String>,
}

/// Lists `folder`.
pub fn list(folder: &Path) -> Result<Listing> {
    let mut lister = Lister {
        root: folder,
        left_out: Ignored::new(folder, ".callboardignore"),
        paths: BTreeSet::new(),
        folders: BTreeSet::new(),
        missing: BTreeSet::new(),
        not_checked_out: BTreeSet::new(),
        environments: BTreeSet::new(),
        notes: Vec::new(),
    };
    lister.list(Path::new(""), git::standing(folder))?;
    Ok(lister.finish())
}

struct Lister<'a> {
    root: &'a Path,
    left_out: Ignored,
    paths: BTreeSet<PathBuf>,
    /// Real folders, all the way from the root.
    folders: BTreeSet<PathBuf>,
    missing: BTreeSet<PathBuf>,
    not_checked_out: BTreeSet<PathBuf>,
    /// Virtual environments of Python, which work nowhere but where they were made.
    environments: BTreeSet<PathBuf>,
    notes: Vec<String>,
}

impl Lister<'_> {
    fn list(&mut self, folder: &Path, standing: Standing) -> Result {
        const SENT: &str = "so all of it is sent but what its own .gitignore and .callboardignore name";
        let shown = match folder.as_os_str().is_empty() {
            true => "this folder".to_owned(),
            false => format!("`{}`", folder.display()),
        };
        match standing {
            Standing::Top | Standing::Inside => return self.work_tree(folder),
            Standing::Outside => {}
            Standing::LeftOut => self.notes.push(format!("git ignores {shown}, {SENT}")),
            Standing::Unknown(reason) => self.notes.push(format!("git says nothing of {shown} ({reason}), {SENT}")),
        }
        self.walk(folder)
    }

    fn work_tree(&mut self, folder: &Path) -> Result {
        let here = self.root.join(folder);
        for entry in git::tracked(&here)? {
            let path = folder.join(entry.path);
            if self.left_out.names(&path, entry.is_repository)? {
                continue;
            }
            if entry.is_repository {
                self.submodule(&path)?;
            } else if self.is_there(&path) {
                self.add(path);
            } else {
                self.missing.insert(path);
            }
        }
        for entry in git::untracked(&here)? {
            let path = folder.join(entry.path);
            if self.left_out.names(&path, entry.is_repository)? {
                continue;
            }
            if entry.is_repository {
                let shown = path.display();
                self.notes.push(format!("`{shown}` is a repository of its own: what git tracks there is sent too"));
                self.repository(&path)?;
            } else if !self.is_in_environment(&path) {
                self.add(path);
            }
        }
        Ok(())
    }

    fn submodule(&mut self, path: &Path) -> Result {
        let is_empty = fs::read_dir(self.root.join(path)).map_or(true, |mut entries| entries.next().is_none());
        if is_empty || !self.is_real_folder(path) {
            self.not_checked_out.insert(path.to_owned());
            return Ok(());
        }
        self.repository(path)
    }

    /// A repository within another. Where it is none by itself git would speak of the one around it.
    fn repository(&mut self, path: &Path) -> Result {
        let standing = match git::standing(&self.root.join(path)) {
            Standing::Inside | Standing::LeftOut => Standing::Outside,
            standing => standing,
        };
        self.list(path, standing)
    }

    /// All of a folder but what its `.gitignore` files name.
    fn walk(&mut self, top: &Path) -> Result {
        let mut ignored = Ignored::new(&self.root.join(top), ".gitignore");
        let mut folders = vec![PathBuf::new()];
        while let Some(below) = folders.pop() {
            let folder = self.root.join(top).join(&below);
            let entries = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            for entry in entries.context(|| format!("read {}", folder.display()))? {
                let below = below.join(entry.file_name());
                let path = top.join(&below);
                let is_folder = entry.file_type().context(|| format!("read {}", entry.path().display()))?.is_dir();
                if entry.file_name() == ".git"
                    || ignored.names(&below, is_folder)?
                    || self.left_out.names(&path, is_folder)?
                {
                    continue;
                }
                if is_folder && self.is_environment(&path) {
                    continue;
                }
                if is_folder {
                    folders.push(below);
                }
                self.add(path);
            }
        }
        Ok(())
    }

    /// Whether a folder of the app is a virtual environment, which Python marks with a file.
    fn is_environment(&mut self, folder: &Path) -> bool {
        let is_one = self.environments.contains(folder)
            || fs::symlink_metadata(self.root.join(folder).join("pyvenv.cfg")).is_ok_and(|mark| mark.is_file());
        if is_one {
            self.environments.insert(folder.to_owned());
        }
        is_one
    }

    fn is_in_environment(&mut self, path: &Path) -> bool {
        let above = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        above.into_iter().any(|folder| self.is_environment(folder))
    }

    fn add(&mut self, path: PathBuf) {
        let parents = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
        self.paths.extend(parents.map(Path::to_owned));
        self.paths.insert(path);
    }

    /// Whether a file or a link is where git has one.
    fn is_there(&mut self, path: &Path) -> bool {
        let is_file = fs::symlink_metadata(self.root.join(path)).is_ok_and(|metadata| !metadata.is_dir());
        is_file && path.parent().is_none_or(|parent| self.is_real_folder(parent))
    }

    /// Whether no link leads there: what is behind a link is not git's.
    fn is_real_folder(&mut self, folder: &Path) -> bool {
        if folder.as_os_str().is_empty() || self.folders.contains(folder) {
            return true;
        }
        let is_folder = fs::symlink_metadata(self.root.join(folder)).is_ok_and(|metadata| metadata.is_dir());
        let is_real = is_folder && folder.parent().is_none_or(|parent| self.is_real_folder(parent));
        if is_real {
            self.folders.insert(folder.to_owned());
        }
        is_real
    }

    fn finish(mut self) -> Listing {
        if !self.missing.is_empty() {
            let (count, names) = named(&self.missing);
            self.notes.push(format!("{count} that git tracks are not in the folder, so they are not sent: {names}"));
        }
        if !self.environments.is_empty() {
            let (_, names) = named(&self.environments);
            self.notes.push(format!(
                "virtual environments of Python are not sent: {names}; the build installs what your requirements name"
            ));
        }
        if !self.not_checked_out.is_empty() {
            let (_, names) = named(&self.not_checked_out);
            self.notes.push(format!(
                "submodules that are not checked out are not sent: {names}; check them out with: git submodule update \
                 --init --recursive"
            ));
        }
        Listing { paths: self.paths, notes: self.notes }
    }
}

/// `3 files` and their names.
fn named(paths: &BTreeSet<PathBuf>) -> (String, String) {
    let mut names: Vec<String> = paths.iter().take(NAMED).map(|path| path.display().to_string()).collect();
    let count = paths.len();
    if count > NAMED {
        names.push(format!("and {} more", count - NAMED));
    }
    (if count == 1 { "1 file".to_owned() } else { format!("{count} files") }, names.join(", "))
}
