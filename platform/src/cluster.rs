//! The nodes of the cluster, as one process knows them.
//!
//! The domain `cluster` publishes what it has read from the store; everybody else watches. A node is *up* while it
//! renews its row; another that has seen no renewal for a while, on its own monotonic clock, declares it *gone*. A live
//! node that was declared gone is **fenced**: it learns that at its next renewal, joins anew under a higher
//! incarnation, and owners on it then read again what the node still owns.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

pub use callboard_messages::{
    NodeId,
    cluster::{Node as Member, NodeState},
};
use parking_lot::RwLock;
use tokio::sync::watch;

use callboard_supervisors::{Away, Part, Requirement};

/// How long a node's report about its domains is valid.
const REPORTS_HOLD: Duration = Duration::from_secs(15);

/// A snapshot of the membership.
#[derive(Debug, Clone, PartialEq)]
pub struct Membership {
    /// This process.
    pub me: NodeId,
    /// Higher each time this node joins, also after it was fenced; zero before it has joined.
    pub incarnation: i64,
    /// Every node that is up, drains, or is gone and still listed; including this one.
    pub members: Vec<Member>,
}

impl Membership {
    /// A node by its id.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The nodes that took part in `before` and were declared gone since. Without those that have left by themselves,
    /// which finish what they had begun.
    pub fn lost_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a Member> + 'a {
        self.members.iter().filter(|now| {
            let took_part = |then: &Member| then.state != NodeState::Gone && then.incarnation < now.incarnation;
            now.id != self.me && now.state == NodeState::Gone && before.get(now.id).is_some_and(took_part)
        })
    }

    /// The nodes that take part and host this domain.
    pub fn hosts<'a>(&'a self, domain: &'a str) -> impl Iterator<Item = &'a Member> + 'a {
        let hosts = move |member: &&Member| member.domains.iter().any(|hosted| hosted == domain);
        self.members.iter().filter(|member| member.state != NodeState::Gone).filter(hosts)
    }
}

/// A watch of the membership. Cheap to clone; each clone notices changes for itself.
#[derive(Debug, Clone)]
pub struct Members {
    publish: Arc<watch::Sender<Arc<Membership>>>,
    seen: watch::Receiver<Arc<Membership>>,
    draining: Arc<AtomicBool>,
    holds: Arc<watch::Sender<usize>>,
    /// Reports of other nodes about the domains that they host.
    reports: Arc<RwLock<HashMap<NodeId, Report>>>,
    /// Why this process must end, once it must.
    displaced: Arc<watch::Sender<Option<String>>>,
}

/// A node's report: the domains it hosts that are not ready.
#[derive(Debug)]
struct Report {
    told: Instant,
    away: HashMap<String, Away>,
}

