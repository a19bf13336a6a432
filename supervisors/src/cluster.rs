//! The nodes of the cluster, as one process knows them.
//!
//! The domain `cluster` writes what it has read from the store; everybody else watches. A node is *up* while it renews
//! its row; another that has seen no renewal for a while, on its own monotonic clock, declares it *gone*. A node that
//! was declared gone although it lives is **fenced**: it learns so at its next renewal, joins anew under a higher
//! incarnation, and whoever owns something in the node's name then reads again what is still the node's own.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

pub use callboard_messages::{
    NodeId,
    cluster::{Node as Member, NodeState},
};
use tokio::sync::watch;

/// What is known of the cluster at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Membership {
    /// This process.
    pub me: NodeId,
    /// Grows each time this node joins, also after it was fenced; zero before it has joined.
    pub incarnation: i64,
    /// Every node that is up, drains, or is gone and not yet forgotten; this one among them.
    pub members: Vec<Member>,
}

impl Membership {
    /// A node by its id.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }
}

/// A watch of the membership. Cheap to clone; each clone notices changes for itself.
#[derive(Debug, Clone)]
pub struct Members {
    publish: Arc<watch::Sender<Arc<Membership>>>,
    seen: watch::Receiver<Arc<Membership>>,
    draining: Arc<AtomicBool>,
    holds: Arc<watch::Sender<usize>>,
}

/// Keeps a node that drains from ending before something is handed over; dropped, it does not any longer.
#[derive(Debug)]
pub struct Hold(Arc<watch::Sender<usize>>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.send_modify(|holds| *holds = holds.saturating_sub(1));
    }
}

impl Members {
    /// A cluster that so far consists of this node.
    #[must_use]
    pub fn alone(me: Member) -> Self {
        let (publish, seen) =
            watch::channel(Arc::new(Membership { me: me.id, incarnation: me.incarnation, members: vec![me] }));
        Self { publish: Arc::new(publish), seen, draining: Arc::default(), holds: Arc::new(watch::Sender::new(0)) }
    }

    /// This process.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.seen.borrow().me
    }

    /// What is known now.
    #[must_use]
    pub fn all(&self) -> Arc<Membership> {
        self.seen.borrow().clone()
    }

    /// Whether the node takes part: up, or draining and still there.
    #[must_use]
    pub fn is_present(&self, id: NodeId) -> bool {
        self.seen.borrow().get(id).is_some_and(|member| member.state != NodeState::Gone)
    }

    /// Whether the node takes on new work.
    #[must_use]
    pub fn is_up(&self, id: NodeId) -> bool {
        self.seen.borrow().get(id).is_some_and(|member| member.state == NodeState::Up)
    }

    /// Where the node's listener is reached by other nodes: `http://host:port`, without a slash at its end.
    #[must_use]
    pub fn address(&self, id: NodeId) -> Option<String> {
        self.seen.borrow().get(id).filter(|member| member.state != NodeState::Gone).map(|member| member.address.clone())
    }

    /// Under which incarnation this node takes part. What is done in its name is valid only while it stays the same.
    #[must_use]
    pub fn incarnation(&self) -> i64 {
        self.seen.borrow().incarnation
    }

    /// Waits until something changes that this clone has not seen.
    pub async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            // This clone holds the sender too, so that it can't have gone.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until this node has joined anew, because others had declared it gone.
    pub async fn fenced(&self) {
        let mut seen = self.seen.clone();
        let before = seen.borrow_and_update().incarnation;
        if seen.wait_for(|now| now.incarnation > before && before > 0).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// This node takes on nothing new from now on, and hands over what it has. Its own parts learn so at once, the other
    /// nodes from the domain `cluster`.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        let now = self.all();
        self.publish(now.incarnation, now.members.clone());
    }

    /// Whether this node drains.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Keeps this node from ending, should it drain, until the hold is dropped; there is a limit to how long.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.holds.send_modify(|holds| *holds += 1);
        Hold(self.holds.clone())
    }

    /// Waits until nobody holds this node.
    pub async fn released(&self) {
        // The sender lives as long as this does.
        drop(self.holds.subscribe().wait_for(|holds| *holds == 0).await);
    }

    /// Tells everybody in this process; nobody is woken when nothing has changed. For the domain `cluster`.
    pub fn publish(&self, incarnation: i64, mut members: Vec<Member>) {
        let (me, draining) = (self.me(), self.is_draining());
        for member in members.iter_mut().filter(|member| draining && member.id == me && member.state == NodeState::Up) {
            member.state = NodeState::Draining;
        }
        self.publish.send_if_modified(|current| {
            let next = Membership { me: current.me, incarnation, members };
            let changed = **current != next;
            if changed {
                *current = Arc::new(next);
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(state: NodeState) -> Member {
        Member {
            id: NodeId::new(),
            name: "a".to_owned(),
            address: "http://127.0.0.1:1".to_owned(),
            domains: vec!["auth".to_owned()],
            version: "0.1.0".to_owned(),
            state,
            incarnation: 1,
            joined_at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    #[actix_rt::test]
    async fn a_node_alone_is_up_and_a_gone_one_has_no_address() {
        let (me, gone) = (member(NodeState::Up), member(NodeState::Gone));
        let mut members = Members::alone(me.clone());
        assert!(members.is_up(me.id) && !members.is_present(gone.id));
        let watcher = members.clone();
        watcher.publish(1, vec![me.clone(), gone.clone()]);
        members.changed().await;
        assert_eq!(members.address(me.id), Some(me.address));
        assert_eq!((members.address(gone.id), members.is_present(gone.id)), (None, false));
    }

    #[actix_rt::test]
    async fn a_fenced_node_learns_that_it_joined_anew() {
        let me = member(NodeState::Up);
        let members = Members::alone(me.clone());
        let (fenced, ()) =
            tokio::join!(tokio::time::timeout(std::time::Duration::from_secs(10), members.fenced()), async {
                members.publish(2, vec![me.clone()])
            });
        assert!(fenced.is_ok());
        assert_eq!(members.incarnation(), 2);
    }

    #[actix_rt::test]
    async fn a_node_that_drains_waits_for_what_is_handed_over() {
        let me = member(NodeState::Up);
        let members = Members::alone(me.clone());
        let hold = members.hold();
        members.drain();
        assert!(!members.is_up(me.id) && members.is_present(me.id));
        members.publish(1, vec![me.clone()]);
        assert!(!members.is_up(me.id), "a late reading of the store does not undo it");
        tokio::select! {
            biased;
            () = members.released() => panic!("it is held"),
            () = std::future::ready(()) => drop(hold),
        }
        members.released().await;
    }
}
