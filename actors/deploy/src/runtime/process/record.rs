//! The record of each instance on disk, by which the next start of the node finds its processes. Everything here
//! blocks.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use callboard_supervisors::fs;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::process::{Cgroup, Cgroups, Leftover, boot_id, named};

#[derive(Serialize, Deserialize)]
struct Content {
    pid: i32,
    start_time: u64,
    boot: String,
}

/// A record on disk, removed when the instance has ended.
pub(super) struct Record {
    path: PathBuf,
    content: Option<Content>,
}

impl Record {
    pub(super) fn write(state: &Path, id: Uuid, pid: i32, start_time: u64) -> io::Result<Self> {
        let path = state.join(format!("{id}.json"));
        let content = Content { pid, start_time, boot: boot_id() };
        fs::write(&path, serde_json::to_vec(&content)?)?;
        Ok(Self { path, content: Some(content) })
    }

    /// All records of a folder. An instance's folder without a record yields one without a process.
    pub(super) fn all(state: &Path) -> Vec<(Uuid, Self)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(state).into_iter().flatten().flatten() {
            let path = entry.path();
            let id = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
            let Some(id) = id else { continue };
            let content = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            found.push((id, Self { path: state.join(format!("{id}.json")), content }));
        }
        found
    }

    /// Pid and start time of its main process; `None` after a reboot.
    fn process(&self) -> Option<(i32, u64)> {
        let content = self.content.as_ref()?;
        (content.boot == boot_id() && content.pid > 1).then_some((content.pid, content.start_time))
    }

    pub(super) fn remove(self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The orphans of a node: programs that are not active, found by their control groups, by their records, and by the
/// node's token in the environment of processes.
pub(super) fn left_behind(
    node: &str,
    cgroups: &Cgroups,
    records: &[(Uuid, Record)],
    is_active: impl Fn(Uuid) -> bool,
) -> BTreeMap<Uuid, Leftover> {
    let mut found: BTreeMap<Uuid, Leftover> = BTreeMap::new();
    let nothing = |id| Leftover::of(id, None, Cgroup::default());
    for (id, cgroup) in cgroups.existing(&is_active) {
        found.insert(id, Leftover::of(id, None, cgroup));
    }
    for (id, record) in records.iter().filter(|(id, _)| !is_active(*id)) {
        if let Some(leader) = record.process() {
            let leftover = found.remove(id).unwrap_or_else(|| nothing(*id));
            found.insert(*id, leftover.with_leader(leader));
        }
    }
    for (_, marks) in named(node) {
        if !is_active(marks.id) {
            found.entry(marks.id).or_insert_with(|| nothing(marks.id));
        }
    }
    found
}
