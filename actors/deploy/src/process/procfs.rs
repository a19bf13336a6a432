//! What `/proc` tells about processes. Elsewhere than on Linux it tells nothing, and only process groups are known.

use std::{collections::HashSet, fs, path::PathBuf};

use uuid::Uuid;

use super::{INSTANCE_VARIABLE, NODE_VARIABLE};

/// One process, as `/proc/<pid>/stat` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    /// In clock ticks since boot: with the pid it names a process for good.
    pub(crate) start_time: u64,
    /// Ended, but not waited for.
    pub(crate) is_zombie: bool,
}

/// The process with this id.
pub(crate) fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, parentheses too.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    let _parent = fields.next()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let start_time = fields.nth(15)?.parse().ok()?;
    Some(Process { pid, group, session, start_time, is_zombie: matches!(state, "Z" | "X") })
}

/// All processes that still run.
pub(crate) fn running() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter_map(process).filter(|process| !process.is_zombie).collect()
}

/// The memory a process has in use, in bytes.
pub(crate) fn resident(pid: i32) -> u64 {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return 0 };
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"));
    kibibytes.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// The node token and instance id in the environment a process was started with.
pub(crate) fn marks(pid: i32) -> Option<(String, Uuid)> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = |name: &str| {
        let mut variables = environment.split(|byte| *byte == 0);
        variables
            .find_map(|variable| std::str::from_utf8(variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?).ok())
    };
    Some((value(NODE_VARIABLE)?.to_owned(), value(INSTANCE_VARIABLE)?.parse().ok()?))
}

/// All running processes that carry this node's token, with the child they belong to.
pub(crate) fn named(node: &str) -> Vec<(Process, Uuid)> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let others = running().into_iter().filter(|process| process.pid != own);
    others
        .filter_map(|process| marks(process.pid).filter(|(token, _)| token == node).map(|(_, id)| (process, id)))
        .collect()
}

/// The TCP ports these processes listen on.
pub(crate) fn listening_ports(pids: &[i32]) -> Vec<u16> {
    let sockets: HashSet<String> = pids
        .iter()
        .filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok())
        .flatten()
        .filter_map(|entry| {
            fs::read_link(entry.ok()?.path())
                .ok()?
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')
                .map(str::to_owned)
        })
        .collect();
    let mut ports: Vec<u16> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|table| table.lines().filter_map(|line| listener(line, &sockets)).collect::<Vec<_>>())
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

// sl local_address rem_address st … inode, with 0A for a listening socket
fn listener(line: &str, sockets: &HashSet<String>) -> Option<u16> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let port = u16::from_str_radix(fields.next()?.rsplit(':').next()?, 16).ok()?;
    let is_listening = fields.nth(1)? == "0A";
    let inode = fields.nth(5)?;
    (is_listening && sockets.contains(inode)).then_some(port)
}

/// Differs after each boot, when pids and start times begin anew.
pub(crate) fn boot_id() -> String {
    let path = PathBuf::from("/proc/sys/kernel/random/boot_id");
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = process(pid).unwrap();
        assert!(own.start_time > 0 && !own.is_zombie && own.group > 0);
        assert!(running().contains(&own));
        assert!(resident(pid) > 100_000);
        assert!(process(i32::MAX).is_none());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(listening_ports(&[pid]).contains(&listener.local_addr().unwrap().port()));
    }
}
