//! The identity of a node.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use callboard_messages::{
    NodeId,
    cluster::{Node, NodeState},
};
use chrono::Utc;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::addresses::Addresses;
use crate::{
    client::contexts::write_private,
    config::{ClusterChoice, Mode},
    error::{Context, Result},
};

/// The file of the node's id in its data folder.
const ID: &str = "node.id";

/// Whether a node has used the folder before.
pub fn is_known(data: &Path) -> bool {
    data.join(ID).exists()
}

/// The id that stays with the folder: a start finds by it the processes and apps of an earlier one.
pub fn id(data: &Path) -> Result<NodeId> {
    let path = data.join(ID);
    if let Ok(text) = fs::read_to_string(&path)
        && let Ok(id) = text.trim().parse::<NodeId>()
    {
        return Ok(id);
    }
    let id = NodeId::new();
    write_private(&path, id.to_string().as_bytes()).context(|| format!("write {}", path.display()))?;
    Ok(id)
}

/// The file that identifies the last process of the node.
const PROCESS: &str = "node.process";

/// The last process, if the folder was not copied and the machine not restarted since.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct LastProcess {
    process: Uuid,
    boot: String,
    device: u64,
    inode: u64,
}

impl LastProcess {
    fn here(data: &Path, process: Uuid) -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let id = fs::metadata(data.join(ID)).ok()?;
        Some(Self { process, boot, device: id.dev(), inode: id.ino() })
    }
}

/// The last process of the node, if it is certain that it has ended: it had the lock of this very folder, which this
/// process has now. In a copy of the folder, or of the whole machine, nothing is certain.
pub fn earlier_process(data: &Path) -> Option<Uuid> {
    let last: LastProcess = serde_json::from_slice(&fs::read(data.join(PROCESS)).ok()?).ok()?;
    (LastProcess::here(data, last.process)? == last).then_some(last.process)
}

/// Records this process as the node's.
pub fn remember_process(data: &Path, process: Uuid) -> Result {
    let path = data.join(PROCESS);
    let Some(last) = LastProcess::here(data, process) else { return Ok(()) };
    let text = serde_json::to_vec(&last).context(|| "write down which process this node is".to_owned())?;
    write_private(&path, &text).context(|| format!("write {}", path.display()))
}

/// The default name of this node: its machine, and the port it listens on.
pub fn name(cluster: &ClusterChoice, port: u16) -> String {
    cluster.name.clone().unwrap_or_else(|| {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String =
            host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')).collect();
        format!("{}:{port}", if host.is_empty() { "node" } else { &host })
    })
}

/// The node in the membership.
pub fn member(id: NodeId, cluster: &ClusterChoice, addresses: &Addresses, mode: Mode) -> Node {
    Node {
        id,
        name: name(cluster, addresses.local.port_or_known_default().unwrap_or_default()),
        address: addresses.advertised.as_str().trim_end_matches('/').to_owned(),
        domains: cluster.hosted(mode),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: NodeState::Up,
        // A node that is alone has not joined, and is present all the same.
        incarnation: i64::from(mode == Mode::Dev),
        joined_at: Utc::now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_process_is_known_in_its_own_folder_and_not_in_a_copy() {
        let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(earlier_process(folder.path()), None);
        id(folder.path()).unwrap();
        let process = Uuid::now_v7();
        remember_process(folder.path(), process).unwrap();
        assert_eq!(earlier_process(folder.path()), Some(process));
        for file in [ID, PROCESS] {
            fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
        }
        assert_eq!(earlier_process(copy.path()), None);
        // As on a copied disk, after the machine was started.
        let text = fs::read_to_string(folder.path().join(PROCESS)).unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        fs::write(folder.path().join(PROCESS), text.replace(boot.trim(), "another")).unwrap();
        assert_eq!(earlier_process(folder.path()), None);
    }
}
