//! The files of a journal, `current` and `previous`. Everything here blocks.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
};

use callboard_messages::deploy::LogLine;
use callboard_supervisors::fs;

use super::{Files, Inner, Range};
use crate::folder::Dir;

impl Inner {
    /// Writes gathered lines to the disk. Blocks.
    pub(super) fn flush(&self) {
        let mut files = self.files.lock();
        let (gathered, dropped, last) = {
            let mut pending = self.pending.lock();
            pending.scheduled = false;
            (std::mem::take(&mut pending.text), std::mem::take(&mut pending.dropped), pending.last_id)
        };
        if dropped.lines() > 0 {
            let dropped = dropped.lines();
            tracing::warn!(folder = %self.folder.display(), dropped, "lines of a log were dropped: the disk is too slow");
        }
        let lines = gathered.iter().filter(|byte| **byte == b'\n').count() as u64 + dropped.lines();
        if lines == 0 {
            return;
        }
        let mut lost = std::mem::take(&mut files.lost);
        let before = match lost.lines() {
            0 => Vec::new(),
            // What the disk took last may be half a line.
            _ => [b"\n", &lost.notice("the node's disk did not take them")[..]].concat(),
        };
        let text = [before, gathered, dropped.notice("the node's disk is too slow")].concat();
        if let Err(error) = self.append(&mut files, &text) {
            tracing::warn!(folder = %self.folder.display(), %error, "lines of a log were lost");
            files.current = None;
            lost.add(lines, last);
            files.lost = lost;
        }
    }

    fn append(&self, files: &mut Files, text: &[u8]) -> io::Result<()> {
        let (mut file, mut size) = match files.current.take() {
            Some(current) => current,
            None => {
                fs::create_dir_all(&self.folder)?;
                let file = self.open_to_write()?;
                let size = file.metadata()?.len();
                (file, size)
            }
        };
        if size > 0 && size + text.len() as u64 > self.bytes {
            fs::rename(self.folder.join("current"), self.folder.join("previous"))?;
            file = self.open_to_write()?;
            size = 0;
        }
        file.write_all(text)?;
        files.current = Some((file, size + text.len() as u64));
        Ok(())
    }

    fn open_to_write(&self) -> io::Result<File> {
        Dir::open(&self.folder)?.append_file(Path::new("current"), 0o644)
    }

    fn open_to_read(&self, name: &str) -> io::Result<File> {
        Dir::open(&self.folder)?.open_file(Path::new(name))
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        let _files = self.files.lock();
        ["previous", "current"].iter().find_map(|name| {
            let mut first = String::new();
            BufReader::new(self.open_to_read(name).ok()?).read_line(&mut first).ok()?;
            serde_json::from_str::<LogLine>(&first).ok().map(|line| line.id)
        })
    }

    pub(super) fn read(&self, range: Range, limit: usize) -> io::Result<Vec<LogLine>> {
        let _files = self.files.lock();
        let mut found = VecDeque::new();
        for name in ["current", "previous"] {
            let mut text = Vec::new();
            match self.open_to_read(name) {
                Ok(mut file) => file.read_to_end(&mut text)?,
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
