//! Log files: lines with increasing ids, bounded, written in the background.
//!
//! A journal is a folder with two files, `current` and `previous`; when the current one is full it becomes the previous
//! one, so a log keeps between one and two times its bound. Whoever writes never waits for the disk: lines gather in
//! memory, up to a bound, and a blocking pool takes them away. A reader first takes away what has gathered, so it
//! sees every line written before it came.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use callboard_messages::{Failure, deploy::LogLine};
use callboard_supervisors::BlockingPool;
use chrono::{DateTime, Utc};
use parking_lot::Mutex;

/// Lines that may wait for the disk, in bytes; what is more is dropped and counted.
const PENDING_BYTES: usize = 4 * 1024 * 1024;

/// All journals of the domain, each open at most once.
#[derive(Clone)]
pub(crate) struct Journals {
    pool: BlockingPool,
    folder: PathBuf,
    open: Arc<Mutex<HashMap<PathBuf, Weak<Inner>>>>,
}

/// One log. Cheap to clone; closed with its last clone.
#[derive(Clone)]
pub(crate) struct Journal {
    inner: Arc<Inner>,
    pool: BlockingPool,
}

struct Inner {
    folder: PathBuf,
    bytes: u64,
    pending: Mutex<Pending>,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Pending {
    last_id: u64,
    text: Vec<u8>,
    dropped: u64,
    scheduled: bool,
}

#[derive(Default)]
struct Files {
    current: Option<(File, u64)>,
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
    pub(crate) fn new(folder: PathBuf, pool: BlockingPool) -> Self {
        Self { pool, folder, open: Arc::default() }
    }

    /// The threads that write.
    pub(crate) const fn pool(&self) -> &BlockingPool {
        &self.pool
    }

    /// The journal of this name; nothing is made on the disk before its first line.
    pub(crate) fn open(&self, name: impl AsRef<Path>, bytes: u64) -> Journal {
        let folder = self.folder.join(name);
        let mut open = self.open.lock();
        let inner = open.get(&folder).and_then(Weak::upgrade).unwrap_or_else(|| {
            open.retain(|_, journal| journal.strong_count() > 0);
            let inner =
                Arc::new(Inner { folder: folder.clone(), bytes, pending: Mutex::default(), files: Mutex::default() });
            open.insert(folder, Arc::downgrade(&inner));
            inner
        });
        Journal { inner, pool: self.pool.clone() }
    }

    /// Removes a journal, or a folder of them, from the disk.
    pub(crate) async fn remove(&self, name: impl AsRef<Path>) -> Result<(), Failure> {
        let folder = self.folder.join(name);
        self.pool
            .run(None, move || match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(folder = %folder.display(), %error, "a log could not be removed");
                }
                _ => {}
            })
            .await
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
        if pending.text.len() < PENDING_BYTES {
            // A line of plain strings and numbers always has a JSON form.
            let _ = serde_json::to_writer(&mut pending.text, &line);
            pending.text.push(b'\n');
        } else {
            pending.dropped += 1;
        }
        let schedule = !std::mem::replace(&mut pending.scheduled, true);
        drop(pending);
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

    /// Lines, oldest first.
    pub(crate) async fn read(&self, range: Range, limit: usize) -> Result<Vec<LogLine>, Failure> {
        let inner = self.inner.clone();
        self.pool
            .run(None, move || {
                inner.flush();
                inner.read(range, limit)
            })
            .await?
            .map_err(|error| Failure::Internal(format!("a log can't be read: {error}")))
    }
}

impl Inner {
    /// Takes what has gathered to the disk. Blocks.
    fn flush(&self) {
        let mut files = self.files.lock();
        let (text, dropped) = {
            let mut pending = self.pending.lock();
            pending.scheduled = false;
            (std::mem::take(&mut pending.text), std::mem::take(&mut pending.dropped))
        };
        if dropped > 0 {
            tracing::warn!(folder = %self.folder.display(), dropped, "lines of a log were dropped: the disk is too slow");
        }
        if !text.is_empty()
            && let Err(error) = self.append(&mut files, &text)
        {
            tracing::warn!(folder = %self.folder.display(), %error, "lines of a log were lost");
            files.current = None;
        }
    }

