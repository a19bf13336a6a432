//! Control groups, where the node may make them: the kernel then counts and kills for us.
//!
//! Version 2 is used when the node's own group is writable (root, or `Delegate=yes`), with the controllers that are
//! enabled there; version 1 hierarchies for pids, memory and cpu are used as well when they are mounted and writable.
//! Nothing outside a folder of our own is changed. Where none of this works ([`Cgroups::none`]), the runtime counts
//! processes and memory itself, at intervals.

use std::{
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use callboard_supervisors::fs;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Limits of a control group.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CgroupLimits {
    /// Processes and threads together.
    pub processes: u64,
    /// Bytes.
    pub memory: u64,
    /// Processors, such as 0.5.
    pub cpus: Option<f64>,
    /// Its part of the processors when there are not enough for all.
    pub share: Share,
}

/// Who comes first when there are not enough processors for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Share {
    /// What visitors wait for.
    #[default]
    Apps,
    /// What is built, packed or fetched.
    Builds,
}

impl Share {
    /// `cpu.weight` of version 2, of 1 to 10,000.
    const fn weight(self) -> u32 {
        match self {
            Self::Apps => 100,
            Self::Builds => 20,
        }
    }

    /// `cpu.shares` of version 1, 1,024 being the default.
    const fn shares(self) -> u32 {
        match self {
            Self::Apps => 1_024,
            Self::Builds => 204,
        }
    }

    /// The niceness that stands in for it where there are no control groups.
    pub(crate) const fn nice(self) -> i32 {
        match self {
            Self::Apps => 0,
            Self::Builds => 5,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Unified,
    Pids,
    Memory,
    Cpu,
}

/// The hierarchies the node may use.
#[derive(Debug, Clone, Default)]
pub struct Cgroups {
    bases: Arc<Bases>,
}

#[derive(Debug, Default)]
struct Bases {
    folders: Vec<(Kind, PathBuf)>,
    /// Whether the kernel limits processes, memory and processor time in them.
    processes: bool,
    memory: bool,
    cpu: bool,
}

// The node's folders are removed with it, unless a child is left in them.
impl Drop for Bases {
    #[expect(clippy::disallowed_methods, reason = "no disk has them, and they go once in the life of a node")]
    fn drop(&mut self) {
        for (_, base) in &self.folders {
            drop(std::fs::remove_dir(base));
        }
    }
}

/// The control groups of one child, one per hierarchy; empty where no hierarchy can be used. Whoever waits for the
/// child's end removes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    folders: Vec<(Kind, PathBuf)>,
}

impl Cgroups {
    /// No control groups.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Looks for hierarchies in which a folder of our own, named after the node's token, can be made.
    #[must_use]
    pub fn detect(node: &str) -> Self {
        let (Ok(mounts), Ok(own)) =
            (fs::read_to_string("/proc/self/mountinfo"), fs::read_to_string("/proc/self/cgroup"))
        else {
            return Self::none();
        };
        // The whole token: a process in the folder of this name is ended as an orphan of this node.
        let name = format!("callboard-{}", node.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-"));
        let mut folders = Vec::new();
        for (kind, mount) in hierarchies(&mounts) {
            let path = own_path(&own, kind).unwrap_or_default();
            // In a container the path may exist on the host only.
            let parent =
                [mount.join(path.trim_start_matches('/')), mount].into_iter().find(|folder| fs::is_dir(folder));
            let Some(base) = parent.map(|folder| folder.join(&name)) else { continue };
            if (fs::is_dir(&base) || fs::create_dir(&base).is_ok()) && is_usable(&base) {
                if kind == Kind::Unified {
                    for controller in ["+pids", "+memory", "+cpu"] {
                        drop(fs::write(base.join("cgroup.subtree_control"), controller));
                    }
                }
                folders.push((kind, base));
            }
        }
        let has = |wanted, controller: &str| {
            folders.iter().any(|(kind, base): &(Kind, PathBuf)| {
                let controllers = || fs::read_to_string(base.join("cgroup.subtree_control")).unwrap_or_default();
                *kind == wanted
                    || (*kind == Kind::Unified && controllers().split_whitespace().any(|name| name == controller))
            })
        };
        let (processes, memory) = (has(Kind::Pids, "pids"), has(Kind::Memory, "memory"));
        let cpu = has(Kind::Cpu, "cpu");
        Self { bases: Arc::new(Bases { folders, processes, memory, cpu }) }
    }

    /// Whether there is no hierarchy to use.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.bases.folders.is_empty()
    }

