//! `callboard nodes`.

use callboard_messages::{
    NodeId,
    cluster::{BreakerHold, ClusterView, NodeHealth, NodeReport, NodeState},
};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::{
    cli::session::Session,
    error::{Error, Result},
    output::table,
};

const MIB: u64 = 1024 * 1024;

#[derive(Debug, Args)]
pub struct Nodes {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Give a domain of a node that was given up after too many restarts another chance
    Revive {
        /// The node's name or id
        node: String,
        /// The domain
        domain: String,
    },
    /// Hold the breakers of a domain on a node open or closed, or let them judge again
    Breaker {
        /// The node's name or id
        node: String,
        /// The domain
        domain: String,
        /// How
        hold: Hold,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Hold {
    Open,
    Closed,
    Released,
}

impl Nodes {
    pub async fn run(self, session: &Session) -> Result {
        let cluster: ClusterView = session.client.get("/cluster").await?;
        match self.verb {
            None => {
                session.output.show(&cluster, |cluster| show(cluster, session));
                Ok(())
            }
            Some(Verb::Revive { node, domain }) => {
                let id = find(&cluster, &node)?;
                let path = format!("/cluster/nodes/{id}/domains/{domain}/revive");
                session.client.post::<Value>(&path, &json!({})).await?;
                session.output.show(&json!({ "node": id, "domain": domain, "revived": true }), |_| {
                    format!("-----> {domain} begins anew on {node}")
                });
                Ok(())
            }
            Some(Verb::Breaker { node, domain, hold }) => {
                let id = find(&cluster, &node)?;
                let hold = match hold {
                    Hold::Open => BreakerHold::Open,
                    Hold::Closed => BreakerHold::Closed,
                    Hold::Released => BreakerHold::Released,
                };
                let path = format!("/cluster/nodes/{id}/domains/{domain}/breaker");
                session.client.post::<Value>(&path, &json!({ "hold": hold })).await?;
                session.output.show(&json!({ "node": id, "domain": domain, "hold": hold }), |_| match hold {
                    BreakerHold::Open => format!("-----> Every call of {domain} on {node} is refused"),
                    BreakerHold::Closed => format!("-----> Every call of {domain} on {node} passes"),
                    BreakerHold::Released => format!("-----> The breaker of {domain} on {node} judges again"),
                });
                Ok(())
            }
        }
    }
}

/// The node of that name or id; names can be shared by one that is gone.
fn find(cluster: &ClusterView, named: &str) -> Result<NodeId> {
    let present = |report: &&NodeReport| report.node.state != NodeState::Gone;
    let is_named = |report: &&NodeReport| report.node.name == named || report.node.id.to_string() == named;
    let mut found = cluster.nodes.iter().filter(present).filter(is_named);
    match (found.next(), found.next()) {
        (Some(report), None) => Ok(report.node.id),
        (Some(_), Some(_)) => Err(Error::failure(format!("several nodes are named {named}; say which by its id"))),
        (None, _) => Err(Error::failure(format!("there is no node {named}")).hint("the nodes: callboard nodes")),
    }
}

fn show(cluster: &ClusterView, session: &Session) -> String {
    let mut text = table(
        ["NODE", "STATE", "HEALTH", "ADDRESS", "HOSTS", "VERSION", "JOINED", "ID"],
        cluster.nodes.iter().map(|report| row(report, cluster)),
    );
    for report in &cluster.nodes {
        for line in troubles(report) {
            text.push_str(&session.output.dim(&format!("{}: {line}\n", report.node.name)));
        }
    }
    text
}

fn row(report: &NodeReport, cluster: &ClusterView) -> [String; 8] {
    let node = &report.node;
    let state = match node.state {
        NodeState::Up => "up",
        NodeState::Draining => "draining",
        NodeState::Gone => "gone",
    };
    let health = match &report.health {
        Some(health) if health.domains.iter().all(|domain| domain.ready) && !has_full_disk(health) => "ready",
        Some(_) => "impaired",
        None if node.state == NodeState::Gone => "-",
        None => "silent",
    };
    let me = if node.id == cluster.answered_by { "*" } else { "" };
    let hosts = if node.domains.is_empty() { "-".to_owned() } else { node.domains.join(",") };
    [
        format!("{}{me}", node.name),
        state.to_owned(),
        health.to_owned(),
        node.address.clone(),
        hosts,
        node.version.clone(),
        node.joined_at.format("%F %R").to_string(),
        node.id.to_string(),
    ]
}

fn troubles(report: &NodeReport) -> Vec<String> {
    let of_domains = report.health.iter().flat_map(|health| &health.domains).filter(|domain| !domain.ready);
    let of_domains = of_domains.map(|domain| {
        let reason = domain.reason.as_deref().unwrap_or("no reason given");
        match domain.domain == callboard_http::DOMAIN {
            // It goes on with whatever does not need the part.
            true => format!("the gateway lacks a part: {reason}"),
            false => format!("{} can't take traffic: {reason}", domain.domain),
        }
    });
    let of_disk = report.health.as_ref().filter(|health| has_full_disk(health)).and_then(|health| health.disk);
    let of_disk = of_disk.map(|disk| {
        let (free, total) = (disk.free / MIB, disk.total / MIB);
        format!("its disk is full, {free} MiB of {total} MiB are free: it takes no builds until there is room")
    });
    report.trouble.clone().into_iter().chain(of_domains).chain(of_disk).collect()
}

fn has_full_disk(health: &NodeHealth) -> bool {
    health.disk.is_some_and(|disk| disk.full)
}
