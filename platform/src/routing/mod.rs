//! Which instances answer for an app: written by the deploy domain and read by the router, on one node. For apps of
//! other nodes, the router knows the node ([`elsewhere`]).
//!
//! A reader takes a snapshot without a lock and counts itself in at the instance it chose ([`InFlight`]) for as long as
//! the request, stream or WebSocket lasts. Taking an instance out is two steps that cannot miss each other: the writer
//! publishes the new table, then retires the endpoint; the reader counts itself in, then checks whether the endpoint
//! was retired. So either the reader backs off and reads the new table, or [`RoutingTable::drain`] sees it and waits. A
//! rollout is therefore: [`RoutingTable::set`] without the instance, `drain`, stop the process; no request is dropped.
//!
//! A backend that refuses a connection is avoided for a moment ([`Endpoint::suspect`]); its health is judged by the
//! deploy domain, and what that does not list gets no traffic.

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
