//! Reads a gzip-compressed tar.
//!
//! Entries are read raw, so that the extensions for long names are checked here: the tar crate would read a "name" of
//! any length into memory.

use std::{
    fs::File,
    io::{BufReader, Read},
};

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, EntryType, PaxExtensions};

use super::{ArchiveError, writer::Writer, writer::shown_bytes};

/// Largest extension header, in bytes.
const MAXIMUM_EXTENSION: u64 = 64 * 1024;

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

pub(super) fn unpack(file: File, writer: &mut Writer<'_>) -> Result<(), ArchiveError> {
    // Headers, padding and extensions come out of the archive too, so the stream as a whole has a bound.
    let limits = writer.limits();
    let headers = limits.entries.saturating_mul(4 * 1024).saturating_add(1024 * 1024);
    let stream = MultiGzDecoder::new(BufReader::new(file)).take(limits.total_bytes.saturating_add(headers));
    let mut archive = Archive::new(stream);
    let damaged = |error: std::io::Error| ArchiveError::Damaged(error.to_string());
    let mut extensions = Extensions::default();
    let mut extended = 0_u32;
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        let kind = entry.header().entry_type();
        let is_extension = matches!(
            kind,
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
        );
        if is_extension {
            extended += 1;
            if extended > 16 {
                return Err(ArchiveError::Damaged("too many extension headers in a row".to_owned()));
            }
            read_extension(kind, &mut entry, &mut extensions)?;
            continue;
        }
        extended = 0;
        let extensions = std::mem::take(&mut extensions);
        let name = extensions.path.unwrap_or_else(|| entry.path_bytes().into_owned());
        let link = extensions.link.or_else(|| entry.link_name_bytes().map(std::borrow::Cow::into_owned));
        let mode = entry.header().mode().unwrap_or(0o644);
        match kind {
            EntryType::Directory => writer.folder(&name)?,
            // Before POSIX, a folder was a file whose name ends in a slash.
            EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => writer.folder(&name)?,
            EntryType::Regular | EntryType::Continuous => writer.file(&name, mode, &mut entry)?,
            EntryType::Symlink => writer.symbolic_link(&name, &link.unwrap_or_default())?,
            EntryType::Link => writer.hard_link(&name, &link.unwrap_or_default())?,
            other => return Err(refuse(other, &name)),
        }
    }
    Ok(())
}

fn refuse(kind: EntryType, name: &[u8]) -> ArchiveError {
    let path = shown_bytes(name);
    let kind = match kind {
        EntryType::Char => "character device",
        EntryType::Block => "block device",
        EntryType::Fifo => "named pipe",
        EntryType::GNUSparse => {
            return ArchiveError::Unsupported { path, reason: "it is stored as a sparse file".to_owned() };
        }
        _ => return ArchiveError::Unsupported { path, reason: "it is of an unknown kind".to_owned() },
    };
    ArchiveError::Special { path, kind }
}

fn read_extension(kind: EntryType, from: &mut impl Read, extensions: &mut Extensions) -> Result<(), ArchiveError> {
    let mut bytes = Vec::new();
    from.take(MAXIMUM_EXTENSION + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| ArchiveError::Damaged(error.to_string()))?;
    if bytes.len() as u64 > MAXIMUM_EXTENSION {
        return Err(ArchiveError::Damaged("an extension header is too large".to_owned()));
    }
    let unterminated = |mut bytes: Vec<u8>| {
        if bytes.last() == Some(&0) {
            bytes.pop();
        }
        bytes
    };
    match kind {
        EntryType::GNULongName => extensions.path = Some(unterminated(bytes)),
        EntryType::GNULongLink => extensions.link = Some(unterminated(bytes)),
        EntryType::XHeader => {
            for record in PaxExtensions::new(&bytes) {
                let record = record.map_err(|error| ArchiveError::Damaged(error.to_string()))?;
                match record.key_bytes() {
                    b"path" => extensions.path = Some(record.value_bytes().to_vec()),
                    b"linkpath" => extensions.link = Some(record.value_bytes().to_vec()),
                    b"size" => {
                        let path = shown_bytes(extensions.path.as_deref().unwrap_or(b"a file"));
                        let reason = "it is stored with a size in an extension header".to_owned();
                        return Err(ArchiveError::Unsupported { path, reason });
                    }
                    key if key.starts_with(b"GNU.sparse.") => {
                        let path = shown_bytes(extensions.path.as_deref().unwrap_or(b"a file"));
                        let reason = "it is stored as a sparse file".to_owned();
                        return Err(ArchiveError::Unsupported { path, reason });
                    }
                    _ => {}
                }
            }
        }
        // Applies to the whole archive, such as the commit that git archive writes.
        _ => {}
    }
    Ok(())
}
