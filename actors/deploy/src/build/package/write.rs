//! The untrusted side of packing, the child: reads the result of a build.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufWriter, Read, Write},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::{Deserialize, Serialize};
use tar::{Builder, EntryType, Header};

use super::{DEPTH, PATH_BYTES};
use crate::{
    build::archive,
    folder::{Descent, Dir, Entry, Up, is_exchanged},
};

/// An order to pack; its JSON is the verb's argument.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// The folder that becomes the release, inside the source.
    pub(super) root: PathBuf,
    /// The only folder of it that is packed, with the folders above it.
    #[serde(default)]
    pub(super) only: Option<PathBuf>,
}

/// Why packing failed. Paths are relative to the app's folder.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(
        "`{0}` can't be packed: the build has removed it, or put a link or a file in its place or that of a folder above it; \
         let the build leave the app's folder where it is"
    )]
    Root(String),
    #[error("`{0}` is a device, pipe or socket, which a release can't hold; let the build remove it")]
    Special(String),
    #[error("`{0}` changed while it was packed; let the build end whatever still writes to it")]
    Changed(String),
    #[error("`{0}` can't be read by the user that builds run as; let the build make it readable")]
    Unreadable(String),
    #[error(
        "`{0}` or what it links to has a name that a release can't hold; use UTF-8, without control characters or `\\`"
    )]
    BadName(String),
    #[error("the path `{0}…` is too long; a release holds at most {PATH_BYTES} bytes and {DEPTH} folders deep")]
    TooLong(String),
    #[error("`{path}` could not be packed: {error}")]
    Io { path: String, error: io::Error },
    #[error("the release could not be passed on: {0}")]
    Output(#[from] io::Error),
}

/// The hidden verb of the binary: `<json of Order>`, without the name of the verb. Standard input is the source's open
/// folder, and standard output takes the tar.
pub fn pack(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let order = arguments.next().and_then(|json| serde_json::from_slice::<Order>(json.as_encoded_bytes()).ok());
    let Some(order) = order else {
        eprintln!("callboard: this verb is for the platform's own use; it needs to know what to pack");
        return ExitCode::from(2);
    };
    match pack_to(&order.root, order.only.as_deref(), io::stdout().as_fd()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Packs from the folder that is standard input.
pub(super) fn pack_to(root: &Path, only: Option<&Path>, output: BorrowedFd<'_>) -> Result<(), WriteError> {
    let source = Dir::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(output.try_clone_to_owned()?);
    write(&source, root, only, BufWriter::with_capacity(256 * 1024, output))?.flush()?;
    Ok(())
}

/// Writes the canonical tar of a folder of the source, or of one folder in it alone. What is named `.git` at its top is left
/// out.
pub(super) fn write<W: Write>(source: &Dir, root: &Path, only: Option<&Path>, to: W) -> Result<W, WriteError> {
    let only = only.unwrap_or(Path::new(""));
    let packed = if only.as_os_str().is_empty() { root.to_owned() } else { root.join(only) };
    let opened = source.open_dir(&packed).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => WriteError::Unreadable(shown(&packed)),
        _ => WriteError::Root(shown(&packed)),
    })?;
    let mut builder = Builder::new(to);
    let above: Vec<&Path> = only.ancestors().filter(|folder| !folder.as_os_str().is_empty()).collect();
    for folder in above.into_iter().rev() {
        if !folder.iter().all(|name| archive::is_good_name(name.as_encoded_bytes())) {
            return Err(WriteError::BadName(shown(folder)));
        }
        let mut header = header();
        header.set_entry_type(EntryType::Directory);
        builder.append_data(&mut header, folder, io::empty())?;
    }
    let mut walk = Walk { descent: Descent::new(opened), path: only.to_owned() };
    let mut first = walk.entries()?;
    first.retain(|entry| entry.name != ".git");
    // For each folder on the way down the entries still to pack, last one first.
    let mut ahead = vec![first];
    while let Some(entries) = ahead.last_mut() {
        match entries.pop() {
            Some(entry) if walk.append(&entry, &mut builder)? => ahead.push(walk.entries()?),
            Some(_) => {}
            None => {
                ahead.pop();
                walk.leave()?;
            }
        }
    }
    Ok(builder.into_inner()?)
}

