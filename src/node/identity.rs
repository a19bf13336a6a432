//! Who a node is among others.

use std::{fs, path::Path};

use callboard_messages::{
    NodeId,
    cluster::{Node, NodeState},
};
use chrono::Utc;

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

/// The id that stays with the folder: a start finds by it what an earlier one left, its processes and its apps.
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

/// What people call this node unless told: its machine, and the port it listens on.
pub fn name(cluster: &ClusterChoice, port: u16) -> String {
    cluster.name.clone().unwrap_or_else(|| {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String =
            host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')).collect();
        format!("{}:{port}", if host.is_empty() { "node" } else { &host })
    })
}

/// The node as it shows itself to the others.
pub fn member(id: NodeId, cluster: &ClusterChoice, addresses: &Addresses, mode: Mode) -> Node {
    Node {
        id,
        name: name(cluster, addresses.local.port_or_known_default().unwrap_or_default()),
        address: addresses.advertised.as_str().trim_end_matches('/').to_owned(),
        domains: match mode {
            Mode::Dev => crate::config::DOMAINS.map(str::to_owned).to_vec(),
            Mode::Serve => cluster.hosted(),
        },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: NodeState::Up,
        // A node alone has joined nothing, and is there all the same.
        incarnation: i64::from(mode == Mode::Dev),
        joined_at: Utc::now(),
    }
}
