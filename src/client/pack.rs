//! Packs a folder as tar.gz: what [`listing`] finds in it.
//!
//! Times and owners are left out, so that the same files always make the same archive.

mod git;
mod ignored;
mod listing;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use tempfile::NamedTempFile;

use crate::error::{Context, Error, Result};

/// A packed folder; its file is gone when this is dropped.
#[derive(Debug)]
pub struct Packed {
    /// The archive.
    pub file: NamedTempFile,
    /// Its size in bytes.
    pub size: u64,
    /// How many files are in it.
    pub files: usize,
    /// What its owner should know, in a sentence each.
    pub notes: Vec<String>,
}

/// Packs `folder`.
pub fn pack(folder: &Path) -> Result<Packed> {
    if !folder.is_dir() {
        let folder = folder.display();
        return Err(Error::usage(format!("{folder} is not a folder"))
            .hint("give the app's folder, or the https:// URL of a git repository"));
    }
    let file = NamedTempFile::new().context(|| "make a temporary file".to_owned())?;
    let encoder = GzEncoder::new(BufWriter::new(file.as_file()), Compression::fast());
    let mut archive = tar::Builder::new(encoder);
    let mut files = 0;
    let listing = listing::list(folder)?;
    for name in &listing.paths {
        let path = folder.join(name);
        let kind = fs::symlink_metadata(&path).map(|metadata| metadata.file_type());
        let packed = kind.and_then(|kind| append(&mut archive, &path, name, kind).map(|()| kind));
        files += usize::from(!packed.context(|| format!("pack {}", path.display()))?.is_dir());
    }
    if files == 0 {
        return Err(Error::usage(format!("there is nothing to deploy in {}", folder.display()))
            .hint("files that git ignores or .callboardignore names are left out"));
    }
    let finish = || -> std::io::Result<u64> {
        archive.into_inner()?.finish()?.flush()?;
        Ok(file.as_file().metadata()?.len())
    };
    let size = finish().context(|| "write the archive".to_owned())?;
    Ok(Packed { file, size, files, notes: listing.notes })
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &Path,
    name: &Path,
    kind: fs::FileType,
) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    if kind.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        return archive.append_link(&mut header, name, fs::read_link(path)?);
    }
    if kind.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        return archive.append_data(&mut header, name, std::io::empty());
    }
    if !kind.is_file() {
        return Err(std::io::Error::other("it is neither a file, a folder nor a link; name it in .callboardignore"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let executable = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(if executable { 0o755 } else { 0o644 });
    header.set_size(metadata.len());
    // A file that grows meanwhile would run over into the next entry.
    archive.append_data(&mut header, name, std::io::Read::take(file, metadata.len()))
}

/// The app's name a folder or a repository suggests: lower case, `-` for anything else, beginning with a letter.
pub fn app_name(text: &str) -> String {
    let mut name = String::new();
    for character in text.trim_end_matches(".git").to_lowercase().chars() {
        if character.is_ascii_lowercase() || (character.is_ascii_digit() && !name.is_empty()) {
            name.push(character);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(40);
    name.trim_end_matches('-').to_owned()
}

/// The app's name that this folder suggests.
pub fn folder_name(folder: &Path) -> Result<String> {
    let full: PathBuf = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let name = full.file_name().map(|name| app_name(&name.to_string_lossy())).unwrap_or_default();
    if name.is_empty() {
        return Err(Error::usage("the folder's name is no name for an app").hint("say one with --app NAME"));
    }
    Ok(name)
}
