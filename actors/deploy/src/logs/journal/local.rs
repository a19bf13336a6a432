//! Journals on this node's own disk: listed, stored and removed without the object store's copy.

use std::{path::Path, sync::Arc};

use callboard_messages::Failure;
use callboard_supervisors::fs;
use uuid::Uuid;

use super::{Journals, Range};
use crate::folder;

impl Journals {
    /// The journals of a folder that have lines on this node's disk.
    pub(crate) async fn on_disk(&self, folder: &Path) -> Result<Vec<Uuid>, Failure> {
        let folder = self.folder.join(folder);
        self.pool
            .run(None, move || {
                let entries = fs::read_dir(folder).into_iter().flatten().flatten();
                entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
            })
            .await
    }

    /// Stores the lines that are on this node's disk alone: the node ended before it had stored them. False when the
    /// journal is open.
    pub(crate) async fn store_local(&self, name: &Path, bytes: u64) -> Result<bool, Failure> {
        let journal = self.open(name, bytes);
        if Arc::strong_count(&journal.inner) > 1 {
            // The open journal stores its lines itself, but may not have done so yet.
            return Ok(false);
        }
        let after = self.chunks.last_of_own(name).await?;
        let lines = journal.read_disk(Range::After(after), usize::MAX).await?.0;
        let Some(first) = lines.first() else { return Ok(true) };
        let text = lines
            .iter()
            .filter_map(|line| serde_json::to_string(line).ok())
            .fold(String::new(), |text, line| text + &line + "\n");
        self.chunks.store(name, first.id, text.into()).await?;
        Ok(true)
    }

    /// Removes a journal from this node's disk alone, unless it is open.
    pub(crate) async fn remove_local(&self, name: &Path, bytes: u64) -> Result<(), Failure> {
        let (inner, open) = (self.open(name, bytes).inner, self.open.clone());
        self.pool
            .run(None, move || {
                // Nobody opens it meanwhile.
                let _open = open.lock();
                if Arc::strong_count(&inner) > 1 {
                    return;
                }
                if let Err(error) = folder::remove(&inner.folder) {
                    tracing::warn!(folder = %inner.folder.display(), %error, "removing a log failed");
                }
            })
            .await
    }
}
