//! Packs a folder as tar.gz: what git would track, less what `.callboardignore` names, and never `.git`.
//!
//! Times and owners are left out, so that the same files always make the same archive.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use ignore::WalkBuilder;
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
    for entry in walk(folder) {
        let entry = entry.context(|| format!("read {}", folder.display()))?;
        let Some(kind) = entry.file_type().filter(|_| entry.depth() > 0) else { continue };
        let name = entry.path().strip_prefix(folder).unwrap_or(entry.path()).to_path_buf();
        append(&mut archive, entry.path(), &name, kind).context(|| format!("pack {}", entry.path().display()))?;
        files += usize::from(!kind.is_dir());
    }
    if files == 0 {
        return Err(Error::usage(format!("there is nothing to deploy in {}", folder.display()))
            .hint("files that .gitignore or .callboardignore name are left out"));
    }
    let finish = || -> std::io::Result<u64> {
        archive.into_inner()?.finish()?.flush()?;
        Ok(file.as_file().metadata()?.len())
    };
    let size = finish().context(|| "write the archive".to_owned())?;
    Ok(Packed { file, size, files })
}

fn walk(folder: &Path) -> ignore::Walk {
    WalkBuilder::new(folder)
        .hidden(false)
        .git_global(false)
        .require_git(false)
        .add_custom_ignore_filename(".callboardignore")
        .sort_by_file_name(Ord::cmp)
        .filter_entry(|entry| entry.file_name() != ".git")
        .build()
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &Path,
    name: &Path,
    kind: std::fs::FileType,
) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    if kind.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        return archive.append_link(&mut header, name, std::fs::read_link(path)?);
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, io::Read};

    use super::*;

    fn names(packed: &Packed) -> BTreeSet<String> {
        let file = File::open(packed.file.path()).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn ignored_files_and_git_stay_at_home() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join(".git")).unwrap();
        fs::create_dir_all(root.join("node_modules/x")).unwrap();
        for (name, text) in [
            (".git/config", ""),
            (".gitignore", "node_modules/\n*.log\n"),
            (".callboardignore", "notes.txt\n"),
            ("node_modules/x/index.js", ""),
            ("a.log", ""),
            ("notes.txt", ""),
            (".env.example", ""),
            ("index.html", "hello"),
        ] {
            fs::write(root.join(name), text).unwrap();
        }
        let packed = pack(root).unwrap();
        let expected = [".callboardignore", ".env.example", ".gitignore", "index.html"];
        assert_eq!(names(&packed), expected.map(str::to_owned).into());
        assert_eq!(packed.files, 4);
    }

    #[test]
    fn the_same_files_make_the_same_archive() {
        let bytes = || {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("b"), "2").unwrap();
            fs::write(folder.path().join("a"), "1").unwrap();
            let mut bytes = Vec::new();
            File::open(pack(folder.path()).unwrap().file.path()).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn an_empty_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(pack(folder.path()).unwrap_err().sentence.starts_with("there is nothing to deploy"));
        assert!(pack(&folder.path().join("none")).unwrap_err().sentence.ends_with("is not a folder"));
    }

    #[test]
    fn a_folder_suggests_a_name_that_is_a_host_name() {
        assert_eq!(app_name("My Shop_2.0"), "my-shop-2-0");
        assert_eq!(app_name("2048.git"), "");
        assert_eq!(app_name("api.git"), "api");
        assert_eq!(app_name("-x-"), "x");
    }
}
