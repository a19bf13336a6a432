//! A release as a file: a tar.gz whose name is its content.
//!
//! The same files give the same bytes: entries are sorted, and times, owners and differences of mode are left out.
//! The identity of a release is the SHA-256 of the tar before compression, so that another version of the compressor
//! does not change it.
//!
//! The functions block; run them on a blocking pool.

use std::{
    fmt,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use flate2::{Compression, GzBuilder, bufread::GzDecoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::{
    archive::{self, ArchiveError, Limits, Summary},
    folder::Cleaner,
};

/// The SHA-256 of a release's canonical tar, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentId(String);

impl ContentId {
    /// 64 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(digest: &[u8]) -> Self {
        Self(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContentId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let good = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        good.then(|| Self(text.to_owned())).ok_or_else(|| "not 64 hexadecimal digits".to_owned())
    }
}

impl TryFrom<String> for ContentId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ContentId> for String {
    fn from(id: ContentId) -> Self {
        id.0
    }
}

/// A release that was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Of its content.
    pub id: ContentId,
    /// Of the file, in bytes.
    pub packed_bytes: u64,
    /// Of its files together, in bytes.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

/// Why a release could not be packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A file of the app that no archive can hold.
    #[error("`{0}` is a device, pipe or socket, which a release can't hold; let the build remove it")]
    Special(String),
    /// The stored file is not the release it was stored as.
    #[error("the stored release is damaged: its content is {found} and should be {expected}; deploy again")]
    Damaged {
        /// The identity it was stored under.
        expected: ContentId,
        /// What it is.
        found: ContentId,
    },
    /// The stored file can't be unpacked.
    #[error("the stored release can't be unpacked: {0}")]
    Archive(#[from] ArchiveError),
    /// Our own disk.
    #[error("the release could not be stored or read: {0}")]
    Io(#[from] io::Error),
}

/// Packs `folder` into the new file `target`. What is named `.git` at its top is left out.
///
/// # Errors
/// See [`PackageError`]. Then there is no file.
pub fn pack(folder: &Path, target: &Path) -> Result<Packed, PackageError> {
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    // A crash leaves a file with another name, never half a release.
    let file = tempfile::NamedTempFile::new_in(parent)?;
    let compressor = GzBuilder::new().mtime(0).write(BufWriter::new(file.as_file().try_clone()?), Compression::fast());
    let mut builder = Builder::new(Hashing { inner: compressor, digest: Sha256::new() });
    let mut packed = Packed { id: ContentId(String::new()), packed_bytes: 0, bytes: 0, entries: 0 };
    append(&mut builder, folder, Path::new(""), &mut packed)?;
    let hashing = builder.into_inner()?;
    packed.id = ContentId::of(&hashing.digest.finalize());
    hashing.inner.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.as_file().sync_all()?;
    packed.packed_bytes = file.as_file().metadata()?.len();
    file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
    file.persist(target).map_err(|error| error.error)?;
    Ok(packed)
}

fn append<W: Write>(to: &mut Builder<W>, root: &Path, inner: &Path, packed: &mut Packed) -> Result<(), PackageError> {
    let mut names: Vec<PathBuf> =
        fs::read_dir(root.join(inner))?.map(|entry| Ok(inner.join(entry?.file_name()))).collect::<io::Result<_>>()?;
    names.sort();
    for path in names {
        if path == Path::new(".git") {
            continue;
        }
        let source = root.join(&path);
        let metadata = fs::symlink_metadata(&source)?;
        packed.entries += 1;
        let mut header = Header::new_gnu();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mode(0o755);
        if metadata.is_dir() {
            header.set_entry_type(EntryType::Directory);
            to.append_data(&mut header, &path, io::empty())?;
            append(to, root, &path, packed)?;
        } else if metadata.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            to.append_link(&mut header, &path, fs::read_link(&source)?)?;
        } else if metadata.is_file() {
            header.set_entry_type(EntryType::Regular);
            header.set_mode(if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 });
            header.set_size(metadata.len());
            packed.bytes += metadata.len();
            // Never more than was announced, should something still write to it.
            let file = File::open(&source)?.take(metadata.len());
            to.append_data(&mut header, &path, file)?;
        } else {
            return Err(PackageError::Special(path.display().to_string()));
        }
    }
    Ok(())
}

/// Unpacks a release into `target`, which must not be there. It appears there whole or not at all.
///
/// # Errors
/// See [`PackageError`]; `Damaged` when the content is not what `expected` says.
pub fn unpack(file: &Path, target: &Path, expected: &ContentId) -> Result<Summary, PackageError> {
    let found = content_id(file)?;
    if found != *expected {
        return Err(PackageError::Damaged { expected: expected.clone(), found });
    }
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let work = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(parent)?.keep();
    let cleaner = Cleaner::new(&work);
    // Our own build made it and its limits were held then; its links may lead where the app wants.
    let limits = Limits {
        entries: u64::MAX,
        total_bytes: u64::MAX,
        file_bytes: u64::MAX,
        ratio: u64::MAX,
        path_bytes: 4_096,
        depth: 1_024,
        links_out: true,
    };
    let summary = match archive::unpack(file, &work, &limits) {
        // An app of no files at all; nothing else makes an empty release.
        Err(ArchiveError::Empty) => Summary::default(),
        other => other?,
    };
    fs::set_permissions(&work, fs::Permissions::from_mode(0o755))?;
    fs::rename(&work, target)?;
    cleaner.keep();
    Ok(summary)
}

/// The identity of the release in a file.
///
/// # Errors
/// When the file can't be read or is no gzip.
pub fn content_id(file: &Path) -> io::Result<ContentId> {
    let mut decompressor = GzDecoder::new(BufReader::new(File::open(file)?));
    let mut hashing = Hashing { inner: io::sink(), digest: Sha256::new() };
    io::copy(&mut decompressor, &mut hashing)?;
    Ok(ContentId::of(&hashing.digest.finalize()))
}

struct Hashing<W> {
    inner: W,
    digest: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn app(folder: &Path) {
        fs::create_dir_all(folder.join("b/c")).unwrap();
        fs::create_dir_all(folder.join(".git")).unwrap();
        fs::write(folder.join("b/c").join("long-".repeat(40)), "deep").unwrap();
        fs::write(folder.join("run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(folder.join("run"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("/usr/bin/python3", folder.join("python")).unwrap();
        symlink("b/c", folder.join("a")).unwrap();
    }

    #[test]
    fn the_same_files_make_the_same_release() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("1"), folder.path().join("2"));
        app(&one);
        app(&two);
        fs::write(two.join(".git/config"), "differs").unwrap();
        let first = pack(&one, &folder.path().join("1.tar.gz")).unwrap();
        let second = pack(&two, &folder.path().join("2.tar.gz")).unwrap();
        assert_eq!(first, second);
        assert_eq!(
            fs::read(folder.path().join("1.tar.gz")).unwrap(),
            fs::read(folder.path().join("2.tar.gz")).unwrap()
        );
        assert_eq!(first.entries, 6);
        fs::write(two.join("run"), "#!/bin/dash").unwrap();
        assert_ne!(pack(&two, &folder.path().join("2.tar.gz")).unwrap().id, first.id);
    }

    #[test]
    fn a_release_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("release.tar.gz");
        app(&folder.path().join("app"));
        let packed = pack(&folder.path().join("app"), &file).unwrap();
        let target = folder.path().join("releases/x");
        assert_eq!(unpack(&file, &target, &packed.id).unwrap().bytes, packed.bytes);
        assert_eq!(fs::read_link(target.join("python")).unwrap(), Path::new("/usr/bin/python3"));
        assert_eq!(fs::read_to_string(target.join("a").join("long-".repeat(40))).unwrap(), "deep");
        assert_eq!(fs::metadata(target.join("run")).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(pack(&target, &folder.path().join("again")).unwrap().id, packed.id);
        assert_eq!(fs::read_dir(folder.path().join("releases")).unwrap().count(), 1, "no work in progress is left");
    }

    #[test]
    fn a_damaged_release_is_not_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("release.tar.gz");
        app(&folder.path().join("app"));
        pack(&folder.path().join("app"), &file).unwrap();
        let other: ContentId = "0".repeat(64).parse().unwrap();
        let error = unpack(&file, &folder.path().join("out"), &other).unwrap_err();
        assert!(matches!(error, PackageError::Damaged { .. }));
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        assert!(unpack(&file, &folder.path().join("out"), &other).is_err());
        assert!(!folder.path().join("out").exists());
    }

    #[test]
    fn sockets_and_pipes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("app")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("app/s")).unwrap();
        let error = pack(&folder.path().join("app"), &folder.path().join("out")).unwrap_err();
        assert!(matches!(error, PackageError::Special(_)));
        assert!(!folder.path().join("out").exists());
    }
}
