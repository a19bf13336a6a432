//! Which instances answer for an app: what the deploy domain writes and the router reads, on one node. For apps that other
//! nodes run, the router learns the node ([`elsewhere`]).
//!
//! A reader takes a snapshot without a lock and leaves a mark on the instance it chose ([`InFlight`]) for as long as
//! the request, stream or WebSocket lasts. Taking an instance out is two steps that cannot miss each other: the writer
//! publishes the new table, then retires the endpoint; the reader counts itself in, then looks whether the endpoint
//! was retired. So either the reader backs off and reads the new table, or [`RoutingTable::drain`] sees it and waits.
//! A rollout is therefore: [`RoutingTable::set`] without the instance, `drain`, stop the process; nothing is dropped.
//!
//! A backend that refuses a connection is passed over for a moment ([`Endpoint::suspect`]); health proper is the deploy
//! domain's to judge, and what it does not list gets no traffic.

mod elsewhere;
mod endpoint;
mod metrics;
mod route;
mod table;
#[cfg(test)]
mod tests;

pub use callboard_messages::deploy::RouteState;
pub use elsewhere::{Ask, Elsewhere, Neighbour};
pub use endpoint::{Address, Backend, Endpoint, InFlight};
pub use metrics::AppMetrics;
pub use route::{AppRoute, Route};
pub use table::RoutingTable;
