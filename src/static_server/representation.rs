//! What a file is answered as: its bytes, as they are or compressed, with a tag of their content.
//!
//! The tag is the same on every node and in every release, whatever inode or time a file has. It is computed once for a
//! file, and remembered for as long as the file's descriptor says that it is still the same.

use std::{
    fs::{File, Metadata},
    io::{self, Read as _, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
    sync::Arc,
};

use actix_web::{http::header::EntityTag, web::Bytes};
use brotli::enc::BrotliEncoderParams;
use flate2::{Compression, write::GzEncoder};
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::{answer::Wanted, caching};

/// Files whose tags are remembered.
const REMEMBERED: u64 = 50_000;
/// Files of these sizes are compressed here: less is not worth it, and more would take long and much memory.
const COMPRESSED_FROM: u64 = 1024;
const COMPRESSED_TO: u64 = 4 * 1024 * 1024;
/// Compressed files that are kept, in bytes.
const COMPRESSED_KEPT: u64 = 32 * 1024 * 1024;
/// Of 0 to 11; about as fast as gzip at its default, and a tenth smaller.
const BROTLI_QUALITY: i32 = 5;
/// Files of this size are read at once, larger ones while they are sent.
const READ_AT_ONCE: u64 = 64 * 1024;

/// A file as it is answered.
pub struct Representation {
    pub body: Body,
    pub length: u64,
    pub content_type: String,
    pub encoding: Option<&'static str>,
    /// Whether another request may get it in another encoding.
    pub varies: bool,
    /// None for a file that changed while it was read.
    pub tag: Option<EntityTag>,
    pub cache_control: &'static str,
}

pub enum Body {
    Bytes(Bytes),
    File(Arc<File>),
}

/// An encoding that text may be sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Encoding {
    Brotli,
    Gzip,
}

impl Encoding {
    /// The one that makes less of a text first.
    const ALL: [Self; 2] = [Self::Brotli, Self::Gzip];

    /// Its name in `Accept-Encoding`.
    const fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// What the name of a file that was compressed beforehand ends with.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
        }
    }
}

/// A file by its descriptor; it is the same file as long as this is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What is known of the files of a site.
pub struct Representations {
    tags: Cache<Identity, String>,
    /// By encoding; nothing for those that it does not make smaller.
    compressed: Cache<(Identity, Encoding), Option<Bytes>>,
}

impl Default for Representations {
    fn default() -> Self {
        let size = |_: &(Identity, Encoding), bytes: &Option<Bytes>| {
            let bytes = bytes.as_ref().map_or(0, Bytes::len);
            u32::try_from(bytes + size_of::<(Identity, Encoding)>()).unwrap_or(u32::MAX)
        };
        Self {
            tags: Cache::new(REMEMBERED),
            compressed: Cache::builder().weigher(size).max_capacity(COMPRESSED_KEPT).build(),
        }
    }
}

impl Representations {
    /// What an open file is answered as; nothing when it can't be read. `beside` opens the file with this behind its name.
    /// Blocks.
    pub fn of(
        &self,
        path: &Path,
        file: File,
        wanted: &Wanted,
        beside: impl Fn(&str) -> Option<File>,
    ) -> Option<Representation> {
        let metadata = file.metadata().ok()?;
        let content_type = content_type(path);
        let varies = is_compressible(&content_type);
        let cache_control = caching::cache_control(path, &content_type);
        let whole = Representation {
            body: Body::Bytes(Bytes::new()),
            length: metadata.len(),
            content_type,
            encoding: None,
            varies,
            tag: None,
            cache_control,
        };
        // Compressed already, by who has built the site.
        let mut accepted = Encoding::ALL.into_iter().filter(|encoding| varies && wanted.accepts(encoding.name()));
        for encoding in accepted.clone() {
            if let Some(file) = beside(encoding.suffix())
                && let Some(made) = made_of(&file, encoding, metadata.len())
            {
                let encoded = self.with_file(whole, file, &made)?;
                return Some(Representation { encoding: Some(encoding.name()), ..encoded });
            }
        }
        if let Some(encoding) = accepted.next()
            && (COMPRESSED_FROM..=COMPRESSED_TO).contains(&metadata.len())
        {
            let key = (Identity::from(&metadata), encoding);
            let compressed = self.compressed.try_get_with(key, || compress(&file, metadata.len(), encoding)).ok()?;
            if let Some(bytes) = compressed {
                // The bytes depend on who compressed them, the content does not: a weak tag.
                let tag = self.tag(&file, &metadata).map(EntityTag::new_weak);
                let (length, body) = (bytes.len() as u64, Body::Bytes(bytes));
                return Some(Representation { body, length, encoding: Some(encoding.name()), tag, ..whole });
            }
        }
        self.with_file(whole, file, &metadata)
    }

