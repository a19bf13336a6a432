//! Processes as `/proc` shows them. Elsewhere than on Linux it shows nothing, and only process groups are known.
//!
//! Reading it is file system work and can wait for a process that the kernel holds: not on a shard's thread. So the
//! files are read here, and only parsed by `procfs-core`. A process chooses its own name, which need not be UTF-8.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use callboard_supervisors::fs;
use procfs_core::{
    ExplicitSystemInfo, FromRead, FromReadSI,
    net::{TcpNetEntries, TcpState},
    process::{FDTarget, Stat},
};
use uuid::Uuid;

use super::{INSTANCE_VARIABLE, NODE_VARIABLE};
use crate::process::trampoline::VARIABLE_PREFIX;

/// One process, as `/proc/<pid>/stat` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    /// In clock ticks since boot: unique together with the pid.
    pub(crate) start_time: u64,
    /// Ended, but not reaped.
    pub(crate) is_zombie: bool,
}

/// The process with this id.
pub(crate) fn process(pid: i32) -> Option<Process> {
    let Stat { ppid, pgrp, session, starttime, state, .. } =
        Stat::from_read(fs::open(format!("/proc/{pid}/stat")).ok()?).ok()?;
    let is_zombie = matches!(state, 'Z' | 'X');
    Some(Process { pid, parent: ppid, group: pgrp, session, start_time: starttime, is_zombie })
}

/// All processes, including zombies.
pub(crate) fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter_map(process).collect()
}

/// All processes but zombies.
pub(crate) fn running() -> Vec<Process> {
    all().into_iter().filter(|process| !process.is_zombie).collect()
}

/// The children of each process: those it started, and those it adopted.
#[derive(Debug, Default)]
pub(crate) struct Tree(HashMap<i32, Vec<i32>>);

impl Tree {
    /// The tree of all running processes.
    pub(crate) fn of_all() -> Self {
        Self::of(&all())
    }

    /// The tree of the running ones among `processes`.
    pub(crate) fn of(processes: &[Process]) -> Self {
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        for process in processes.iter().filter(|process| !process.is_zombie) {
            children.entry(process.parent).or_default().push(process.pid);
        }
        Self(children)
    }

    /// All descendants of a process, whatever their session, group and environment.
    pub(crate) fn below(&self, pid: i32) -> Vec<i32> {
        let mut found = self.0.get(&pid).cloned().unwrap_or_default();
        let mut at = 0;
        while let Some(parent) = found.get(at) {
            found.extend(self.0.get(parent).into_iter().flatten().copied());
            at += 1;
        }
        found
    }
}

/// Whether the kernel lists the children of a process.
pub(crate) fn lists_children() -> bool {
    let own = std::process::id();
    fs::exists(format!("/proc/self/task/{own}/children"))
}

/// The children of a process at this moment; none where the kernel does not list them.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// The resident memory of a process, in bytes.
pub(crate) fn resident(pid: i32) -> u64 {
    // `Stat` has only an estimate of it on machines with many processors, and `Status` of `procfs-core` fails on names
    // that are not UTF-8.
    let Ok(status) = fs::read(format!("/proc/{pid}/status")) else { return 0 };
    let status = String::from_utf8_lossy(&status);
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"));
    kibibytes.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// The platform's variables in the environment that a process was started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The token of its node.
    pub(crate) node: String,
    /// The id of the child it belongs to.
    pub(crate) id: Uuid,
    /// Whether it is the child's reaper, or a trampoline that is not yet the program.
    pub(crate) is_ours: bool,
}

/// The marks of a process; `None` when it has none.
pub(crate) fn marks(pid: i32) -> Option<Marks> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variables = || environment.split(|byte| *byte == 0);
    let value = |name: &str| {
        variables()
            .find_map(|variable| std::str::from_utf8(variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?).ok())
    };
    let (node, id) = (value(NODE_VARIABLE)?.to_owned(), value(INSTANCE_VARIABLE)?.parse().ok()?);
    Some(Marks { node, id, is_ours: variables().any(|variable| variable.starts_with(VARIABLE_PREFIX.as_bytes())) })
}

/// All running processes with this node's token, including reapers.
pub(crate) fn named(node: &str) -> Vec<(Process, Marks)> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let others = running().into_iter().filter(|process| process.pid != own);
    others
        .filter_map(|process| Some((marks(process.pid).filter(|marks| marks.node == node)?, process)))
        .map(|(marks, process)| (process, marks))
        .collect()
}

/// The addresses where processes listen for TCP connections.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    addresses: Vec<SocketAddr>,
    /// Whether a process could listen elsewhere too, hidden from this node.
    some_hidden: bool,
}

impl Listeners {
    /// Of processes that could not be looked at.
    pub(crate) fn unknown() -> Self {
        Self { addresses: Vec::new(), some_hidden: true }
    }