    /// Whether the kernel counts processes.
    #[must_use]
    pub fn limits_processes(&self) -> bool {
        self.bases.processes
    }

    /// Whether the kernel limits memory.
    #[must_use]
    pub fn limits_memory(&self) -> bool {
        self.bases.memory
    }

    /// Whether the kernel limits processor time.
    #[must_use]
    pub fn limits_cpu(&self) -> bool {
        self.bases.cpu
    }

    /// Makes the groups of one child.
    ///
    /// # Errors
    /// When a group can't be made in a hierarchy that [`Self::detect`] found usable.
    pub fn create(&self, id: Uuid, limits: &CgroupLimits) -> io::Result<Cgroup> {
        let mut cgroup = Cgroup::default();
        for (kind, base) in &self.bases.folders {
            let folder = base.join(id.to_string());
            fs::create_dir(&folder).or_else(|error| if fs::is_dir(&folder) { Ok(()) } else { Err(error) })?;
            set(*kind, &folder, limits);
            cgroup.folders.push((*kind, folder));
        }
        Ok(cgroup)
    }

    /// The control groups of children that are not `in_use`, with the id of each child.
    #[must_use]
    pub fn existing(&self, in_use: impl Fn(Uuid) -> bool) -> Vec<(Uuid, Cgroup)> {
        let mut found: Vec<(Uuid, Cgroup)> = Vec::new();
        for (kind, base) in &self.bases.folders {
            for entry in fs::read_dir(base).into_iter().flatten().flatten() {
                let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
                // A child that is about to enter its group needs it.
                let Some(id) = id.filter(|id| !in_use(*id)) else { continue };
                match found.iter_mut().find(|(other, _)| *other == id) {
                    Some((_, cgroup)) => cgroup.folders.push((*kind, entry.path())),
                    None => found.push((id, Cgroup { folders: vec![(*kind, entry.path())] })),
                }
            }
        }
        found
    }
}

impl Cgroup {
    /// The files a child writes itself into.
    #[must_use]
    pub fn procs_files(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|(_, folder)| folder.join("cgroup.procs")).collect()
    }

    /// Processes and threads in the group, if the kernel counts them.
    #[must_use]
    pub fn processes(&self) -> Option<u64> {
        self.number(&[Kind::Pids, Kind::Unified], "pids.current")
    }

    /// Memory in use in bytes, if the kernel counts it; without the page cache.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let folder = self.folders.iter().find(|(kind, folder)| {
            *kind == Kind::Memory || (*kind == Kind::Unified && fs::is_file(folder.join("memory.stat")))
        });
        let (kind, folder) = folder?;
        let name = if *kind == Kind::Memory { "total_rss" } else { "anon" };
        let stat = fs::read_to_string(folder.join("memory.stat")).ok()?;
        stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Whether the kernel has killed a process of the group because its memory ran out.
    #[must_use]
    pub fn killed_for_memory(&self) -> bool {
        self.folders.iter().any(|(kind, folder)| {
            let file = match kind {
                Kind::Memory => "memory.oom_control",
                Kind::Unified => "memory.events",
                Kind::Pids | Kind::Cpu => return false,
            };
            let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
            text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
        })
    }

    /// Kills everything in the group at once, where the kernel can (5.14 and newer).
    pub fn kill(&self) {
        for (_, folder) in self.folders.iter().filter(|(kind, _)| *kind == Kind::Unified) {
            drop(fs::write(folder.join("cgroup.kill"), "1"));
        }
    }

    /// The processes in the group.
    #[must_use]
    pub fn members(&self) -> Vec<i32> {
        let text = self.procs_files().first().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Removes the group; false while there are processes in it. One that stays is found by the next start of the node.
    pub fn remove(&self) -> bool {
        let removed = self.folders.iter().map(|(_, folder)| fs::remove_dir(folder));
        // All of them are tried, whether or not another fails.
        let removed: Vec<_> = removed.collect();
        removed.iter().all(|removed| !matches!(removed, Err(error) if error.kind() != io::ErrorKind::NotFound))
    }

    fn number(&self, kinds: &[Kind], file: &str) -> Option<u64> {
        let folders = self.folders.iter().filter(|(kind, _)| kinds.contains(kind));
        folders.filter_map(|(_, folder)| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()).next()
    }
}

