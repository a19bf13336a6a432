//! How many connections there are, gathered when they are scraped.

use prometheus::{
    GaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::Databases;

struct Connections {
    databases: Databases,
    gauge: GaugeVec,
}

impl Databases {
    /// Shows its connections. Once a node.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let gauge = GaugeVec::new(
            Opts::new(
                "callboard_database_connections",
                "Connections of this node to PostgreSQL: in use, idle, and how many there may be",
            ),
            &["domain", "server", "state"],
        )?;
        registry.register(Box::new(Connections { databases: self.clone(), gauge }))
    }
}

impl Collector for Connections {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (domain, server, counts) in self.databases.counts() {
            let states = [("in_use", counts.in_use), ("idle", counts.idle), ("limit", counts.limit)];
            for (state, count) in states {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                self.gauge.with_label_values(&[domain.as_str(), server, state]).set(f64::from(count));
            }
        }
        let mut families = self.gauge.collect();
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}
