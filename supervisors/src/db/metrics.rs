//! Gauges of connections, collected at each scrape.

use prometheus::{
    GaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::Databases;

struct Connections {
    databases: Databases,
    /// Connections per server.
    of_servers: GaugeVec,
    /// Connections per domain.
    of_domains: GaugeVec,
}

impl Databases {
    /// Registers the gauges. Once a node.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let gauge = |name: &str, help: &str, labels: &[&str]| GaugeVec::new(Opts::new(name, help), labels);
        let of_servers = gauge(
            "callboard_database_connections",
            "Connections of this node to a PostgreSQL server: in use, idle, and how many there may be",
            &["server", "state"],
        )?;
        let of_domains = gauge(
            "callboard_database_domain_connections",
            "Connections to PostgreSQL that a domain uses on this node, and how many it may",
            &["domain", "server", "state"],
        )?;
        registry.register(Box::new(Connections { databases: self.clone(), of_servers, of_domains }))
    }
}

impl Collector for Connections {
    fn desc(&self) -> Vec<&Desc> {
        [self.of_servers.desc(), self.of_domains.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let value = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        for (server, counts) in self.databases.counts() {
            for (state, count) in [("in_use", counts.in_use), ("idle", counts.idle), ("limit", counts.limit)] {
                self.of_servers.with_label_values(&[server.as_str(), state]).set(value(count));
            }
        }
        for ((domain, server), counts) in self.databases.shares() {
            for (state, count) in [("in_use", counts.in_use), ("limit", counts.limit)] {
                self.of_domains.with_label_values(&[domain.as_str(), server, state]).set(value(count));
            }
        }
        let mut families = [self.of_servers.collect(), self.of_domains.collect()].concat();
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}
