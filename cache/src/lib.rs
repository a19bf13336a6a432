//! Shared counters and caches of several nodes, in Redis, which is never the only copy of anything.
//!
//! A [`Cache`] is the client of one Redis server. Every command has a deadline of a fraction of a second and passes a
//! breaker, so that a server that is gone, paused or overloaded costs a few short waits and then none, until it is
//! back. It serves [`rate_limits`](Cache::rate_limits), the [`revocations`] that every node must know, and [`Cached`]
//! reads. Each of them works without Redis: limits are counted in the process, revocations are asked of auth, reads go
//! to the store. A node that is alone has [`Cache::none`].

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
