//! Log files: lines with increasing ids, bounded, written in the background.
//!
//! A journal is a folder with two files, `current` and `previous`; when the current one is full it becomes the previous
//! one, so a log keeps between one and two times its bound. Whoever writes never waits for the disk: lines gather in
//! memory, up to a bound, and a blocking pool takes them away. A reader first takes away what has gathered, so it
//! sees every line written before it came.
//!
//! The disk is this node's alone, so the lines go into the object store as well ([`Chunks`]), a moment later; a reader on
//! any node finds there what other nodes have written.

mod dropped;
mod files;
mod local;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use callboard_messages::{Failure, deploy::LogLine};
use callboard_supervisors::{BlockingPool, warn_unless_outage};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use self::dropped::{Dropped, written};
use crate::{
    folder,
    logs::chunks::{CHUNK_BYTES, Chunks},
};

/// Lines that may wait for the disk, in bytes; what is more is dropped, and the log says so. As many may wait for the
/// object store; what is more is then on the disk alone.
const PENDING_BYTES: usize = 4 * 1024 * 1024;
/// How long lines gather for the object store.
const STORED_AFTER: Duration = Duration::from_secs(1);
/// Pause after the object store failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Logs that are stored at the same time when the node stops.
const STORED_AT_A_TIME: usize = 16;

/// All journals of the domain, each open at most once.
#[derive(Clone)]
pub(crate) struct Journals {
    pool: BlockingPool,
    folder: PathBuf,
    chunks: Chunks,
    open: Arc<Mutex<HashMap<PathBuf, Weak<Inner>>>>,
}

/// One log. Cheap to clone; closed with its last clone.
#[derive(Clone)]
pub(crate) struct Journal {
    inner: Arc<Inner>,
    pool: BlockingPool,
    chunks: Chunks,
}

struct Inner {
    name: PathBuf,
    folder: PathBuf,
    bytes: u64,
    pending: Mutex<Pending>,
    files: Mutex<Files>,
    /// The chunk that is being written. Its lock orders the writes of it.
    chunk: tokio::sync::Mutex<Gathered>,
}

#[derive(Default)]
struct Pending {
    last_id: u64,
    text: Vec<u8>,
    dropped: Dropped,
    scheduled: bool,
    /// Lines gathered for the object store.
    unstored: Gathered,
    /// Lines that were not gathered for the object store.
    kept_here: Dropped,
    storing: bool,
}

/// Lines, one after the other, and the id of the first.
#[derive(Default)]
struct Gathered {
    first: u64,
    text: Vec<u8>,
    /// Whether it has lines that are not stored yet.
    changed: bool,
}

impl Pending {
    fn tell_kept_here(&mut self) {
        let dropped = std::mem::take(&mut self.kept_here);
        let notice = dropped.notice("only the node that wrote them has them on its disk");
        self.unstored.add(dropped.id(), &notice);
    }
}

impl Gathered {
    fn add(&mut self, first: u64, text: &[u8]) {
        if self.text.is_empty() && !text.is_empty() {
            self.first = first;
        }
        self.changed |= !text.is_empty();
        self.text.extend_from_slice(text);
    }
}

#[derive(Default)]
struct Files {
    current: Option<(File, u64)>,
    /// Lines that could not be written to the disk.
    lost: Dropped,
}

/// Which lines a reader wants.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Range {
    /// Those after an id, the oldest of them first.
    After(u64),
    /// The last ones.
    Last,
}

impl Journals {
    pub(crate) fn new(folder: PathBuf, pool: BlockingPool, chunks: Chunks) -> Self {
        Self { pool, folder, chunks, open: Arc::default() }
    }

    /// The threads that write to the disk.
    pub(crate) const fn pool(&self) -> &BlockingPool {
        &self.pool
    }

    /// The journal of this name; nothing is made on the disk before its first line.
    pub(crate) fn open(&self, name: impl AsRef<Path>, bytes: u64) -> Journal {
        let name = name.as_ref().to_owned();
        let folder = self.folder.join(&name);
        let mut open = self.open.lock();
        let inner = open.get(&name).and_then(Weak::upgrade).unwrap_or_else(|| {
            open.retain(|_, journal| journal.strong_count() > 0);
            let inner = Arc::new(Inner {
                name: name.clone(),
                folder,
                bytes,
                pending: Mutex::default(),
                files: Mutex::default(),
                chunk: tokio::sync::Mutex::default(),
            });
            open.insert(name, Arc::downgrade(&inner));
            inner
        });
        Journal { inner, pool: self.pool.clone(), chunks: self.chunks.clone() }
    }

    /// Removes a journal from the disk and the object store.
    pub(crate) async fn remove(&self, name: impl AsRef<Path>) -> Result<(), Failure> {
        let name = name.as_ref();
        let open = self.open.lock().get(name).and_then(Weak::upgrade);
        if let Some(inner) = &open {
            // What was written last must not come after the removal.
            let mut chunk = inner.chunk.lock().await;
            inner.pending.lock().unstored = Gathered::default();
            *chunk = Gathered::default();
        }
        self.chunks.remove(name).await?;
        let folder = self.folder.join(name);
        self.pool
            .run(None, move || {
                if let Err(error) = folder::remove(&folder) {
                    tracing::warn!(folder = %folder.display(), %error, "removing a log failed");
                }
            })
            .await
    }

