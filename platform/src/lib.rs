//! What nodes share beside the actor runtime: which nodes there are and what they host, the routes to apps, sessions that
//! were revoked, and how often one may ask. Each is a trait or a table that a domain or the cache fills and that the gateway
//! reads, so that neither knows the other.

pub mod cluster;
pub mod limits;
pub mod revocations;
pub mod routing;
