//! Connections to a PostgreSQL server by all its clients, and their limit.

use std::time::Duration;

use prometheus::{GaugeVec, Opts, Registry};

use super::{Databases, Engine, Error};

/// Interval of asking the servers.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// The connections of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// The limit, without the connections reserved for superusers.
    pub allowed: i64,
    /// Open connections.
    pub used: i64,
}

impl Databases {
    /// The connections of the server of `domain`; `None` for a file. Asked over a connection of this thread's pool: a
    /// server at its limit accepts no other.
    ///
    /// # Errors
    /// When it can't be reached, or refuses.
    pub async fn occupancy(&self, domain: &str) -> Result<Option<Occupancy>, Error> {
        if self.engine() == Engine::Sqlite {
            return Ok(None);
        }
        // A role that may not see the sessions of others may see how many each database has.
        let asked = "SELECT current_setting('max_connections')::bigint
                          - current_setting('superuser_reserved_connections')::bigint
                          - COALESCE(current_setting('reserved_connections', true), '0')::bigint,
                            (SELECT COALESCE(SUM(numbackends), 0)::bigint FROM pg_stat_database)";
        let (allowed, used) = self.open(domain).await?.query(asked).fetch_one().await?;
        Ok(Some(Occupancy { allowed, used }))
    }
}

/// A server of PostgreSQL that this node uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedServer {
    /// `host:port`, as shown to people.
    pub address: String,
    /// One of the domains in it.
    pub domain: String,
    /// Most connections that this node may open to it.
    pub limit: u64,
}

/// Gauges for each server: connections that this node may open, that the server allows, and that are open.
#[derive(Debug)]
pub struct ServerWatch {
    databases: Databases,
    servers: Vec<UsedServer>,
    gauge: GaugeVec,
}

impl ServerWatch {
    /// Registers the gauges. Once a node.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(
        databases: Databases,
        servers: Vec<UsedServer>,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let options = Opts::new(
            "callboard_database_server_connections",
            "Connections to a server of PostgreSQL: how many this node may open (node_limit), how many the server lets in \
             (allowed) and has (used), whoever made them",
        );
        let gauge = GaugeVec::new(options, &["server", "state"])?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(Self { databases, servers, gauge })
    }

    /// Updates the gauges until it is dropped. Returns at once for a node without servers.
    pub async fn run(self) {
        while !self.servers.is_empty() {
            for UsedServer { address, domain, limit } in &self.servers {
                self.show(address, "node_limit", i64::try_from(*limit).ok());
                // An outage is logged by the users of the server; the last values are removed then.
                let seen = self.databases.occupancy(domain).await.ok().flatten();
                self.show(address, "allowed", seen.map(|seen| seen.allowed));
                self.show(address, "used", seen.map(|seen| seen.used));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn show(&self, server: &str, state: &str, connections: Option<i64>) {
        match connections {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            Some(connections) => self.gauge.with_label_values(&[server, state]).set(connections as f64),
            // The gauge may not exist yet.
            None => drop(self.gauge.remove_label_values(&[server, state])),
        }
    }
}