    /// Stores the last lines of all journals: the node stops.
    pub(crate) async fn store_all(&self) {
        let open: Vec<Arc<Inner>> = self.open.lock().values().filter_map(Weak::upgrade).collect();
        let store = async |inner: Arc<Inner>| {
            let journal = Journal { inner, pool: self.pool.clone(), chunks: self.chunks.clone() };
            if let Err(failure) = journal.store().await {
                let log = journal.inner.name.display();
                warn_unless_outage!(failure.is_outage(), %log, %failure, "storing the last lines of a log failed; they are on this node's disk only");
            }
        };
        stream::iter(open).for_each_concurrent(STORED_AT_A_TIME, store).await;
    }
}

impl Journal {
    /// Writes a line and answers it with its id: the time in microseconds, or one more than the last. So ids increase
    /// over restarts of the node too.
    pub(crate) fn write(&self, at: DateTime<Utc>, from: &str, text: String) -> LogLine {
        let mut pending = self.inner.pending.lock();
        let id = u64::try_from(at.timestamp_micros()).unwrap_or(0).max(pending.last_id + 1);
        pending.last_id = id;
        let line = LogLine { id, at, from: from.to_owned(), text };
        let written = written(&line);
        if pending.text.len() < PENDING_BYTES {
            pending.text.extend_from_slice(&written);
        } else {
            pending.dropped.add(1, id);
        }
        if pending.unstored.text.len() < PENDING_BYTES {
            pending.tell_kept_here();
            pending.unstored.add(id, &written);
        } else {
            pending.kept_here.add(1, id);
        }
        let schedule = !std::mem::replace(&mut pending.scheduled, true);
        let store = !std::mem::replace(&mut pending.storing, true);
        drop(pending);
        if store {
            tokio::spawn(self.clone().store_soon());
        }
        if schedule {
            let journal = self.clone();
            tokio::spawn(async move {
                let inner = journal.inner.clone();
                if journal.pool.run(None, move || inner.flush()).await.is_err() {
                    // The pool is full: the next line tries again.
                    journal.inner.pending.lock().scheduled = false;
                }
            });
        }
        line
    }

    async fn store_soon(self) {
        let mut wait = STORED_AFTER;
        loop {
            tokio::time::sleep(wait).await;
            match self.store().await {
                Ok(()) => return,
                Err(failure) => {
                    let log = self.inner.name.display();
                    warn_unless_outage!(failure.is_outage(), %log, %failure, "storing lines of a log failed; retrying");
                    wait = RETRY_AFTER;
                }
            }
        }
    }

    /// Stores gathered lines in the object store.
    pub(crate) async fn store(&self) -> Result<(), Failure> {
        let inner = &self.inner;
        let mut chunk = inner.chunk.lock().await;
        {
            let mut pending = inner.pending.lock();
            pending.storing = false;
            // What the object store has not taken for long stays where it is bounded.
            if chunk.text.len() < PENDING_BYTES {
                pending.tell_kept_here();
                let unstored = std::mem::take(&mut pending.unstored);
                chunk.add(unstored.first, &unstored.text);
            }
        }
        if !chunk.changed {
            return Ok(());
        }
        if let Err(failure) = self.chunks.store(&inner.name, chunk.first, chunk.text.clone().into()).await {
            inner.pending.lock().storing = true;
            return Err(failure);
        }
        // Only after the write: a caller that was dropped during it leaves the chunk to be stored.
        chunk.changed = false;
        if chunk.text.len() >= CHUNK_BYTES {
            *chunk = Gathered::default();
            self.chunks.prune(&inner.name, inner.bytes.saturating_mul(2)).await?;
        }
        Ok(())
    }

    /// Continues the ids after the lines of other nodes, whatever their clocks say.
    pub(crate) async fn follow_on(&self) -> Result<(), Failure> {
        if let Some(last) = self.chunks.last_of_others(&self.inner.name).await? {
            let mut pending = self.inner.pending.lock();
            pending.last_id = pending.last_id.max(last);
        }
        Ok(())
    }

    /// Lines, oldest first, of whatever node: what this one has on its disk, and what the others have stored.
    pub(crate) async fn read(&self, range: Range, limit: usize) -> Result<Vec<LogLine>, Failure> {
        let (here, oldest) = self.read_disk(range, limit).await?;
        match self.chunks.read(&self.inner.name, range, limit, oldest).await {
            Ok(stored) if stored.is_empty() => Ok(here),
            Ok(stored) => Ok(merge(vec![here, stored], range, limit)),
            Err(failure) if here.is_empty() => Err(failure),
            Err(failure) => {
                let log = self.inner.name.display();
                warn_unless_outage!(failure.is_outage(), %log, %failure, "reading a log from the object store failed; showing this node's lines only");
                Ok(here)
            }
        }
    }

    /// Lines that this node has written, oldest first.
    pub(crate) async fn read_here(&self, range: Range, limit: usize) -> Result<Vec<LogLine>, Failure> {
        Ok(self.read_disk(range, limit).await?.0)
    }

    /// Also the id of the oldest line that is on the disk.
    async fn read_disk(&self, range: Range, limit: usize) -> Result<(Vec<LogLine>, Option<u64>), Failure> {
        let inner = self.inner.clone();
        self.pool
            .run(None, move || {
                inner.flush();
                Ok::<_, io::Error>((inner.read(range, limit)?, inner.oldest()))
            })
            .await?
            .map_err(|error| Failure::Internal(format!("a log can't be read: {error}")))
    }
}

/// Merges parts of a log, which may overlap.
pub(crate) fn merge(parts: Vec<Vec<LogLine>>, range: Range, limit: usize) -> Vec<LogLine> {
    let mut lines: Vec<LogLine> = parts.into_iter().flatten().collect();
    lines.sort_by_key(|line| line.id);
    lines.dedup_by_key(|line| line.id);
    match range {
        Range::After(_) => lines.truncate(limit),
        Range::Last => drop(lines.drain(..lines.len().saturating_sub(limit))),
    }
    lines
}
