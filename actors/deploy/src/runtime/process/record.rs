//! What is written down of each instance, so that the next start of the node knows it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::process::{Cgroups, Family, boot_id, named};

#[derive(Serialize, Deserialize)]
struct Content {
    pid: i32,
    start_time: u64,
    boot: String,
}

/// A written record. Dropped, it is removed: the instance has ended.
pub(super) struct Record {
    path: PathBuf,
    content: Option<Content>,
    keep: bool,
}

impl Record {
    pub(super) fn write(state: &Path, id: Uuid, pid: i32, start_time: u64) -> io::Result<Self> {
        let path = state.join(format!("{id}.json"));
        let content = Content { pid, start_time, boot: boot_id() };
        fs::write(&path, serde_json::to_vec(&content)?)?;
        Ok(Self { path, content: Some(content), keep: false })
    }

    /// All records of a folder. A folder without a record has one without a process.
    pub(super) fn all(state: &Path) -> Vec<(Uuid, Self)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(state).into_iter().flatten().flatten() {
            let path = entry.path();
            let id = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
            let Some(id) = id else { continue };
            let content = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            found.push((id, Self { path: state.join(format!("{id}.json")), content, keep: true }));
        }
        found
    }

    /// Pid and start time of its main process, if the machine has not been started anew since.
    pub(super) fn process(&self) -> Option<(i32, u64)> {
        let content = self.content.as_ref()?;
        (content.boot == boot_id() && content.pid > 1).then_some((content.pid, content.start_time))
    }

    pub(super) fn remove(mut self) {
        self.keep = false;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.keep {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// The children of a node, apart from those that are active, that may have left something running: found by its control
/// groups, by what was written down, and by the token in the environment of every process.
pub(super) fn left_behind(
    node: &str,
    cgroups: &Cgroups,
    records: &[(Uuid, Record)],
    is_active: impl Fn(Uuid) -> bool,
) -> BTreeMap<Uuid, Family> {
    let mut families: BTreeMap<Uuid, Family> = BTreeMap::new();
    for (id, cgroup) in cgroups.existing(&is_active) {
        families.insert(id, Family::recorded(id, 0, 0).with_cgroup(Some(cgroup)));
    }
    for (id, record) in records {
        if let Some((leader, start_time)) = record.process() {
            let family = families.remove(id).unwrap_or_else(|| Family::recorded(*id, 0, 0));
            families.insert(*id, family.with_leader(leader, start_time));
        }
    }
    for (_, id) in named(node) {
        families.entry(id).or_insert_with(|| Family::recorded(id, 0, 0));
    }
    families
}
