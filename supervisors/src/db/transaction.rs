//! Several statements that happen together or not at all.

use sqlx::{Postgres, Sqlite};

use super::{Error, Query, pools::Pools};

/// Rolled back when dropped without [`Transaction::commit`].
pub struct Transaction {
    pub(super) connection: Connection,
}

pub(super) enum Connection {
    Postgres(sqlx::Transaction<'static, Postgres>),
    Sqlite(sqlx::Transaction<'static, Sqlite>),
}

impl Transaction {
    pub(super) async fn begin(pools: &Pools) -> Result<Self, Error> {
        let connection = match pools {
            Pools::Postgres(pool) => Connection::Postgres(match pool.begin().await {
                // BEGIN on a connection that broke while it lay idle has done nothing yet.
                Err(sqlx::Error::Io(_) | sqlx::Error::Protocol(_)) => pool.begin().await?,
                other => other?,
            }),
            Pools::Sqlite(pools) => Connection::Sqlite(pools.writer.begin_with("BEGIN IMMEDIATE").await?),
        };
        Ok(Self { connection })
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
        match self.connection {
            Connection::Postgres(transaction) => transaction.commit().await?,
            Connection::Sqlite(transaction) => transaction.commit().await?,
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
}
