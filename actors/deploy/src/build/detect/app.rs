//! The app's folder, as far as detection reads it.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use rustix::fs::FileType;
use sha2::{Digest as _, Sha256};

use super::DetectError;
use crate::folder::{Dir, Found, What};

/// Folders in which no file of the app itself is looked for.
const FOREIGN: [&str; 8] =
    ["node_modules", "__pycache__", "__MACOSX", "venv", "env", "site-packages", "vendor", "target"];

/// A folder of the source. Its links may lead anywhere in the source, but not out of it.
#[derive(Clone)]
pub(super) struct App {
    source: Arc<Dir>,
    pub(super) root: PathBuf,
}

impl App {
    /// The largest file that is read whole.
    const MAXIMUM: u64 = 1024 * 1024;
    /// The largest lock file: only its digest is kept.
    const LOCK_MAXIMUM: u64 = 64 * 1024 * 1024;
    /// Bytes of a source file that detection reads.
    const GLANCE: u64 = 256 * 1024;

    pub(super) fn new(source: Arc<Dir>, root: PathBuf) -> Self {
        Self { source, root }
    }

    /// Another folder of the same source.
    pub(super) fn at(&self, root: &Path) -> Self {
        Self { source: self.source.clone(), root: root.to_owned() }
    }

    fn find(&self, name: impl AsRef<Path>) -> Option<Found> {
        self.source.follow(&self.root.join(name), |_| true).ok()
    }

    fn file(&self, name: impl AsRef<Path>) -> Option<File> {
        match self.find(name)?.what {
            What::File(file) => Some(file),
            What::Folder(_) => None,
        }
    }

    pub(super) fn has(&self, name: impl AsRef<Path>) -> bool {
        self.file(name).is_some()
    }

    pub(super) fn has_folder(&self, name: impl AsRef<Path>) -> bool {
        matches!(self.find(name), Some(Found { what: What::Folder(_), .. }))
    }

    /// The first of these files that is there.
    pub(super) fn first<'name>(&self, names: &[&'name str]) -> Option<&'name str> {
        names.iter().copied().find(|name| self.has(name))
    }

    /// The whole text of a file; nothing when it is not there.
    pub(super) fn read(&self, name: impl AsRef<Path>) -> Result<Option<String>, DetectError> {
        let name = name.as_ref();
        let Some(file) = self.file(name) else { return Ok(None) };
        let bad = |reason: &str| DetectError::bad(name.display().to_string(), reason);
        let mut bytes = Vec::new();
        file.take(Self::MAXIMUM + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > Self::MAXIMUM {
            return Err(bad("it is larger than 1 MiB"));
        }
        let text = String::from_utf8(bytes).map_err(|_| bad("it is not UTF-8 text"))?;
        Ok(Some(text.trim_start_matches('\u{feff}').to_owned()))
    }

    /// The beginning of a source file, whatever bytes it holds; nothing when it can't be read.
    pub(super) fn glance(&self, name: impl AsRef<Path>) -> Option<String> {
        let mut bytes = Vec::new();
        self.file(name)?.take(Self::GLANCE).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The SHA-256 of a file; nothing when it is not there.
    pub(super) fn digest(&self, name: impl AsRef<Path>) -> Result<Option<String>, DetectError> {
        let Some(file) = self.file(name) else { return Ok(None) };
        let mut digest = Sha256::new();
        let mut file = file.take(Self::LOCK_MAXIMUM);
        let mut part = vec![0; 64 * 1024];
        loop {
            let read = file.read(&mut part)?;
            match part.get(..read) {
                Some([]) | None => return Ok(Some(hex::encode(digest.finalize()))),
                Some(bytes) => digest.update(bytes),
            }
        }
    }

    /// Names in a folder of the app, sorted, without hidden ones; of what is there only.
    pub(super) fn names(&self, folder: impl AsRef<Path>) -> Vec<String> {
        match self.find(folder) {
            Some(Found { what: What::Folder(dir), .. }) => visible(&dir).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// Folders in a folder of the app, without those that hold others' code.
    pub(super) fn folders(&self, folder: impl AsRef<Path>) -> Vec<PathBuf> {
        let folder = folder.as_ref();
        let names = self.names(folder).into_iter().filter(|name| !FOREIGN.contains(&name.as_str()));
        names.map(|name| folder.join(name)).filter(|path| self.has_folder(path)).collect()
    }

    /// Names of folders in a folder of the app, as [`Self::folders`] has them, but without links.
    pub(super) fn own_folders(&self, folder: impl AsRef<Path>) -> Vec<String> {
        let Some(Found { what: What::Folder(dir), .. }) = self.find(folder) else { return Vec::new() };
        let Ok(entries) = dir.entries() else { return Vec::new() };
        let folders = entries.filter_map(Result::ok).filter(|entry| entry.kind == FileType::Directory);
        let mut names: Vec<String> = folders.map(|entry| entry.name.to_string_lossy().into_owned()).collect();
        names.retain(|name| !name.starts_with('.') && !FOREIGN.contains(&name.as_str()));
        names.sort();
        names
    }

    pub(super) fn shown(&self) -> String {
        if self.root.as_os_str().is_empty() { "the source".to_owned() } else { format!("`{}`", self.root.display()) }
    }

    pub(super) fn listing(&self) -> String {
        let mut names = self.names("");
        if names.is_empty() {
            return "no files".to_owned();
        }
        let more = names.len().saturating_sub(15);
        names.truncate(15);
        names.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
    }

    /// The folder that the owner names, as a path of the source without links.
    pub(super) fn chosen(&self, root: &str) -> Result<PathBuf, DetectError> {
        let bad = |reason: &str| DetectError::BadConfig(format!("the root folder `{root}` {reason}"));
        let clean = relative(root).ok_or_else(|| bad("must be relative and without `..`"))?;
        match self.source.follow(&self.root.join(clean), |_| true) {
            Ok(Found { path, what: What::Folder(_) }) => Ok(path),
            Ok(Found { what: What::File(_), .. }) => Err(bad("is not a folder")),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Err(bad("is a link out of the source")),
            Err(_) => Err(bad("is not in the source")),
        }
    }

    /// The only folder of the source, if that is all it has and the app is in it.
    pub(super) fn implied(&self) -> Option<String> {
        let names = self.names("");
        let [only] = names.as_slice() else { return None };
        (!matches!(only.as_str(), "public" | "dist") && self.has_folder(only) && !self.has(super::file::NAME))
            .then(|| only.clone())
    }
}

/// A relative path without `..`, cleaned; nothing if it is another.
pub(super) fn relative(path: &str) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!path.contains('\0')).then_some(clean)
}

/// Names in a folder, sorted, without hidden files and what macOS adds to archives.
fn visible(folder: &Dir) -> io::Result<Vec<String>> {
    let names = folder.entries()?.map(|entry| Ok(entry?.name.to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.retain(|name| !name.starts_with('.') && name != "__MACOSX");
    names.sort();
    Ok(names)
}
