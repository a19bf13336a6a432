//! Logs in the object store: what a node has written of a log, in chunks, so that it can be read when the node is gone.
//!
//! A chunk is written anew with each line that is added, until it is large enough; its name says the id of its first
//! line and the node that writes it. So a log that several nodes have written, one after the other, is the chunks of all
//! of them in the order of their names.

use std::path::{Path as FilePath, PathBuf};

use bytes::Bytes;
use callboard_messages::{Failure, deploy::LogLine};
use object_store::path::Path;
use uuid::Uuid;

use crate::{logs::journal::Range, objects::Objects};

/// From this size on, a chunk is complete.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

/// The chunks of all logs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Chunks {
    objects: Objects,
    /// This one.
    node: Uuid,
}

/// A chunk by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chunk {
    path: Path,
    first: u64,
    node: Uuid,
    bytes: u64,
}

impl Chunks {
    pub(crate) const fn new(objects: Objects, node: Uuid) -> Self {
        Self { objects, node }
    }

    fn folder(log: &FilePath) -> Path {
        Path::from(PathBuf::from("logs").join(log).display().to_string())
    }

    /// Stores what this node has written of a log since the line `first`.
    pub(crate) async fn store(&self, log: &FilePath, first: u64, text: Bytes) -> Result<(), Failure> {
        let path = Self::folder(log).join(format!("{first:020}-{}", self.node));
        self.objects.put(&path, text).await
    }

    async fn list(&self, log: &FilePath) -> Result<Vec<Chunk>, Failure> {
        let named = |(path, bytes): (Path, u64)| {
            let (first, node) = path.filename()?.split_once('-')?;
            let (first, node) = (first.parse().ok()?, node.parse().ok()?);
            Some(Chunk { path, first, node, bytes })
        };
        let mut chunks: Vec<Chunk> =
            self.objects.list(&Self::folder(log)).await?.into_iter().filter_map(named).collect();
        chunks.sort_by_key(|chunk| (chunk.first, chunk.node));
        Ok(chunks)
    }

    async fn lines(&self, chunk: &Chunk) -> Result<Vec<LogLine>, Failure> {
        // A chunk that was pruned meanwhile has no lines any more.
        let text = self.objects.get(&chunk.path).await?.unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Lines that this node does not have on its disk: other nodes', and its own from before `oldest`.
    pub(crate) async fn read(
        &self,
        log: &FilePath,
        range: Range,
        limit: usize,
        oldest: Option<u64>,
    ) -> Result<Vec<LogLine>, Failure> {
        let mut chunks = self.list(log).await?;
        chunks.retain(|chunk| chunk.node != self.node || oldest.is_none_or(|oldest| chunk.first < oldest));
        let mut found = Vec::new();
        match range {
            Range::After(after) => {
                for (at, chunk) in chunks.iter().enumerate() {
                    let next = chunks.iter().skip(at + 1).find(|next| next.node == chunk.node);
                    if next.is_some_and(|next| next.first <= after.saturating_add(1)) {
                        continue;
                    }
                    if found.len() >= limit {
                        break;
                    }
                    found.extend(self.lines(chunk).await?.into_iter().filter(|line| line.id > after));
                }
            }
            Range::Last => {
                for chunk in chunks.iter().rev() {
                    if found.len() >= limit {
                        break;
                    }
                    found.extend(self.lines(chunk).await?);
                }
            }
        }
        Ok(found)
    }

    /// The last line that another node has stored.
    pub(crate) async fn last_of_others(&self, log: &FilePath) -> Result<Option<u64>, Failure> {
        let chunks = self.list(log).await?;
        match chunks.iter().rfind(|chunk| chunk.node != self.node) {
            Some(chunk) => Ok(self.lines(chunk).await?.last().map(|line| line.id)),
            None => Ok(None),
        }
    }

    /// The last line that this node has stored. When none of its chunks is left, the first line of the kept ones: older
    /// ones were pruned.
    pub(crate) async fn last_of_own(&self, log: &FilePath) -> Result<u64, Failure> {
        let chunks = self.list(log).await?;
        let last = match chunks.iter().rfind(|chunk| chunk.node == self.node) {
            Some(chunk) => self.lines(chunk).await?.last().map(|line| line.id),
            None => chunks.first().map(|chunk| chunk.first),
        };
        Ok(last.unwrap_or_default())
    }

    /// Removes the oldest chunks while all of them together are larger than this.
    pub(crate) async fn prune(&self, log: &FilePath, bytes: u64) -> Result<(), Failure> {
        let chunks = self.list(log).await?;
        let mut surplus = chunks.iter().map(|chunk| chunk.bytes).sum::<u64>().saturating_sub(bytes);
        for chunk in chunks {
            if surplus < chunk.bytes {
                return Ok(());
            }
            self.objects.remove(&chunk.path).await?;
            surplus -= chunk.bytes;
        }
        Ok(())
    }

    /// Removes all of a log.
    pub(crate) async fn remove(&self, log: &FilePath) -> Result<(), Failure> {
        for chunk in self.list(log).await? {
            self.objects.remove(&chunk.path).await?;
        }
        Ok(())
    }
}
