//! Several statements that happen together or not at all.

use std::sync::Arc;

use sqlx::{Postgres, Sqlite};
use tokio::sync::Notify;

use super::{
    Error, Query,
    pools::Pools,
    query::{statement_span, traced},
};

/// Whose database it is, and what this process has to tell of it.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) domain: String,
    pub(super) outbox_filled: Notify,
}

impl Origin {
    pub(super) fn new(domain: &str) -> Self {
        Self { domain: domain.to_owned(), outbox_filled: Notify::new() }
    }
}

/// Rolled back when dropped without [`Transaction::commit`].
pub struct Transaction {
    pub(super) connection: Connection,
    origin: Arc<Origin>,
    emitted: bool,
    /// Whether a statement of it was refused because of another transaction.
    pub(super) clashed: bool,
    hooks: Vec<Box<dyn FnOnce() + Send>>,
}

pub(super) enum Connection {
    Postgres(sqlx::Transaction<'static, Postgres>),
    Sqlite(sqlx::Transaction<'static, Sqlite>),
}

impl Transaction {
    pub(super) async fn begin(pools: &Pools, origin: Arc<Origin>) -> Result<Self, Error> {
        let connection = match pools {
            Pools::Postgres(pool) => Connection::Postgres(match pool.begin().await {
                // BEGIN on a connection that broke while it lay idle has done nothing yet.
                Err(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => pool.begin().await?,
                other => other?,
            }),
            Pools::Sqlite(pools) => Connection::Sqlite(pools.writer.begin_with("BEGIN IMMEDIATE").await?),
        };
        Ok(Self { connection, origin, emitted: false, clashed: false, hooks: Vec::new() })
    }

    /// Whose database it is.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.origin.domain
    }

    /// Runs `hook` once the transaction has committed; it is dropped when the transaction is taken back.
    pub fn on_commit(&mut self, hook: impl FnOnce() + Send + 'static) {
        self.hooks.push(Box::new(hook));
    }

    /// Wakes the relay of this domain once the transaction has committed.
    pub(crate) const fn fills_outbox(&mut self) {
        self.emitted = true;
    }

    /// Notes what a statement of it failed with.
    pub(super) fn note(&mut self, error: sqlx::Error) -> sqlx::Error {
        self.clashed |= super::error::is_clash(&error);
        error
    }

    pub(super) const fn has_clashed(&self) -> bool {
        self.clashed
    }

    /// One statement of the transaction.
    pub fn query(&mut self, sql: &'static str) -> Query<'_> {
        Query::on_transaction(self, sql)
    }

    /// Makes it all true.
    ///
    /// # Errors
    /// When the commit is refused, or its outcome can't be known because the connection broke.
    pub async fn commit(self) -> Result<(), Error> {
        let span = statement_span(matches!(self.connection, Connection::Postgres(_)), "COMMIT");
        traced(span, async {
            match self.connection {
                Connection::Postgres(transaction) => transaction.commit().await.map_err(|error| match error {
                    error @ sqlx::Error::Database(_) => Error::from(error),
                    error => Error::unknown(error),
                }),
                Connection::Sqlite(transaction) => transaction.commit().await.map_err(Error::from),
            }
        })
        .await?;
        if self.emitted {
            self.origin.outbox_filled.notify_one();
        }
        for hook in self.hooks {
            hook();
        }
        Ok(())
    }

    /// Takes it all back now, rather than when dropped.
    ///
    /// # Errors
    /// When the connection broke; the database then takes it back by itself.
    pub async fn rollback(self) -> Result<(), Error> {
        match self.connection {
            Connection::Postgres(transaction) => transaction.rollback().await?,
            Connection::Sqlite(transaction) => transaction.rollback().await?,
        }
        Ok(())
    }

    pub(super) async fn rollback_quietly(self) {
        if let Err(error) = self.rollback().await {
            tracing::debug!(%error, "a transaction could not be taken back; the database does it");
        }
    }
}
