//! Transactions: several statements that happen together or not at all.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{
    Error, Query, file,
    names::Names,
    opaque::Opaque,
    pool::{Held, Share, is_broken},
    pools::Pools,
    query::{statement_span, traced},
};

/// The domain of a database, and its signals within this process.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) domain: String,
    /// The names of its tables; `None` for a file, which needs none.
    pub(super) names: Option<Names>,
    /// Number of transactions that have committed events.
    pub(super) outbox_filled: watch::Sender<u64>,
}

impl Origin {
    pub(super) fn new(domain: &str, names: Option<Names>) -> Self {
        Self { domain: domain.to_owned(), names, outbox_filled: watch::Sender::new(0) }
    }
}

/// A transaction, rolled back when dropped without [`Transaction::commit`].
pub struct Transaction {
    progress: Progress,
    origin: Arc<Origin>,
    emitted: bool,
    hooks: Vec<Box<dyn FnOnce() + Send>>,
}

/// The state of a transaction.
pub(super) struct Progress {
    /// `None` once it has ended.
    connection: Option<Box<dyn Opaque<Connection>>>,
    /// Whether a statement conflicted with another transaction.
    clashed: bool,
    /// Whether a statement failed: PostgreSQL then answers COMMIT with a rollback.
    failed: bool,
}

impl Progress {
    /// Its connection; `None` once it has ended.
    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut().map(|connection| (**connection).get_mut())
    }

    fn end(&mut self) -> Option<Connection> {
        self.connection.take().map(|connection| *connection.into_box())
    }

    /// Notes the error of a statement.
    pub(super) fn note(&mut self, error: Error) -> Error {
        self.clashed |= error.is_clash();
        self.failed |= error.is_of_database();
        error
    }
}

#[derive(Debug)]
pub(super) enum Connection {
    Postgres(Held),
    Sqlite(file::Held),
}

impl Transaction {
    pub(super) async fn begin(pools: &Pools, origin: Arc<Origin>) -> Result<Self, Error> {
        let connection = match pools {
            Pools::Postgres(pools) => Connection::Postgres(match begin(&pools.primary).await {
                // BEGIN on a connection that broke while idle has had no effect.
                Err(error) if is_broken(&error) => begin(&pools.primary).await?,
                other => other?,
            }),
            Pools::Sqlite(pools) => Connection::Sqlite(file::Held::begin(&pools.writer, &pools.disk).await?),
        };
        let progress = Progress { connection: Some(Box::new(connection)), clashed: false, failed: false };
        Ok(Self { progress, origin, emitted: false, hooks: Vec::new() })
    }

    /// The domain of the database.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.origin.domain
    }

    /// Runs `hook` once the transaction has committed; it is dropped when the transaction is rolled back.
    pub fn on_commit(&mut self, hook: impl FnOnce() + Send + 'static) {
        self.hooks.push(Box::new(hook));
    }

    /// Wakes the relay of this domain once the transaction has committed.
    pub(crate) const fn fills_outbox(&mut self) {
        self.emitted = true;
    }

    pub(super) const fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    pub(super) const fn has_clashed(&self) -> bool {
        self.progress.clashed
    }

    /// One statement of the transaction.
    pub fn query(&mut self, sql: &'static str) -> Query<'_> {
        Query::on_transaction(&mut self.progress, &self.origin, sql)
    }

    /// Commits the transaction.
    ///
    /// # Errors
    /// When the commit is refused, which rolls everything back; or, [`Error::is_unknown`], when its answer did not
    /// come.
    pub fn commit(self) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(self.commit_now())
    }

    async fn commit_now(mut self) -> Result<(), Error> {
        let Some(connection) = self.progress.end() else { return Err(sqlx::Error::PoolClosed.into()) };
        let span = statement_span(matches!(connection, Connection::Postgres(_)), "COMMIT");
        let failed = self.progress.failed;
        traced(span, async move {
            match connection {
                Connection::Postgres(held) if failed => {
                    held.take_back();
                    let told = "a statement of the transaction failed before its commit".to_owned();
                    Err(sqlx::Error::InvalidArgument(told).into())
                }
                Connection::Postgres(mut held) => {
                    let outcome = held.run(async |connection| sqlx::raw_sql("COMMIT").execute(connection).await).await;
                    outcome.map(|_| held.note_written()).map_err(|error| match held.is_in_step() {
                        true => Error::from(error),
                        false => Error::unknown(error),
                    })
                }
                Connection::Sqlite(mut held) => held.commit().await,
            }
        })
        .await?;
        if self.emitted {
            self.origin.outbox_filled.send_modify(|count| *count += 1);
        }
        for hook in std::mem::take(&mut self.hooks) {
            hook();
        }
        Ok(())
    }

    /// Rolls it back now, rather than when dropped.
    ///
    /// # Errors
    /// When the connection broke; the database then rolls it back by itself.
    pub fn rollback(self) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(self.rollback_now())
    }

    async fn rollback_now(mut self) -> Result<(), Error> {
        match self.progress.end() {
            Some(Connection::Postgres(mut held)) => {
                held.run(async |connection| sqlx::raw_sql("ROLLBACK").execute(connection).await).await?;
            }
            Some(Connection::Sqlite(mut held)) => held.rollback().await?,
            None => {}
        }
        Ok(())
    }

    pub(super) async fn rollback_quietly(self) {
        if let Err(error) = self.rollback().await {
            tracing::debug!(%error, "rolling a transaction back failed; the database does it");
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // The connection's state is not trusted after a panic.
        let is_panicking = std::thread::panicking();
        match self.progress.end() {
            Some(Connection::Postgres(mut held)) => {
                if is_panicking {
                    held.discard();
                }
                held.take_back();
            }
            Some(Connection::Sqlite(mut held)) => {
                if is_panicking {
                    held.discard();
                }
                held.take_back();
            }
            None => {}
        }
    }
}

/// A connection in a transaction that has just begun.
async fn begin(share: &Share) -> Result<Held, sqlx::Error> {
    let mut held = share.acquire().await?;
    held.begin().await?;
    Ok(held)
}
