//! What several nodes count and remember together, in Redis, which is never the only copy of anything.
//!
//! A [`Cache`] is the way to one Redis server. Every command has a deadline of a fraction of a second and passes a
//! breaker, so that a server that is gone, paused or overloaded costs a few short waits and then none; it comes back by
//! itself. On it stand [`rate_limits`](Cache::rate_limits), the [`revocations`] that every node must hear of, and
//! [`Cached`] reads. Each of them goes on without Redis: limits count in the process, revocations are asked of auth,
//! reads go to the store. A node that is alone has [`Cache::none`].

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests look at files and start programs where they run"))]

mod cached;
mod connection;
mod error;
mod metrics;
mod rates;
pub mod revocations;
mod settings;

#[cfg(test)]
mod tests;

pub use cached::{Cached, CachedSettings};
pub use connection::Cache;
pub use error::{CacheError, CheckError};
pub use settings::CacheSettings;
