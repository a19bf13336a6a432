//! How a caller reaches a domain: an [`ActorRef`](actor_ref::ActorRef) for one that it knows, the [`Bus`](bus::Bus) that finds
//! the domain of an operation, and the way to the nodes that host what this one does not.

pub(crate) mod actor_ref;
pub(crate) mod bus;
pub mod remote;
