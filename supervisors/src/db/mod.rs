//! Databases: one SQL text on PostgreSQL and SQLite.
//!
//! This module is the only place that knows the engine. A domain asks [`Databases::open`] for its own [`Database`] and
//! writes each statement once, with `$1` placeholders and portable syntax. On PostgreSQL a domain has a schema of its own,
//! which its statements are made to name, and a share of the connections that its thread has to the server, so that no
//! connection crosses threads; on SQLite it has a file of its own with one writer and a few readers.

mod error;
mod file;
mod metrics;
mod migrate;
mod names;
mod occupancy;
mod opaque;
mod pool;
mod pools;
mod query;
mod retry;
mod server;
mod settings;
mod transaction;

pub use error::{Error, MigrationError};
pub use occupancy::{Occupancy, ServerWatch, UsedServer};
pub use pools::{Database, Databases, Reads};
pub use query::{Bind, Query, Row};
pub use settings::{DatabaseSettings, Engine, PostgresSettings};
pub use transaction::Transaction;

#[cfg(test)]
mod tests;
