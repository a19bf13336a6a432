//! A connection to an SQLite file, taken from its pool.
//!
//! SQLite rolls a transaction back by itself on a full disk, an I/O error, an interruption or lack of memory, and
//! whoever does not notice continues outside of it, or never begins another. So a connection is closed after one of
//! these errors, and after an unanswered statement; its permit is free for a new one.

use sqlx::{Sqlite, SqliteConnection, SqlitePool, pool::PoolConnection};
use tokio::runtime::Handle;

use super::{Error, error};
use crate::health::disk::Disk;

/// A connection in use. When dropped it returns to the pool, or is closed if a statement on it was not answered.
#[derive(Debug)]
pub(super) struct Held {
    connection: PoolConnection<Sqlite>,
    is_in_step: bool,
    /// Whether a write on it found the disk full.
    is_full: bool,
    disk: Disk,
}

impl Held {
    pub(super) async fn acquire(pool: &SqlitePool, disk: &Disk) -> Result<Self, Error> {
        match pool.acquire().await {
            Ok(connection) => Ok(Self { connection, is_in_step: true, is_full: false, disk: disk.clone() }),
            // Opening a file may write beside it.
            Err(error) => Err(failed(error, disk)),
        }
    }

    /// The only writer, in a transaction that has just begun. The transaction locks at its beginning: one that begins
    /// as a reader and then writes is refused when another wrote meanwhile.
    pub(super) async fn begin(pool: &SqlitePool, disk: &Disk) -> Result<Self, Error> {
        let mut held = Self::acquire(pool, disk).await?;
        match held.begin_now().await {
            // A connection that is in a transaction already, or broken, has done nothing for this transaction yet.
            Err(error) if !error.is_clash() => {
                tracing::debug!(%error, "a connection could not begin a transaction and is closed");
                held.is_in_step = false;
                drop(held);
                let mut another = Self::acquire(pool, disk).await?;
                another.begin_now().await?;
                Ok(another)
            }
            begun => begun.map(|()| held),
        }
    }

    async fn begin_now(&mut self) -> Result<(), Error> {
        self.run(async |connection| sqlx::raw_sql("BEGIN IMMEDIATE").execute(connection).await).await.map(drop)
    }

    /// Runs `work` with the connection.
    pub(super) async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, Error> {
        if !self.is_in_step {
            let before = sqlx::Error::InvalidArgument("an earlier statement broke the connection".to_owned());
            return Err(if self.is_full { Error::full(before) } else { before.into() });
        }
        // Also when this future is dropped halfway: then a statement is unanswered.
        self.is_in_step = false;
        let outcome = work(&mut self.connection).await;
        self.is_in_step = outcome.as_ref().err().is_none_or(error::leaves_file_in_step);
        outcome.map_err(|error| {
            let error = failed(error, &self.disk);
            self.is_full |= error.is_full();
            error
        })
    }

    /// Commits the transaction.
    pub(super) async fn commit(&mut self) -> Result<(), Error> {
        let was_in_step = self.is_in_step;
        let outcome = self.run(async |connection| sqlx::raw_sql("COMMIT").execute(connection).await).await;
        let Err(error) = outcome else { return Ok(()) };
        // A commit that SQLite failed to finish may be in the file all the same.
        let is_unknown = was_in_step && !self.is_in_step && !error.is_full();
        // A refused commit can leave the transaction open: it ends with the connection.
        self.is_in_step = false;
        Err(if is_unknown { error.into_unknown() } else { error })
    }

    /// Rolls the transaction back.
    pub(super) async fn rollback(&mut self) -> Result<(), Error> {
        let outcome = self.run(async |connection| sqlx::raw_sql("ROLLBACK").execute(connection).await).await;
        self.is_in_step &= outcome.is_ok();
        outcome.map(drop)
    }

    /// Rolls the transaction back in the background.
    pub(super) fn take_back(mut self) {
        if !self.is_in_step {
            return; // closed: that takes it back
        }
        let Ok(runtime) = Handle::try_current() else {
            self.is_in_step = false;
            return;
        };
        runtime.spawn(async move {
            if let Err(error) = self.rollback().await {
                tracing::debug!(%error, "rolling a transaction back failed; closing its connection");
            }
        });
    }

    /// Closes the connection instead of returning it to the pool.
    pub(super) const fn discard(&mut self) {
        self.is_in_step = false;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_in_step {
            self.connection.close_on_drop();
        }
    }
}

/// Adds that the disk is full: SQLite names that for some writes only, and reports other I/O errors by codes of their
/// own.
fn failed(error: sqlx::Error, disk: &Disk) -> Error {
    let error = Error::from(error);
    if error.is_full() || error.is_of_file() && disk.is_used_up() {
        disk.met_full();
        return error.into_full();
    }
    error
}
