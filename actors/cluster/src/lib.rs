//! `cluster`: which nodes there are, how each of them is, the events that nobody could apply, and the sagas of all domains.
//!
//! Every node hosts it, on a thread of its own: a node whose workers are busy still renews. A node renews its row every
//! second; another that has seen no renewal for four declares it gone, by a conditional update that raises the row's
//! incarnation. Both measure on their own monotonic clocks, so that no two clocks need agree, and time counts only
//! while the observer itself looks regularly: an outage of the database makes no node gone. Of two processes with the
//! id of one node the second ends.

mod dead_letters;
mod fingerprints;
mod health;
mod membership;
mod metrics;
mod reports;
mod rows;
mod sagas;
mod seat;
#[cfg(test)]
mod tests;

use std::time::Duration;

use callboard_messages::cluster::{
    Bury, DropDeadLetter, GetCluster, GetDeadLetter, GetNodeHealth, HoldBreaker, ListDeadLetters, ListSagas,
    ReplayDeadLetter, RetrySaga, ReviveDomain,
};
use callboard_platform::cluster::Members;
use callboard_supervisors::{
    Bus, ChildSpec, Clock, Contract, Domain, ShardContext, StartError,
    db::{Database, Databases},
    disk::Disk,
    events::Events,
};

pub use crate::{
    fingerprints::{Fingerprint, Fingerprints},
    metrics::ClusterMetrics,
    seat::{Seat, SeatError, living},
};

/// The domain's name.
pub const DOMAIN: &str = "cluster";

/// The domain's tables.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/cluster");

/// Settings of membership and dead letters.
#[derive(Debug, Clone, Copy)]
pub struct ClusterSettings {
    /// Whether there may be other nodes. A node alone writes nothing about itself.
    pub watches: bool,
    /// Interval of renewing the row.
    pub beat: Duration,
    /// Time without a renewal after which a node is declared gone.
    pub gone_after: Duration,
    /// Most dead letters; beyond it the oldest are dropped.
    pub dead_letters: u32,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self { watches: true, beat: Duration::from_secs(1), gone_after: Duration::from_secs(4), dead_letters: 10_000 }
    }
}

/// The domain. It keeps `members` up to date, in which this process has the `seat` of its node; `children` are
/// background work of the node that belongs to no domain.
#[must_use]
pub fn domain(
    settings: ClusterSettings,
    databases: Databases,
    members: Members,
    seat: Seat,
    metrics: ClusterMetrics,
    children: Vec<ChildSpec>,
) -> Domain {
    let watch = membership::child(settings, databases.clone(), members.clone(), seat, metrics.clone());
    let (reports, watched) = (reports::child(members.clone()), databases.clone());
    let server = databases.server(DOMAIN);
    let domain = contract().dedicated(1, move |context: ShardContext| {
        let (databases, members, metrics) = (databases.clone(), members.clone(), metrics.clone());
        async move {
            let database = databases.open(DOMAIN).await?;
            let cluster = Cluster {
                settings,
                database,
                members,
                metrics,
                bus: context.bus,
                events: context.events,
                disk: context.disk,
                clock: context.clock,
            };
            cluster.count_dead_letters().await.map_err(StartError::new)?;
            Ok(cluster)
        }
    });
    let domain = domain.standing_on(server).watches(&watched);
    let domain = if settings.watches { domain.child(watch).child(reports) } else { domain };
    children.into_iter().fold(domain, |domain, child| domain.child(child)).build()
}

/// The operations of the domain.
#[must_use]
pub fn contract() -> Contract<Cluster> {
    Domain::new(DOMAIN)
        .answering()
        // health.rs
        .on::<GetCluster>()
        .on::<GetNodeHealth>()
        .on::<ReviveDomain>()
        .on::<HoldBreaker>()
        // dead_letters.rs
        .on::<Bury>()
        .on::<ListDeadLetters>()
        .on::<GetDeadLetter>()
        .on::<ReplayDeadLetter>()
        .on::<DropDeadLetter>()
        // sagas.rs
        .on::<ListSagas>()
        .on::<RetrySaga>()
}

/// The state of the one shard.
pub struct Cluster {
    settings: ClusterSettings,
    database: Database,
    members: Members,
    metrics: ClusterMetrics,
    bus: Bus,
    events: Events,
    disk: Disk,
    clock: Clock,
}
