//! How many connections a server of PostgreSQL has, whoever made them, and how many it lets in.

use std::time::Duration;

use prometheus::{GaugeVec, Opts, Registry};

use super::{Databases, Engine, Error};

/// How often the servers are asked.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// The connections of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// How many it lets in, without those that it keeps for its operators.
    pub allowed: i64,
    /// How many there are.
    pub used: i64,
}

impl Databases {
    /// The connections of the server of `domain`; nothing for a file. It is asked over a connection of this thread's pool:
    /// a server that is full lets no other in.
    ///
    /// # Errors
    /// When it can't be reached, or refuses.
    pub async fn occupancy(&self, domain: &str) -> Result<Option<Occupancy>, Error> {
        if self.engine() == Engine::Sqlite {
            return Ok(None);
        }
        // Who may not see the connections of others may see how many each database has.
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
    /// `host:port`, as people are told.
    pub address: String,
    /// One of the domains whose data it has.
    pub domain: String,
    /// How many connections this node may open to it.
    pub limit: u64,
}

/// Shows for each server how many connections this node may open, how many the server lets in, and how many it has.
#[derive(Debug)]
pub struct ServerWatch {
    databases: Databases,
    servers: Vec<UsedServer>,
    gauge: GaugeVec,
}

impl ServerWatch {
    /// Shows them among the node's metrics. Once a node.
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

    /// Looks at the servers until it is dropped. Of a node without any there is nothing to see.
    pub async fn run(self) {
        while !self.servers.is_empty() {
            for UsedServer { address, domain, limit } in &self.servers {
                self.show(address, "node_limit", i64::try_from(*limit).ok());
                // That a server is away is told by whoever needs it. What was seen before says nothing then.
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
            // There may be none yet.
            None => drop(self.gauge.remove_label_values(&[server, state])),
        }
    }
}
