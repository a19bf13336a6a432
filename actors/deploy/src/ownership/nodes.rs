//! The membership of the cluster, as far as the ownership of apps and builds depends on it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use callboard_platform::cluster::{Hold, Member, Members, NodeId, NodeState};
use parking_lot::Mutex;
use uuid::Uuid;

/// How long a node may be missing from the membership until it counts as gone: it may have joined since that was read.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);

/// The membership, and since when nodes are missing from it.
pub(crate) struct Nodes {
    members: Members,
    /// Since when an owner is missing from the membership.
    unknown: Mutex<HashMap<Uuid, Instant>>,
}

impl Nodes {
    pub(crate) fn new(members: Members) -> Self {
        Self { members, unknown: Mutex::default() }
    }

    /// The membership to watch for changes.
    pub(crate) fn watch(&self) -> Members {
        self.members.clone()
    }

    /// Keeps this node up while it drains, for as long as the hold lives.
    pub(crate) fn hold(&self) -> Hold {
        self.members.hold()
    }

    /// This node.
    pub(crate) fn me(&self) -> Uuid {
        self.members.me().0
    }

    /// Whether this node has joined: before, it does not know the others.
    pub(crate) fn has_joined(&self) -> bool {
        self.members.incarnation() > 0
    }

    /// Whether this node drains.
    pub(crate) fn is_draining(&self) -> bool {
        let all = self.members.all();
        self.members.is_draining() || all.get(all.me).is_some_and(|me| me.state == NodeState::Draining)
    }

    /// Whether another node is up and runs apps.
    pub(crate) fn can_hand_over(&self) -> bool {
        let all = self.members.all();
        all.members.iter().any(|member| member.id != all.me && hosts_apps(member) && member.state == NodeState::Up)
    }

    /// Whether the node is a member that is not gone and runs apps.
    pub(crate) fn is_present(&self, node: Uuid) -> bool {
        let all = self.members.all();
        all.get(NodeId(node)).is_some_and(|member| hosts_apps(member) && member.state != NodeState::Gone)
    }

    /// Whether others may take over what the node owns.
    pub(crate) fn is_gone(&self, node: Uuid, now: Instant) -> bool {
        if node == self.me() || !self.has_joined() {
            return false;
        }
        let all = self.members.all();
        let mut unknown = self.unknown.lock();
        match all.get(NodeId(node)) {
            Some(member) => {
                unknown.remove(&node);
                member.state == NodeState::Gone || !hosts_apps(member)
            }
            None => now.saturating_duration_since(*unknown.entry(node).or_insert(now)) >= UNKNOWN_FOR,
        }
    }

    /// The node's name, or its id when it is unknown.
    pub(crate) fn name(&self, node: Uuid) -> String {
        let all = self.members.all();
        all.get(NodeId(node)).map_or_else(|| node.to_string(), |member| member.name.clone())
    }
}

fn hosts_apps(member: &Member) -> bool {
    member.domains.iter().any(|domain| domain == crate::DOMAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(state: NodeState, domain: &str) -> Member {
        Member {
            id: NodeId::new(),
            name: "a".to_owned(),
            address: "http://127.0.0.1:1".to_owned(),
            domains: vec![domain.to_owned()],
            version: "0.1.0".to_owned(),
            state,
            incarnation: 1,
            joined_at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_node_that_is_unknown_counts_as_gone_only_after_a_while() {
        let me = member(NodeState::Up, crate::DOMAIN);
        let (up, gone, other) = (
            member(NodeState::Up, crate::DOMAIN),
            member(NodeState::Gone, crate::DOMAIN),
            member(NodeState::Up, "auth"),
        );
        let members = Members::alone(me.clone());
        members.publish(1, vec![me.clone(), up.clone(), gone.clone(), other.clone()]);
        let (nodes, now, unknown) = (Nodes::new(members), Instant::now(), Uuid::now_v7());
        assert!(!nodes.is_gone(me.id.0, now) && !nodes.is_gone(up.id.0, now));
        assert!(nodes.is_gone(gone.id.0, now) && nodes.is_gone(other.id.0, now));
        assert!(!nodes.is_gone(unknown, now) && !nodes.is_gone(unknown, now + UNKNOWN_FOR / 2));
        assert!(nodes.is_gone(unknown, now + UNKNOWN_FOR));
        assert!(nodes.can_hand_over());
    }
}
