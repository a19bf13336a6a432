//! Routing of requests while a host of their domain is lost.
//!
//! Requests for a domain go to a queue that all of its hosts consume. A host that froze stays its consumer until the
//! broker misses it, and does not answer what it is given meanwhile. The cluster notices sooner. When it declares a
//! node gone, the calls that only this node could answer are failed, those to a domain without another host among them,
//! and so are idempotent calls to its domains, whoever has them. For a while then, requests for these domains go to the
//! queues of the remaining hosts, in turn.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use callboard_platform::cluster::{Member, Members, NodeId, NodeState};
use callboard_supervisors::{ChildContext, Exit};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{calls::Certainty, presence::Whom, shared::Shared};

/// The broker closes a connection after two heartbeats without a sign of life; after this many a lost node gets no
/// more.
const MISSED: u32 = 6;

/// Hosts that are lost.
#[derive(Default)]
pub(crate) struct Hosts {
    members: OnceLock<Members>,
    lost: Mutex<Vec<Lost>>,
    /// Whether any is lost, which is rare.
    any_lost: AtomicBool,
    /// Number of losses so far.
    losses: AtomicU64,
    turn: AtomicUsize,
}

struct Lost {
    node: Uuid,
    domains: Vec<String>,
    until: Instant,
}

/// Where a request for a domain goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// To the queue of the domain.
    Anybody,
    /// To the queue of this node.
    Node(Uuid),
    /// Nowhere: no host is left.
    Nobody,
}

impl Hosts {
    /// Sets the members of the cluster.
    pub(crate) fn know(&self, members: Members) {
        // A bridge belongs to one node, which is of one cluster.
        let _ = self.members.set(members);
    }

    /// Where a request goes. `is_absent` tells whether a node's queue has no consumer.
    pub(crate) fn aim(&self, domain: &str, now: Instant, is_absent: impl Fn(Uuid) -> bool) -> Aim {
        if !self.any_lost.load(Ordering::Acquire) || !self.has_lost(domain, now) {
            return Aim::Anybody;
        }
        let Some(members) = self.members.get() else { return Aim::Anybody };
        let all = members.all();
        let hosts: Vec<&Member> = all.hosts(domain).filter(|host| !is_absent(host.id.0)).collect();
        // A draining host is chosen only when none is up.
        let up: Vec<&&Member> = hosts.iter().filter(|host| host.state == NodeState::Up).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let chosen = up.get(turn % up.len().max(1)).copied().or(hosts.first());
        chosen.map_or(Aim::Nobody, |host| Aim::Node(host.id.0))
    }

    fn has_lost(&self, domain: &str, now: Instant) -> bool {
        let mut lost = self.lost.lock();
        lost.retain(|lost| now < lost.until);
        self.any_lost.store(!lost.is_empty(), Ordering::Release);
        lost.iter().any(|lost| lost.domains.iter().any(|hosted| hosted == domain))
    }

    fn lose(&self, member: &Member, until: Instant) {
        let mut lost = self.lost.lock();
        lost.retain(|lost| lost.node != member.id.0);
        lost.push(Lost { node: member.id.0, domains: member.domains.clone(), until });
        self.any_lost.store(true, Ordering::Release);
        self.losses.fetch_add(1, Ordering::AcqRel);
    }

    /// Number of losses so far: a target chosen before the last may be the lost node.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// Forgets the loss of nodes that are present again.
    fn find(&self, is_present: impl Fn(Uuid) -> bool) {
        let mut lost = self.lost.lock();
        lost.retain(|lost| !is_present(lost.node));
        self.any_lost.store(!lost.is_empty(), Ordering::Release);
    }
}

/// The actor that fails calls when the cluster declares a node gone.
pub(crate) async fn run(context: ChildContext, shared: Arc<Shared>) -> Exit {
    let Some(mut members) = shared.hosts.members.get().cloned() else {
        context.stopping().await;
        return Exit::Shutdown;
    };
    let mut before = members.all();
    loop {
        tokio::select! {
            () = context.stopping() => return Exit::Shutdown,
            () = members.changed() => {}
        }
        let now = members.all();
        shared.hosts.find(|node| members.is_present(NodeId(node)));
        for lost in now.lost_since(&before) {
            let until = Instant::now() + shared.settings.silence * MISSED;
            // First, so that a caller that retries gets another host.
            shared.hosts.lose(lost, until);
            let given_up = shared.calls.give_up_at(|whom| match whom {
                Whom::Node(node) => (node == lost.id.0).then_some(Certainty::Sure),
                // Without another host the call is at the lost one, or in a queue without consumers.
                Whom::Domain(domain) => lost.domains.iter().any(|of| of == domain).then(|| {
                    let is_hosted = now.hosts(domain).next().is_some();
                    if is_hosted { Certainty::Possible } else { Certainty::Sure }
                }),
            });
            if given_up > 0 {
                tracing::warn!(node = lost.name, given_up, "failed the calls to a node that was declared gone");
            }
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn member(name: &str, domain: &str, state: NodeState) -> Member {
        Member {
            id: NodeId::new(),
            name: name.to_owned(),
            address: "http://127.0.0.1:1".to_owned(),
            domains: vec![domain.to_owned()],
            version: "0.1.0".to_owned(),
            state,
            incarnation: 1,
            joined_at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_domain_of_a_lost_node_is_asked_at_those_that_are_left_until_the_broker_has_missed_it() {
        let [me, frozen, one, two, draining] = [
            member("me", "auth", NodeState::Up),
            member("frozen", "deploy", NodeState::Gone),
            member("one", "deploy", NodeState::Up),
            member("two", "deploy", NodeState::Up),
            member("draining", "deploy", NodeState::Draining),
        ];
        let members = Members::alone(me.clone());
        members.publish(1, vec![me.clone(), frozen.clone(), one.clone(), two.clone(), draining.clone()]);
        let (hosts, now) = (Hosts::default(), Instant::now());
        let aim = |domain: &str, absent: &[&Member]| {
            hosts.aim(domain, now, |node| absent.iter().any(|member| member.id.0 == node))
        };
        hosts.know(members.clone());
        assert_eq!(aim("deploy", &[]), Aim::Anybody, "nobody is lost");
        hosts.lose(&frozen, now + LONG);
        let mut asked = [aim("deploy", &[]), aim("deploy", &[])];
        asked.sort_by_key(|aim| *aim == Aim::Node(two.id.0));
        assert_eq!(asked, [Aim::Node(one.id.0), Aim::Node(two.id.0)]);
        assert_eq!(aim("deploy", &[&one]), Aim::Node(two.id.0));
        assert_eq!(aim("deploy", &[&one, &two]), Aim::Node(draining.id.0));
        assert_eq!(aim("deploy", &[&one, &two, &draining]), Aim::Nobody);
        assert_eq!(aim("auth", &[]), Aim::Anybody, "it hosted nothing of that");
        assert_eq!(hosts.aim("deploy", now + LONG, |_| false), Aim::Anybody, "the broker gives it nothing any more");
        hosts.lose(&frozen, now + LONG);
        hosts.find(|node| node == frozen.id.0);
        assert_eq!(aim("deploy", &[]), Aim::Anybody, "it is back");
    }
}