    fn with_file(&self, whole: Representation, file: File, metadata: &Metadata) -> Option<Representation> {
        let tag = self.tag(&file, metadata).map(EntityTag::new_strong);
        let length = metadata.len();
        let body = if length <= READ_AT_ONCE {
            let mut bytes = vec![0; usize::try_from(length).ok()?];
            file.read_exact_at(&mut bytes, 0).ok()?;
            Body::Bytes(bytes.into())
        } else {
            Body::File(Arc::new(file))
        };
        Some(Representation { body, length, tag, ..whole })
    }

    /// The tag of a file's content.
    fn tag(&self, file: &File, metadata: &Metadata) -> Option<String> {
        let identity = Identity::from(metadata);
        self.tags.try_get_with(identity, || digest(file, identity)).ok()
    }
}

/// A file that was compressed beforehand, if it may be what another one of this size was compressed to.
fn made_of(file: &File, encoding: Encoding, size: u64) -> Option<Metadata> {
    let metadata = file.metadata().ok().filter(|metadata| metadata.len() < size)?;
    if encoding == Encoding::Gzip {
        // The last four bytes are the size of what was compressed.
        let mut end = [0; 4];
        file.read_exact_at(&mut end, metadata.len().checked_sub(4)?).ok()?;
        if u64::from(u32::from_le_bytes(end)) != size & u64::from(u32::MAX) {
            return None;
        }
    }
    Some(metadata)
}

fn digest(file: &File, identity: Identity) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let (mut buffer, mut at) = (vec![0; 256 * 1024], 0);
    loop {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            break;
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
        at += read as u64;
    }
    if Identity::from(&file.metadata()?) != identity {
        return Err(io::Error::other("it changed meanwhile"));
    }
    let mut digest = hex::encode(hasher.finalize());
    digest.truncate(32);
    Ok(digest)
}

/// What an encoding makes of a file, if it is worth it.
fn compress(file: &File, size: u64, encoding: Encoding) -> io::Result<Option<Bytes>> {
    let mut from = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    At { file, at: 0 }.take(COMPRESSED_TO).read_to_end(&mut from)?;
    let compressed = match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&from)?;
            encoder.finish()?
        }
        Encoding::Brotli => {
            let mut compressed = Vec::new();
            let parameters =
                BrotliEncoderParams { quality: BROTLI_QUALITY, size_hint: from.len(), ..Default::default() };
            brotli::BrotliCompress(&mut from.as_slice(), &mut compressed, &parameters)?;
            compressed
        }
    };
    Ok((compressed.len() < from.len() / 10 * 9).then(|| compressed.into()))
}

/// Reads an open file from its beginning, wherever its own position is.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl io::Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn content_type(path: &Path) -> String {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let kind = actix_files::file_extension_to_mime(extension);
    let text = kind.type_() == "text" || matches!(kind.subtype().as_str(), "javascript" | "xml" | "svg");
    match text && kind.get_param("charset").is_none() {
        true => format!("{kind}; charset=utf-8"),
        false => kind.to_string(),
    }
}

fn is_compressible(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    let (kind, subtype) = essence.split_once('/').unwrap_or_default();
    kind == "text"
        || subtype.ends_with("+json")
        || subtype.ends_with("+xml")
        || matches!(
            essence,
            "application/javascript"
                | "application/json"
                | "application/xml"
                | "application/wasm"
                | "application/x-javascript"
                | "application/vnd.ms-fontobject"
                | "font/ttf"
                | "font/otf"
                | "image/bmp"
                | "image/x-icon"
        )
}
