//! Unpacks archives from untrusted sources.
//!
//! Every entry is judged before anything is written for it, and the order of writing leaves no way out: folders and
//! files first, links last, so that no write ever goes through a link. Each is created beneath the folder's own
//! descriptor. A link whose target leaves the folder, as the file system itself would follow it, is refused. Any error
//! removes all that was written.
//!
//! The functions block; run them on a blocking pool.

mod links;
mod tarball;
#[cfg(test)]
mod tests;
mod writer;
mod zipped;

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
};

use callboard_supervisors::fs;
use serde::{Deserialize, Serialize};

pub use self::links::{LinkError, check_links};
use self::writer::Writer;
pub(crate) use self::writer::{is_good_name, shown};
use crate::folder::{self, Dir};

/// Limits of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Files, folders and links together. Default: 50,000.
    pub entries: u64,
    /// All files unpacked, in bytes. Default: 1 GiB.
    pub total_bytes: u64,
    /// One file unpacked, in bytes. Default: 512 MiB.
    pub file_bytes: u64,
    /// Unpacked bytes per packed byte; checked once 10 MiB are unpacked. Default: 200.
    pub ratio: u64,
    /// A path inside the archive, in bytes. Default: 1,024.
    pub path_bytes: usize,
    /// Folders within folders. Default: 64.
    pub depth: usize,
    /// Whether links may lead out of the folder: for releases, which come from our own builds. Default: false.
    pub links_out: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 50_000,
            total_bytes: 1024 * 1024 * 1024,
            file_bytes: 512 * 1024 * 1024,
            ratio: 200,
            path_bytes: 1_024,
            depth: 64,
            links_out: false,
        }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files, folders and links.
    pub entries: u64,
    /// Of all files together.
    pub bytes: u64,
}

/// Why an archive was refused. Paths are as the archive has them.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Neither gzip nor zip.
    #[error("this is neither a gzip-compressed tar nor a zip archive; upload a .tar.gz or a .zip")]
    UnknownFormat,
    /// Cut off or damaged.
    #[error("the archive is damaged ({0}); pack and upload it again")]
    Damaged(String),
    /// Encrypted, sparse, or compressed by an unsupported method.
    #[error("`{path}` can't be unpacked: {reason}; pack it as a plain .tar.gz or .zip")]
    Unsupported {
        /// The entry.
        path: String,
        /// What is not supported.
        reason: String,
    },
    /// The archive has no entries.
    #[error("the archive is empty; pack the app's folder")]
    Empty,
    /// A path with `..`, or an absolute one.
    #[error("`{0}` leads out of the app's folder; paths in an archive must be relative and without `..`")]
    LeavesFolder(String),
    /// A path with bytes that are no UTF-8, NUL, control characters or backslashes.
    #[error("`{0}` is not a path we can use; use UTF-8 and `/`, without control characters or backslashes")]
    BadName(String),
    /// A path that is too long or too deep.
    #[error("the path `{path}…` is too long; at most {limit} bytes and {depth} folders deep")]
    PathTooLong {
        /// Its beginning.
        path: String,
        /// Allowed bytes.
        limit: usize,
        /// Allowed depth.
        depth: usize,
    },
    /// The same path twice, or a file where a folder is.
    #[error("`{0}` is in the archive twice; each path may be there once")]
    Duplicate(String),
    /// An entry below something that is no folder.
    #[error("`{path}` is inside `{parent}`, which is not a folder; entries may not go through links or files")]
    ThroughLink {
        /// The entry.
        path: String,
        /// The link or file.
        parent: String,
    },
    /// A link out of the folder.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A hard link to something that is not an earlier file of the archive.
    #[error("`{path}` is a hard link to `{target}`, which is no earlier file of this archive; pack the file itself")]
    BadHardLink {
        /// The entry.
        path: String,
        /// Its target.
        target: String,
    },
    /// A device, fifo or socket.
    #[error("`{path}` is a {kind}; an app may hold files, folders and links only")]
    Special {
        /// The entry.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// Too many entries.
    #[error("the archive has more than {0} entries; leave out what the build can fetch, such as node_modules")]
    TooManyEntries(u64),
    /// Too large unpacked.
    #[error("the archive is larger than {} MiB unpacked; leave out what the app does not need", .0 / 1_048_576)]
    TooLarge(u64),
    /// One file is too large.
    #[error("`{path}` is larger than {} MiB; leave it out, or keep it in object storage", .limit / 1_048_576)]
    FileTooLarge {
        /// The entry.
        path: String,
        /// Allowed bytes.
        limit: u64,
    },
    /// Unpacked, it is more than this many times its packed size.
    #[error("the archive unpacks to more than {0} times its size, which only a decompression bomb does")]
    Bomb(u64),
    /// The folder to unpack into is not empty.
    #[error("the folder {0} is not empty")]
    NotEmpty(PathBuf),
    /// Writing to our own disk failed.
    #[error("the archive could not be unpacked: {0}")]
    Io(#[source] io::Error),
}

impl ArchiveError {
    /// Whether the archive is at fault, rather than the disk it is unpacked to.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Io(_) | Self::NotEmpty(_))
    }
}

/// Unpacks the archive (gzip-compressed tar or zip, recognized by its first bytes) into `folder`, which is created if
/// it does not exist and must be empty.
///
/// # Errors
/// See [`ArchiveError`]. Nothing that was written is left then, and a folder that was created is removed.
pub fn unpack(archive: &Path, folder: &Path, limits: &Limits) -> Result<Summary, ArchiveError> {
    let mut file = fs::open(archive).map_err(ArchiveError::Io)?;
    let packed = file.metadata().map_err(ArchiveError::Io)?.len();
    let format = sniff(&mut file).map_err(ArchiveError::Io)?.ok_or(ArchiveError::UnknownFormat)?;

    let made = !fs::exists(folder);
    fs::create_dir_all(folder).map_err(ArchiveError::Io)?;
    let root = Dir::open(folder).map_err(ArchiveError::Io)?;
    if !root.is_empty().map_err(ArchiveError::Io)? {
        return Err(ArchiveError::NotEmpty(folder.to_owned()));
    }
    let mut writer = Writer::new(&root, packed, limits);
    let written = match format {
        Format::Gzip => tarball::unpack(file, &mut writer),
        Format::Zip => zipped::unpack(file, &mut writer),
    };
    let result = written.and_then(|()| writer.finish());
    if result.is_err() {
        let removed = if made { folder::remove(folder) } else { empty(&root) };
        if let Err(error) = removed {
            tracing::warn!(folder = %folder.display(), %error, "removing an unpacked archive failed");
        }
    }
    result
}

fn empty(folder: &Dir) -> io::Result<()> {
    folder.entries()?.try_for_each(|entry| folder.remove(&entry?.name))
}

enum Format {
    Gzip,
    Zip,
}

fn sniff(file: &mut File) -> io::Result<Option<Format>> {
    let mut start = Vec::with_capacity(4);
    file.by_ref().take(4).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(match start.as_slice() {
        [0x1f, 0x8b, ..] => Some(Format::Gzip),
        [b'P', b'K', 3, 4] | [b'P', b'K', 5, 6] => Some(Format::Zip),
        _ => None,
    })
}