/// The position of packing.
struct Walk {
    descent: Descent,
    path: PathBuf,
}

impl Walk {
    /// The entries of the folder, sorted, last one first.
    fn entries(&self) -> Result<Vec<Entry>, WriteError> {
        let read = self.descent.here().entries().and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = read.map_err(|error| explain(error, &self.path))?;
        entries.sort_unstable_by(|one, other| other.name.cmp(&one.name));
        Ok(entries)
    }

    /// Packs an entry of the folder; true for a folder, whose entries are next.
    fn append<W: Write>(&mut self, entry: &Entry, to: &mut Builder<W>) -> Result<bool, WriteError> {
        let path = self.path.join(&entry.name);
        if path.as_os_str().len() > PATH_BYTES || self.descent.depth() >= DEPTH {
            return Err(WriteError::TooLong(shown(&path)));
        }
        if !archive::is_good_name(entry.name.as_encoded_bytes()) {
            return Err(WriteError::BadName(shown(&path)));
        }
        let failed = |error: io::Error| explain(error, &path);
        let here = self.descent.here();
        let mut header = header();
        if entry.kind.is_dir() {
            self.descent.enter(&entry.name).map_err(failed)?;
            header.set_entry_type(EntryType::Directory);
            to.append_data(&mut header, &path, io::empty())?;
            self.path = path;
            return Ok(true);
        }
        if entry.kind.is_symlink() {
            let target = here.read_link(Path::new(&entry.name)).map_err(failed)?;
            if target.to_str().is_none_or(|target| target.contains(char::is_control)) {
                return Err(WriteError::BadName(shown(&path)));
            }
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            to.append_link(&mut header, &path, target)?;
        } else if entry.kind.is_file() {
            let file = here.open_file(Path::new(&entry.name)).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            header.set_entry_type(EntryType::Regular);
            header.set_mode(if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 });
            header.set_size(metadata.len());
            let mut content = Content { file, left: metadata.len(), failed: None };
            let appended = to.append_data(&mut header, &path, &mut content);
            content.outcome(&path)?;
            appended?;
        } else {
            return Err(WriteError::Special(shown(&path)));
        }
        Ok(false)
    }

    fn leave(&mut self) -> Result<(), WriteError> {
        match self.descent.leave() {
            Ok(Up::Outer | Up::Root) => {
                self.path.pop();
                Ok(())
            }
            Ok(Up::Moved) => Err(WriteError::Changed(shown(&self.path))),
            Err(error) => Err(explain(error, &self.path)),
        }
    }
}

/// A header without what differs from one machine to another.
fn header() -> Header {
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header.set_mode(0o755);
    header
}

fn explain(error: io::Error, path: &Path) -> WriteError {
    let path = shown(path);
    match error.kind() {
        io::ErrorKind::PermissionDenied => WriteError::Unreadable(path),
        io::ErrorKind::UnexpectedEof => WriteError::Changed(path),
        // It existed, with its kind, when its folder was read.
        _ if is_exchanged(&error) => WriteError::Changed(path),
        _ => WriteError::Io { path, error },
    }
}

fn shown(path: &Path) -> String {
    if path.as_os_str().is_empty() { "the app's folder".to_owned() } else { archive::shown(path) }
}

/// Exactly the bytes that a file had when it was opened.
struct Content {
    file: File,
    left: u64,
    failed: Option<io::Error>,
}

impl Content {
    /// Whether the file was read with its announced length.
    fn outcome(mut self, path: &Path) -> Result<(), WriteError> {
        if let Some(error) = self.failed {
            return Err(explain(error, path));
        }
        let more = self.left == 0 && self.file.read(&mut [0]).map_err(|error| explain(error, path))? > 0;
        if more { Err(WriteError::Changed(shown(path))) } else { Ok(()) }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..room).unwrap_or_default();
        if part.is_empty() {
            return Ok(0);
        }
        let read = match self.file.read(part) {
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            other => other,
        };
        match read {
            Ok(read) => {
                self.left -= read as u64;
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let told = io::Error::from(error.kind());
                self.failed = Some(error);
                Err(told)
            }
        }
    }
}
