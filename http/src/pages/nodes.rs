//! The nodes of the platform, and which domains each of them hosts.

use std::collections::BTreeSet;

use actix_web::HttpResponse;
use callboard_messages::{
    NodeId,
    cluster::{GetCluster, NodeReport, NodeState},
};
use serde::Serialize;

use super::request::PageRequest;
use crate::problem::Problem;

#[derive(Serialize)]
struct NodesView {
    nodes: Vec<NodeRow>,
    answered_by: NodeId,
    placement: Vec<PlacementRow>,
    refresh: u32,
}

#[derive(Serialize)]
struct NodeRow {
    #[serde(flatten)]
    report: NodeReport,
    /// `ready`, `impaired`, `silent`, or the state of one that does not take part.
    condition: &'static str,
    /// Domains that take no traffic there, with the reason.
    lacking: Vec<(String, String)>,
    /// How full its disk is, in percent.
    disk_used: Option<u64>,
}

/// A domain, and on which nodes it is.
#[derive(Serialize)]
struct PlacementRow {
    domain: String,
    hosted: Vec<bool>,
}

pub(crate) async fn nodes(request: PageRequest) -> Result<HttpResponse, Problem> {
    let cluster = request.ask(GetCluster {}).await?;
    let present: Vec<&NodeReport> =
        cluster.nodes.iter().filter(|report| report.node.state != NodeState::Gone).collect();
    let domains: BTreeSet<&String> = present.iter().flat_map(|report| &report.node.domains).collect();
    let placement = domains.into_iter().map(|domain| PlacementRow {
        domain: domain.clone(),
        hosted: present.iter().map(|report| report.node.domains.contains(domain)).collect(),
    });
    let placement = placement.collect();
    let mut nodes: Vec<NodeRow> = cluster.nodes.into_iter().map(row).collect();
    // In the order of the placement's columns; those that are gone come last.
    nodes.sort_by_key(|row| row.report.node.state == NodeState::Gone);
    let view = NodesView { nodes, answered_by: cluster.answered_by, placement, refresh: 5 };
    request.render("nodes.html", &view).await
}

fn row(report: NodeReport) -> NodeRow {
    let health = report.health.as_ref();
    let lacking: Vec<(String, String)> = health
        .into_iter()
        .flat_map(|health| &health.domains)
        .filter(|domain| !domain.ready)
        .map(|domain| (domain.domain.clone(), domain.reason.clone().unwrap_or_default()))
        .collect();
    let condition = match (report.node.state, health) {
        (NodeState::Gone, _) => "gone",
        (NodeState::Draining, _) => "draining",
        (NodeState::Up, None) => "silent",
        (NodeState::Up, Some(_)) if lacking.is_empty() => "ready",
        (NodeState::Up, Some(_)) => "impaired",
    };
    let disk = health.and_then(|health| health.disk);
    let disk_used = disk.and_then(|disk| (disk.total.saturating_sub(disk.free) * 100).checked_div(disk.total));
    NodeRow { report, condition, lacking, disk_used }
}
