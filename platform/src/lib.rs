//! Parts of a node that several of its crates share: the membership of the cluster, the routes to apps, revocations,
//! and rate limits. Each is a trait or a table that a domain or the cache fills and that the gateway reads, so that
//! neither knows the other.

pub mod cluster;
pub mod limits;
pub mod revocations;
pub mod routing;
