//! A release as a file: a tar.gz whose name is its content.
//!
//! The same files give the same bytes: entries are sorted, and times, owners and differences of mode are left out.
//! The identity of a release is the SHA-256 of the tar before compression, so that another version of the compressor
//! does not change it.
//!
//! The files were written by a build, which may have left links and processes. So a child of its own user, with no more
//! rights than the build had, reads them and writes the tar ([`pack()`]); the node takes the tar from a pipe, judges
//! it, names it by its content and stores it.

mod child;
mod receive;
#[cfg(test)]
pub(crate) mod tests;
mod write;

use std::{
    fmt,
    fs::Permissions,
    io::{self, BufReader, BufWriter, Write},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    str::FromStr,
    time::Duration,
};

use callboard_messages::Failure;
use callboard_supervisors::fs;
use flate2::bufread::GzDecoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub(crate) use self::child::{Packing, pack_by_child};
pub use self::write::pack;
use crate::{
    build::archive::{self, ArchiveError, Limits, Summary},
    folder::{Cleaner, Dir},
};

/// Longest path inside a release, in bytes.
const PATH_BYTES: usize = 4_096;
/// Deepest nesting of folders in a release.
const DEPTH: usize = 1_024;

/// The SHA-256 of a release's canonical tar, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentId(String);

impl ContentId {
    /// The id as 64 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(digest: &[u8]) -> Self {
        Self(hex::encode(digest))
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

/// A packed release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The id of its content.
    pub id: ContentId,
    /// Size of the file, in bytes.
    pub packed_bytes: u64,
    /// Size of its files together, in bytes.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

/// Why a release could not be packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The result of the build can't become a release; the sentence says why and what to do.
    #[error("{0}")]
    Refused(String),
    /// Packing took too long.
    #[error("the release was not packed within {} seconds; remove what the app does not need to run", .0.as_secs())]
    TimedOut(Duration),
    /// It was cancelled.
    #[error("packing was cancelled")]
    Cancelled,
    /// The stored file is not the release it was stored as.
    #[error("the stored release is damaged: its content is {found} and should be {expected}; deploy again")]
    Damaged {
        /// The identity it was stored under.
        expected: ContentId,
        /// The identity of its content.
        found: ContentId,
    },
    /// The stored file can't be unpacked.
    #[error("the stored release can't be unpacked: {0}")]
    Archive(#[from] ArchiveError),
    /// Our own disk or processes failed.
    #[error("the release could not be stored or read: {0}")]
    Io(#[from] io::Error),
    /// This node is too busy, or stops.
    #[error("the release could not be packed: {0}")]
    Fault(Failure),
}

/// Unpacks a release into `target`, which must not exist. It appears there whole or not at all.
///
/// # Errors
/// See [`PackageError`]; `Damaged` when the content is not what `expected` says. Blocks.
pub fn unpack(file: &Path, target: &Path, expected: &ContentId) -> Result<Summary, PackageError> {
    let found = content_id(file)?;
    if found != *expected {
        return Err(PackageError::Damaged { expected: expected.clone(), found });
    }
    let parent = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    #[expect(clippy::disallowed_methods, reason = "the folder was made right before, on a thread that may wait")]
    let work = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(parent)?.keep();
    let cleaner = Cleaner::new(&work);
    // The node packed it within limits; its links may lead out, as the app wants.
    let limits = Limits {
        entries: u64::MAX,
        total_bytes: u64::MAX,
        file_bytes: u64::MAX,
        ratio: u64::MAX,
        path_bytes: PATH_BYTES,
        depth: DEPTH,
        links_out: true,
    };
    let summary = match archive::unpack(file, &work, &limits) {
        // An app without files; nothing else makes an empty release.
        Err(ArchiveError::Empty) => Summary::default(),
        other => other?,
    };
    fs::set_permissions(&work, Permissions::from_mode(0o755))?;
    fs::rename(&work, target)?;
    cleaner.keep();
    Ok(summary)
}

/// The identity of the release in a file. Blocks.
///
/// # Errors
/// When the file can't be read or is no gzip.
pub fn content_id(file: &Path) -> io::Result<ContentId> {
    let mut decompressor = GzDecoder::new(BufReader::new(fs::open(file)?));
    let mut hashing = Hashing { inner: io::sink(), digest: Sha256::new() };
    io::copy(&mut decompressor, &mut hashing)?;
    Ok(ContentId::of(&hashing.digest.finalize()))
}

/// The identity of what a folder holds, as a release of all of it would have; nothing else may write in it. Blocks.
///
/// # Errors
/// When it holds what no release can hold, or can't be read.
pub(crate) fn content_of(folder: &Dir) -> io::Result<String> {
    let hashing = BufWriter::with_capacity(256 * 1024, Hashing { inner: io::sink(), digest: Sha256::new() });
    let written = write::write(folder, Path::new(""), None, hashing).map_err(io::Error::other)?;
    let hashing = written.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(ContentId::of(&hashing.digest.finalize()).0)
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