/// Keeps a draining node from ending until a handover is done, which drops it.
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
        Self {
            publish: Arc::new(publish),
            seen,
            draining: Arc::default(),
            holds: Arc::new(watch::Sender::new(0)),
            reports: Arc::default(),
            displaced: Arc::new(watch::Sender::new(None)),
        }
    }

    /// This process.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.seen.borrow().me
    }

    /// The membership now.
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

    /// The node's listener for other nodes: `http://host:port`, without a slash at its end.
    #[must_use]
    pub fn address(&self, id: NodeId) -> Option<String> {
        self.seen.borrow().get(id).filter(|member| member.state != NodeState::Gone).map(|member| member.address.clone())
    }

    /// The incarnation under which this node takes part. Its writes are valid only while it stays the same.
    #[must_use]
    pub fn incarnation(&self) -> i64 {
        self.seen.borrow().incarnation
    }

    /// Waits until something changes that this clone has not seen.
    pub async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            // This clone holds the sender too.
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

    /// Begins the drain of this node: it takes on nothing new, and hands over what it has. Its own parts learn so at
    /// once, the other nodes from the domain `cluster`.
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

    /// Keeps this node from ending, should it drain, until the hold is dropped or the drain's time is over.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.holds.send_modify(|holds| *holds += 1);
        Hold(self.holds.clone())
    }

    /// Waits until no hold is left.
    pub async fn released(&self) {
        // The sender lives as long as this does.
        drop(self.holds.subscribe().wait_for(|holds| *holds == 0).await);
    }

    /// Notes a node's report of the domains it hosts that are not ready.
    pub fn report(&self, node: NodeId, now: Instant, away: HashMap<String, Away>) {
        self.reports.write().insert(node, Report { told: now, away });
    }

    /// The hosts of a domain, as a requirement of those that reach it from here.
    #[must_use]
    pub fn hosting(&self, domain: &'static str) -> impl Requirement + use<> {
        let members = self.clone();
        move || members.host_away(domain, Instant::now())
    }

    /// Why no node answers for a domain, as far as nodes have reported.
    fn host_away(&self, domain: &str, now: Instant) -> Option<Away> {
        let all = self.all();
        if all.incarnation == 0 {
            return Some(Away::new(Part::Node, "this node has not joined the others yet"));
        }
        let reports = self.reports.read();
        let mut first = None;
        for host in all.hosts(domain) {
            let report =
                reports.get(&host.id).filter(|report| now.saturating_duration_since(report.told) < REPORTS_HOLD);
            // A node without a report on the domain counts as ready.
            let away = report.and_then(|report| report.away.get(domain))?;
            first.get_or_insert_with(|| Away::new(away.part, format!("on node {}: {}", host.name, away.reason)));
        }
        Some(first.unwrap_or_else(|| Away::new(Part::Node, format!("no node that hosts {domain} is up"))))
    }

    /// Ends this process, because another has this node's id and the right to it. For the domain `cluster`.
    pub fn displace(&self, sentence: String) {
        self.displaced.send_if_modified(|displaced| {
            let is_first = displaced.is_none();
            if is_first {
                *displaced = Some(sentence);
            }
            is_first
        });
    }

    /// Whether another process has the node's id, so that this one must end.
    #[must_use]
    pub fn is_displaced(&self) -> bool {
        self.displaced.borrow().is_some()
    }

    /// Waits until this process must end, because another has the node's id. Returns why.
    pub async fn displaced(&self) -> String {
        let mut displaced = self.displaced.subscribe();
        match displaced.wait_for(Option::is_some).await.map(|sentence| sentence.clone()) {
            Ok(Some(sentence)) => sentence,
            // The sender lives as long as this does.
            _ => std::future::pending().await,
        }
    }

    /// Publishes a membership in this process; wakes nobody when nothing has changed. For the domain `cluster`.
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

    fn named(name: &str, state: NodeState, incarnation: i64, domain: &str) -> Member {
        Member { name: name.to_owned(), incarnation, domains: vec![domain.to_owned()], ..member(state) }
    }

    #[test]
    fn a_domain_is_away_when_no_node_hosts_it_or_none_of_them_can_answer_for_it() {
        let (me, one, two) = (
            named("me", NodeState::Up, 1, "auth"),
            named("one", NodeState::Up, 1, "deploy"),
            named("two", NodeState::Draining, 1, "deploy"),
        );
        let members = Members::alone(Member { incarnation: 0, ..me.clone() });
        let deploy = members.hosting("deploy");
        let reason = || deploy.away().map(|away| (away.part, away.reason.into_owned()));
        assert!(reason().unwrap().1.contains("has not joined"));
        members.publish(1, vec![me.clone(), one.clone(), two.clone()]);
        assert_eq!(reason(), None);
        let away = || HashMap::from([("deploy".to_owned(), Away::new(Part::Database, "PostgreSQL is away"))]);
        members.report(one.id, Instant::now(), away());
        assert_eq!(reason(), None, "the other one answers");
        members.report(two.id, Instant::now(), away());
        assert_eq!(reason(), Some((Part::Database, "on node one: PostgreSQL is away".to_owned())));
        members.report(one.id, Instant::now() - REPORTS_HOLD, away());
        assert_eq!(reason(), None, "what was told long ago says nothing");
        members.report(one.id, Instant::now(), HashMap::new());
        assert_eq!(reason(), None);
        let gone = |member: &Member| Member { state: NodeState::Gone, ..member.clone() };
        members.publish(1, vec![me, gone(&one), gone(&two)]);
        assert_eq!(reason(), Some((Part::Node, "no node that hosts deploy is up".to_owned())));
    }

    #[test]
    fn a_node_that_was_declared_gone_is_lost_and_one_that_has_left_is_not() {
        let (me, frozen, leaving) = (member(NodeState::Up), member(NodeState::Up), member(NodeState::Draining));
        let members = Members::alone(me.clone());
        members.publish(1, vec![me.clone(), frozen.clone(), leaving.clone()]);
        let before = members.all();
        let declared = Member { state: NodeState::Gone, incarnation: 2, ..frozen.clone() };
        let left = Member { state: NodeState::Gone, ..leaving };
        members.publish(1, vec![me.clone(), declared.clone(), left.clone()]);
        let after = members.all();
        assert_eq!(after.lost_since(&before).map(|member| member.id).collect::<Vec<_>>(), [frozen.id]);
        assert_eq!(after.lost_since(&after).count(), 0, "only once");
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