    /// The listeners of these processes.
    pub(crate) fn of(pids: &[i32]) -> Self {
        let mut listeners = Self::default();
        let mut sockets = HashSet::new();
        for pid in pids {
            match fs::read_dir(format!("/proc/{pid}/fd")) {
                Ok(files) => sockets.extend(files.filter_map(|file| socket(&fs::read_link(file.ok()?.path()).ok()?))),
                // The process has ended, and listens no more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => listeners.some_hidden = true,
            }
        }
        for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
            // A kernel without IPv6 has no second table.
            let table = match fs::open(file) {
                Ok(table) => TcpNetEntries::from_read(table, &THIS_MACHINE),
                Err(error) if error.kind() == io::ErrorKind::NotFound && file.ends_with('6') => continue,
                Err(error) => Err(error.into()),
            };
            match table {
                Ok(TcpNetEntries(entries)) => {
                    let of_ours = entries
                        .into_iter()
                        .filter(|entry| entry.state == TcpState::Listen && sockets.contains(&entry.inode));
                    listeners.addresses.extend(of_ours.map(|entry| entry.local_address));
                }
                Err(_) => listeners.some_hidden = true,
            }
        }
        listeners
    }

    /// Their ports, sorted.
    pub(crate) fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.addresses.iter().map(SocketAddr::port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Whether none of them can be what answers at this address of loopback.
    pub(crate) fn cannot_answer(&self, address: SocketAddr) -> bool {
        let answers = |listener: &SocketAddr| {
            // An IPv6 socket on all addresses accepts IPv4 too, unless IPV6_V6ONLY is set, which the table does not
            // show.
            let on_all = listener.ip().is_unspecified() && (listener.is_ipv6() || address.is_ipv4());
            listener.port() == address.port() && (on_all || listener.ip().to_canonical() == address.ip())
        };
        !self.some_hidden && !self.addresses.iter().any(answers)
    }
}

/// The socket tables are in this machine's byte order; the other fields are not used.
const THIS_MACHINE: ExplicitSystemInfo = ExplicitSystemInfo {
    boot_time_secs: 0,
    ticks_per_second: 0,
    page_size: 0,
    is_little_endian: cfg!(target_endian = "little"),
};

fn socket(file: &Path) -> Option<u64> {
    match file.to_str()?.parse() {
        Ok(FDTarget::Socket(inode)) => Some(inode),
        _ => None,
    }
}

/// The id of this boot: after another, pids and start times begin anew.
pub(crate) fn boot_id() -> String {
    let path = PathBuf::from("/proc/sys/kernel/random/boot_id");
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

    use super::*;

    #[test]
    fn this_process_is_seen() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = process(pid).unwrap();
        assert!(own.start_time > 0 && !own.is_zombie && own.group > 0);
        assert!(running().contains(&own));
        assert!(resident(pid) > 100_000);
        assert!(process(i32::MAX).is_none());
    }

    #[test]
    fn a_process_whose_name_is_not_text_is_seen_too() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(OsStr::from_bytes(b"b\xffd) Z 1"));
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program).arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let (seen, memory, below) = (process(pid), resident(pid), Tree::of_all().below(std::process::id() as i32));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen.is_some_and(|process| !process.is_zombie) && memory > 0 && below.contains(&pid));
    }

    #[test]
    fn children_are_found_below_their_parent() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut shell = std::process::Command::new("sh").args(["-c", "sleep 600 & wait"]).spawn().unwrap();
        let pid = i32::try_from(shell.id()).unwrap();
        assert!(lists_children(), "the kernels that tests run on do");
        let found = std::iter::repeat_with(|| children(pid)).find(|found| !found.is_empty()).unwrap();
        let below = Tree::of_all().below(own);
        assert!(below.contains(&pid) && below.contains(&found[0]), "{below:?}");
        assert!(children(own).contains(&pid));
        assert_eq!(children(i32::MAX), [0; 0]);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(found[0]), nix::sys::signal::Signal::SIGKILL).unwrap();
        shell.wait().unwrap();
    }

    #[test]
    fn a_listener_is_known_by_its_address_and_its_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        let v6 = |port| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let v4 = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Each address a listener may have, and whether it is reached over IPv4 and IPv6 on loopback.
        for (bound, on_v4, on_v6) in
            [("127.0.0.1:0", true, false), ("0.0.0.0:0", true, false), ("[::1]:0", false, true), ("[::]:0", true, true)]
        {
            let listener = match TcpListener::bind(bound) {
                // There is no IPv6 on this machine.
                Err(_) if bound.starts_with('[') => continue,
                listener => listener.unwrap(),
            };
            let port = listener.local_addr().unwrap().port();
            let listeners = Listeners::of(&[own]);
            assert!(listeners.ports().contains(&port), "{bound}");
            assert_eq!(
                (!listeners.cannot_answer(v4(port)), !listeners.cannot_answer(v6(port))),
                (on_v4, on_v6),
                "{bound}"
            );
            assert!(Listeners::of(&[i32::MAX]).cannot_answer(v4(port)), "nobody who has ended listens");
        }
    }
}
