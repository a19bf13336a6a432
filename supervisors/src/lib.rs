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
pub mod db;
pub mod events;
pub mod lease;
pub mod live;
pub mod reconcile;
pub mod saga;
pub mod schedule;
pub mod seal;
pub mod supervise;
#[doc(hidden)]
pub mod testing;

mod bulkhead;
mod call;
mod domain;
mod health;
mod restart;
mod rules;
mod runtime;
mod shard;
mod tasks;
mod telemetry;
mod time;

pub use blocking::{BlockingPool, Turn, fs};
pub use bulkhead::Bulkhead;
pub use call::{
    actor_ref::ActorRef,
    bus::{Bus, HostedDomain},
    remote,
};
pub use domain::{
    Domain, DomainOf, Shards,
    context::ShardContext,
    contract::{Contract, DomainPlan},
    operation::{Handle, Outcome, StartError},
    topic::LiveTopic,
};
pub use health::{
    condition::{Away, Part, Requirement},
    dependency::{About, Dependency},
    disk,
    outage::{Outage, Past},
};
pub use live::{Live, LiveError, LiveEvent, LiveStream, LiveTransport};
pub use restart::{Backoff, Exit, Intensity, Restart, Strategy};
pub use runtime::{Runtime, RuntimeBuilder, operator::Readiness, tree::TreeView};
pub use shard::Ask;
pub use supervise::{ChildContext, ChildSpec, Services, Supervisor, SupervisorRef};
pub use tasks::TaskSet;
pub use telemetry::trace;
pub use time::{
    clock::Clock,
    retry::{retry, retry_forever},
};

#[cfg(test)]
mod tests;