fn hierarchies(mounts: &str) -> Vec<(Kind, PathBuf)> {
    // id parent major:minor root mount-point options … - type source super-options
    let parse = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let path = PathBuf::from(mount.split(' ').nth(4)?);
        let mut filesystem = filesystem.split(' ');
        let (kind, options) = (filesystem.next()?.to_owned(), filesystem.nth(1)?.to_owned());
        let kinds: Vec<Kind> = match kind.as_str() {
            "cgroup2" => vec![Kind::Unified],
            "cgroup" => options.split(',').filter_map(v1_kind).collect(),
            _ => Vec::new(),
        };
        Some(kinds.into_iter().map(move |kind| (kind, path.clone())).collect::<Vec<_>>())
    };
    mounts.lines().filter_map(parse).flatten().collect()
}

fn v1_kind(controller: &str) -> Option<Kind> {
    match controller {
        "pids" => Some(Kind::Pids),
        "memory" => Some(Kind::Memory),
        "cpu" => Some(Kind::Cpu),
        _ => None,
    }
}

fn own_path(own: &str, kind: Kind) -> Option<&str> {
    let name = match kind {
        Kind::Unified => "",
        Kind::Pids => "pids",
        Kind::Memory => "memory",
        Kind::Cpu => "cpu",
    };
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        controllers.split(',').any(|controller| controller == name).then(|| parts.next()).flatten()
    })
}

fn is_usable(base: &Path) -> bool {
    // A probe: making a group is one right, moving a process into it is another.
    let probe = base.join(format!("probe-{}", std::process::id()));
    let made = fs::create_dir(&probe).is_ok();
    let writable = fs::open_with(OpenOptions::new().write(true), probe.join("cgroup.procs")).is_ok();
    drop(fs::remove_dir(&probe));
    made && writable
}

fn set(kind: Kind, folder: &Path, limits: &CgroupLimits) {
    const PERIOD: f64 = 100_000.0;
    let write = |file: &str, value: String| {
        let path = folder.join(file);
        if fs::exists(&path)
            && let Err(error) = fs::write(&path, value)
        {
            tracing::warn!(file = %path.display(), %error, "a control group limit could not be set");
        }
    };
    let quota = limits.cpus.map(|cpus| (cpus.max(0.01) * PERIOD).round());
    match kind {
        Kind::Unified => {
            write("pids.max", limits.processes.to_string());
            write("memory.max", limits.memory.to_string());
            write("memory.swap.max", "0".to_owned());
            write("cpu.weight", limits.share.weight().to_string());
            write("cpu.max", quota.map_or("max 100000".to_owned(), |quota| format!("{quota} 100000")));
        }
        Kind::Pids => write("pids.max", limits.processes.to_string()),
        Kind::Memory => write("memory.limit_in_bytes", limits.memory.to_string()),
        Kind::Cpu => {
            write("cpu.shares", limits.share.shares().to_string());
            if let Some(quota) = quota {
                write("cpu.cfs_quota_us", quota.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "24 1 0:21 / /proc rw - proc proc rw\n\
        30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        31 24 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
        32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn hierarchies_are_read_from_the_mounts() {
        let found = hierarchies(MOUNTS);
        assert_eq!(
            found,
            [
                (Kind::Cpu, "/sys/fs/cgroup/cpu,cpuacct".into()),
                (Kind::Pids, "/sys/fs/cgroup/pids".into()),
                (Kind::Unified, "/sys/fs/cgroup/unified".into()),
            ]
        );
    }

    #[test]
    fn the_own_group_is_read_per_hierarchy() {
        let own = "9:cpu,cpuacct:/a\n8:pids:/b\n0::/c\n";
        assert_eq!(own_path(own, Kind::Cpu), Some("/a"));
        assert_eq!(own_path(own, Kind::Pids), Some("/b"));
        assert_eq!(own_path(own, Kind::Unified), Some("/c"));
        assert_eq!(own_path(own, Kind::Memory), None);
    }
}
