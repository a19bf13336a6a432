//! The runtime of Callboard, which knows no domain.
//!
//! A [`Domain`] runs in shards: `shared` ones on every worker thread, `dedicated` ones on threads of their own. A
//! caller holds an [`ActorRef`], or the [`Bus`] that finds it, and asks. Each call passes, in this order: access →
//! breaker → bounded queue → in-flight permit → deadline → handler inside `catch_unwind`. A fault fails one call;
//! the shard's state is built anew by its factory behind the same reference; too many faults make the domain
//! `unavailable` and leave the others alone.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests look at files and start programs where they run"))]

pub mod blocking;
pub mod breaker;
pub mod cluster;
pub mod db;
pub mod disk;
pub mod events;
pub mod fs;
pub mod lease;
pub mod limits;
pub mod live;
pub mod remote;
pub mod revocations;
pub mod routing;
pub mod saga;
pub mod schedule;
pub mod seal;
pub mod supervise;
#[doc(hidden)]
pub mod testing;
pub mod trace;

mod actor_ref;
mod anchored;
mod background;
mod bulkhead;
mod bus;
mod clock;
mod condition;
mod context;
mod contract;
mod dependency;
mod domain;
mod domain_core;
mod heartbeat;
mod inbox;
mod keys;
mod local;
mod metrics;
mod once;
mod operation;
mod operator;
mod outage;
mod port;
mod retry;
mod runtime;
mod shard;
mod stats;
mod sweep;
mod tasks;
mod tree;

pub use actor_ref::ActorRef;
pub use blocking::{BlockingPool, Turn};
pub use bulkhead::Bulkhead;
pub use bus::{Bus, HostedDomain};
pub use clock::Clock;
pub use condition::{Away, Part, Requirement};
pub use context::ShardContext;
pub use contract::{Contract, DomainPlan};
pub use dependency::{About, Dependency};
pub use domain::{Domain, DomainOf, Shards};
pub use live::{Live, LiveError, LiveEvent, LiveStream, LiveTransport};
pub use operation::{Handle, Outcome, StartError};
pub use operator::Readiness;
pub use outage::{Outage, Past};
pub use retry::{retry, retry_forever};
pub use runtime::{Runtime, RuntimeBuilder};
pub use shard::Ask;
pub use supervise::{
    Backoff, ChildContext, ChildSpec, Exit, Intensity, Restart, Services, Strategy, Supervisor, SupervisorRef,
};
pub use tasks::TaskSet;
pub use tree::TreeView;

#[cfg(test)]
mod tests;
