//! The trusted side of packing: takes a tar from a pipe, judges it, and makes a release's file of it.

use std::{
    fs::{File, Permissions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use callboard_supervisors::fs;
use flate2::{Compression, GzBuilder, write::GzEncoder};
use sha2::{Digest as _, Sha256};
use tar::{Archive, EntryType};
use tempfile::NamedTempFile;

use super::{ContentId, Hashing, PATH_BYTES, PackageError, Packed};
use crate::{
    build::executor::{BuildLimits, too_large},
    folder::Size,
};

/// The block size of a tar. The last two blocks are empty.
const BLOCK: u64 = 512;
/// Largest overhead of an entry in a tar: its header, and those of a long name and of a long target, with their
/// padding.
const OVERHEAD: u64 = 4 * BLOCK + 2 * (PATH_BYTES as u64 + BLOCK);

/// Why no release was made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    /// It exceeds the limits of a build.
    #[error("{0}")]
    TooLarge(String),
    /// It is not the tar of a packing child that ended well.
    #[error("what was packed is incomplete ({0}); deploy again")]
    Malformed(String),
    /// Our own disk failed.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// A release in a temporary file, removed when this is dropped.
#[derive(Debug)]
pub(super) struct Received {
    file: NamedTempFile,
    packed: Packed,
}

impl Received {
    /// Moves the release to `target`. A crash leaves a file with another name there, never half a release.
    pub(super) fn keep(self, target: &Path) -> Result<Packed, PackageError> {
        self.file.persist(target).map_err(|error| error.error)?;
        Ok(self.packed)
    }
}

/// Receives a tar as a release, in a file in `folder`. Blocks.
pub(super) fn receive(from: impl Read, folder: &Path, limits: &BuildLimits) -> Result<Received, ReceiveError> {
    fs::create_dir_all(folder)?;
    #[expect(clippy::disallowed_methods, reason = "the folder was made right before, on a thread that may wait")]
    let file = NamedTempFile::new_in(folder)?;
    let compressor = GzBuilder::new().mtime(0).write(BufWriter::new(file.as_file().try_clone()?), Compression::fast());
    let most = limits.entries.saturating_mul(OVERHEAD).saturating_add(limits.size).saturating_add(2 * BLOCK);
    let to = Hashing { inner: compressor, digest: Sha256::new() };
    let mut passing = Passing { from: from.take(most), to, failed: None };
    let counted = count(&mut passing, limits);
    if let Some(error) = passing.failed {
        return Err(error.into());
    }
    let size = counted?;
    let id = ContentId::of(&passing.to.digest.finalize());
    passing.to.inner.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.as_file().sync_all()?;
    file.as_file().set_permissions(Permissions::from_mode(0o600))?;
    let packed_bytes = file.as_file().metadata()?.len();
    Ok(Received { file, packed: Packed { id, packed_bytes, bytes: size.bytes, entries: size.entries } })
}

/// Reads the tar to its end, and counts.
fn count(tar: &mut impl Read, limits: &BuildLimits) -> Result<Size, ReceiveError> {
    let malformed = |error: io::Error| ReceiveError::Malformed(error.to_string());
    let mut size = Size::default();
    let mut archive = Archive::new(&mut *tar);
    for entry in archive.entries().map_err(malformed)?.raw(true) {
        let entry = entry.map_err(malformed)?;
        match entry.header().entry_type() {
            // The name of the entry that follows.
            EntryType::GNULongName | EntryType::GNULongLink if entry.size() <= PATH_BYTES as u64 + 1 => continue,
            EntryType::Directory | EntryType::Symlink => {}
            EntryType::Regular => size.bytes = size.bytes.saturating_add(entry.size()),
            kind => return Err(ReceiveError::Malformed(format!("it holds an entry of the kind {kind:?}"))),
        }
        size.entries += 1;
        if let Some(sentence) = too_large(size, limits) {
            return Err(ReceiveError::TooLarge(sentence));
        }
    }
    // The archive's reader stops at the first of the two.
    let mut end = Vec::new();
    tar.take(BLOCK + 1).read_to_end(&mut end).map_err(malformed)?;
    if end != [0; BLOCK as usize] {
        return Err(ReceiveError::Malformed("it does not end as it should".to_owned()));
    }
    Ok(size)
}

/// Copies everything that is read.
struct Passing<R> {
    from: R,
    to: Hashing<GzEncoder<BufWriter<File>>>,
    /// Why it could not be copied.
    failed: Option<io::Error>,
}

impl<R: Read> Read for Passing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        if let Err(error) = self.to.write_all(buffer.get(..read).unwrap_or_default()) {
            let told = io::Error::from(error.kind());
            self.failed = Some(error);
            return Err(told);
        }
        Ok(read)
    }
}
