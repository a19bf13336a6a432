//! Metrics of the cluster.

use callboard_messages::cluster::NodeState;
use callboard_platform::cluster::Member;
use prometheus::{
    IntCounter, IntGauge, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Gauges of the nodes by state and of the dead letters, and a counter of this node's fences.
#[derive(Clone)]
pub struct ClusterMetrics {
    nodes: IntGaugeVec,
    fenced: IntCounter,
    dead_letters: IntGauge,
    buried: IntCounter,
}

impl ClusterMetrics {
    /// Unregistered metrics.
    ///
    /// # Errors
    /// When a metric is malformed: a mistake in the program.
    pub fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            nodes: IntGaugeVec::new(
                Opts::new("callboard_cluster_nodes", "Nodes as this one sees them, by state."),
                &["state"],
            )?,
            fenced: IntCounter::new(
                "callboard_cluster_fenced_total",
                "How often this node was declared gone while it lived, and joined anew.",
            )?,
            dead_letters: IntGauge::new("callboard_dead_letters", "Events that a subscriber could not apply.")?,
            buried: IntCounter::new(
                "callboard_dead_letters_buried_total",
                "Dead letters that this node has taken in.",
            )?,
        })
    }

    pub(crate) fn count_nodes(&self, members: &[Member]) {
        for state in NodeState::ALL {
            let count = members.iter().filter(|member| member.state == state).count();
            self.nodes.with_label_values(&[state.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn fenced(&self) {
        self.fenced.inc();
    }

    pub(crate) fn buried(&self) {
        self.buried.inc();
    }

    pub(crate) fn set_dead_letters(&self, count: i64) {
        self.dead_letters.set(count);
    }
}

impl Collector for ClusterMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let parts: [&dyn Collector; 4] = [&self.nodes, &self.fenced, &self.dead_letters, &self.buried];
        parts.into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let parts: [&dyn Collector; 4] = [&self.nodes, &self.fenced, &self.dead_letters, &self.buried];
        parts.into_iter().flat_map(Collector::collect).collect()
    }
}
