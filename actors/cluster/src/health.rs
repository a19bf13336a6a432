//! The state of the nodes, and an operator's commands to one.

use std::time::Duration;

use callboard_messages::{
    CallError, Caller, Failure, NodeId,
    cluster::{
        BreakerHold, ClusterError, ClusterView, DiskHealth, DomainHealth, GetCluster, GetNodeHealth, HoldBreaker,
        NodeHealth, NodeReport, ReviveDomain,
    },
};
use callboard_platform::cluster::Member;
use callboard_supervisors::{Handle, Outcome, breaker::Force};
use futures_util::future::join_all;

use crate::Cluster;

/// Time limit of a node's answer, when all are asked.
const PATIENCE: Duration = Duration::from_secs(2);

impl Handle<GetCluster> for Cluster {
    async fn handle(&self, caller: &Caller, _: GetCluster) -> Outcome<GetCluster> {
        let known = self.members.all();
        let caller = caller.clone().with_deadline(self.clock.instant() + PATIENCE);
        let nodes = known.members.iter().map(|member| self.report(&caller, member.clone()));
        Ok(ClusterView { answered_by: known.me, nodes: join_all(nodes).await })
    }
}

impl Handle<GetNodeHealth> for Cluster {
    async fn handle(&self, caller: &Caller, message: GetNodeHealth) -> Outcome<GetNodeHealth> {
        if message.node_id == self.members.me() {
            return self.health();
        }
        self.present(message.node_id)?;
        self.bus.ask_at(message.node_id.0, caller, message).await
    }
}

impl Handle<ReviveDomain> for Cluster {
    async fn handle(&self, caller: &Caller, message: ReviveDomain) -> Outcome<ReviveDomain> {
        if message.node_id != self.members.me() {
            self.present(message.node_id)?;
            return self.bus.ask_at(message.node_id.0, caller, message).await;
        }
        self.hosted(&message.domain)?;
        if !self.bus.revive(&message.domain) {
            let sentence = format!("the domain {} has not been given up here, or still stops", message.domain);
            return Err(ClusterError::NotNow(sentence).into());
        }
        Ok(())
    }
}

impl Handle<HoldBreaker> for Cluster {
    async fn handle(&self, caller: &Caller, message: HoldBreaker) -> Outcome<HoldBreaker> {
        if message.node_id != self.members.me() {
            self.present(message.node_id)?;
            return self.bus.ask_at(message.node_id.0, caller, message).await;
        }
        self.hosted(&message.domain)?;
        if message.domain == crate::DOMAIN && message.hold == BreakerHold::Open {
            let sentence = "the breaker of cluster can't be held open: it could not be released again";
            return Err(ClusterError::Invalid(sentence.to_owned()).into());
        }
        let force = match message.hold {
            BreakerHold::Open => Some(Force::Open),
            BreakerHold::Closed => Some(Force::Closed),
            BreakerHold::Released => None,
        };
        self.bus.force_breaker(&message.domain, force);
        tracing::warn!(domain = message.domain, hold = ?message.hold, "an operator holds a breaker");
        Ok(())
    }
}

impl Cluster {
    async fn report(&self, caller: &Caller, member: Member) -> NodeReport {
        let id = member.id;
        let outcome = match id {
            _ if !self.members.is_present(id) => return NodeReport { node: member, health: None, trouble: None },
            _ if id == self.members.me() => self.health(),
            _ => self.bus.ask_at(id.0, caller, GetNodeHealth { node_id: id }).await,
        };
        match outcome {
            Ok(health) => NodeReport { node: member, health: Some(health), trouble: None },
            Err(error) => NodeReport { node: member, health: None, trouble: Some(error.public_message().into_owned()) },
        }
    }

    fn health(&self) -> Outcome<GetNodeHealth> {
        let domain = |readiness: callboard_supervisors::Readiness| DomainHealth {
            domain: readiness.domain.to_owned(),
            ready: readiness.ready,
            reason: readiness.reason,
        };
        let tree = serde_json::to_value(self.bus.tree())
            .map_err(|error| Failure::Internal(format!("the actor tree can't be written: {error}")))?;
        let room = self.disk.room();
        let disk = room.map(|room| DiskHealth { full: self.disk.is_full(), free: room.free, total: room.total });
        let domains = self.bus.ready().into_iter().map(domain).collect();
        Ok(NodeHealth { id: self.members.me(), domains, tree, disk })
    }

    fn present(&self, id: NodeId) -> Result<(), ClusterError> {
        if self.members.is_present(id) { Ok(()) } else { Err(ClusterError::NotFound("node".to_owned())) }
    }

    fn hosted(&self, domain: &str) -> Result<(), CallError<ClusterError>> {
        if self.bus.actor(domain).is_some() { Ok(()) } else { Err(ClusterError::NotFound("domain".to_owned()).into()) }
    }
}
