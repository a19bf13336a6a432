//! Reads a zip.
//!
//! Sizes are counted while unpacking: those in the zip's directory are whatever its maker wrote.

use std::{
    fs::File,
    io::{BufReader, Read},
};

use zip::{ZipArchive, result::ZipError};

use super::{ArchiveError, writer::Writer, writer::shown_bytes};

const KIND_MASK: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const SYMBOLIC_LINK: u32 = 0o120_000;

pub(super) fn unpack(file: File, writer: &mut Writer<'_>) -> Result<(), ArchiveError> {
    let damaged = |error: ZipError| ArchiveError::Damaged(error.to_string());
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
    if archive.len() as u64 > writer.limits().entries {
        return Err(ArchiveError::TooManyEntries(writer.limits().entries));
    }
    if archive.has_duplicate_names() {
        let mut seen = std::collections::HashSet::new();
        let twice = archive.file_names_raw().find(|name| !seen.insert(*name)).unwrap_or(b"an entry");
        return Err(ArchiveError::Duplicate(shown_bytes(twice)));
    }
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| match error {
            ZipError::UnsupportedArchive(reason) => {
                ArchiveError::Unsupported { path: format!("entry {}", index + 1), reason: reason.to_owned() }
            }
            ZipError::CompressionMethodNotSupported(method) => {
                let reason = format!("it is compressed by method {method}");
                ArchiveError::Unsupported { path: format!("entry {}", index + 1), reason }
            }
            other => ArchiveError::Damaged(other.to_string()),
        })?;
        let name = entry.name_raw().to_vec();
        if entry.encrypted() {
            let path = shown_bytes(&name);
            return Err(ArchiveError::Unsupported { path, reason: "it is encrypted".to_owned() });
        }
        // Zips made on other systems than Unix have no mode.
        let mode = entry.unix_mode().unwrap_or(0o644);
        match mode & KIND_MASK {
            SYMBOLIC_LINK => {
                let mut target = Vec::new();
                let limit = writer.limits().path_bytes as u64;
                let read = entry.by_ref().take(limit + 1).read_to_end(&mut target);
                read.map_err(|error| ArchiveError::Damaged(error.to_string()))?;
                writer.symbolic_link(&name, &target)?;
            }
            FOLDER => writer.folder(&name)?,
            0 | REGULAR if name.ends_with(b"/") => writer.folder(&name)?,
            0 | REGULAR => writer.file(&name, mode, &mut entry)?,
            _ => return Err(ArchiveError::Special { path: shown_bytes(&name), kind: "device, pipe or socket" }),
        }
    }
    Ok(())
}