    fn append(&self, files: &mut Files, text: &[u8]) -> io::Result<()> {
        let path = self.folder.join("current");
        let (mut file, mut size) = match files.current.take() {
            Some(current) => current,
            None => {
                fs::create_dir_all(&self.folder)?;
                let file = File::options().create(true).append(true).open(&path)?;
                let size = file.metadata()?.len();
                (file, size)
            }
        };
        if size > 0 && size + text.len() as u64 > self.bytes {
            fs::rename(&path, self.folder.join("previous"))?;
            file = File::options().create(true).append(true).open(&path)?;
            size = 0;
        }
        file.write_all(text)?;
        files.current = Some((file, size + text.len() as u64));
        Ok(())
    }

    fn read(&self, range: Range, limit: usize) -> io::Result<Vec<LogLine>> {
        let _files = self.files.lock();
        let mut found = VecDeque::new();
        for name in ["current", "previous"] {
            let text = match fs::read(self.folder.join(name)) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            // From the end, so that a reader who wants the last lines parses no others. A line that a crash has cut is
            // passed over.
            let lines = text.rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            for line in lines.filter_map(|line| serde_json::from_slice::<LogLine>(line).ok()) {
                let enough = match range {
                    Range::After(id) => line.id <= id,
                    Range::Last => found.len() >= limit,
                };
                if enough {
                    return Ok(found.into_iter().take(limit).collect());
                }
                found.push_front(line);
            }
        }
        Ok(found.into_iter().take(limit).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journals() -> (tempfile::TempDir, Journals) {
        let folder = tempfile::tempdir().unwrap();
        let journals = Journals::new(folder.path().to_owned(), BlockingPool::new("journals", 2, 64));
        (folder, journals)
    }

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[actix_rt::test]
    async fn a_reader_sees_what_was_written_before_it_came() {
        let (_folder, journals) = journals();
        let journal = journals.open("a", 1_000_000);
        let at = Utc::now();
        let lines: Vec<LogLine> = (1..=5).map(|n| journal.write(at, "web.1", n.to_string())).collect();
        assert!(lines.is_sorted_by(|a, b| a.id < b.id));
        assert_eq!(texts(&journal.read(Range::Last, 2).await.unwrap()), ["4", "5"]);
        assert_eq!(texts(&journal.read(Range::After(lines[1].id), 2).await.unwrap()), ["3", "4"]);
        assert_eq!(journal.read(Range::After(0), 100).await.unwrap(), lines);
    }

    #[actix_rt::test]
    async fn ids_and_lines_survive_a_restart_and_a_cut_line_is_passed_over() {
        let (folder, journals) = journals();
        let journal = journals.open("a", 1_000_000);
        let first = journal.write(Utc::now(), "web.1", "before".to_owned());
        journal.read(Range::Last, 1).await.unwrap();
        drop(journal);
        let mut file = File::options().append(true).open(folder.path().join("a/current")).unwrap();
        file.write_all(b"{\"id\":9\n").unwrap();
        let journal = journals.open("a", 1_000_000);
        let second = journal.write(Utc::now(), "web.1", "after".to_owned());
        assert!(second.id > first.id);
        assert_eq!(texts(&journal.read(Range::Last, 10).await.unwrap()), ["before", "after"]);
    }

    #[actix_rt::test]
    async fn a_full_log_lets_the_oldest_lines_go() {
        let (folder, journals) = journals();
        let journal = journals.open("a", 2_000);
        for n in 0..200 {
            journal.write(Utc::now(), "web.1", format!("{n:050}"));
            journal.read(Range::Last, 1).await.unwrap();
        }
        let size: u64 =
            fs::read_dir(folder.path().join("a")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(size <= 4_000, "{size}");
        let last = journal.read(Range::Last, 3).await.unwrap();
        assert_eq!(last.last().unwrap().text, format!("{:050}", 199));
        journals.remove("a").await.unwrap();
        assert!(!folder.path().join("a").exists());
    }
}
