//! What a database can answer besides rows, told apart by what it means for the caller.

use std::time::Duration;

use callboard_messages::{CallError, Failure};

/// A statement failed.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct Error {
    source: sqlx::Error,
    /// Whether what was asked for may have happened all the same.
    unknown: bool,
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        Self { source, unknown: false }
    }
}

impl Error {
    /// The answer to something that writes, which was sent, did not come.
    pub(super) const fn unknown(source: sqlx::Error) -> Self {
        Self { source, unknown: true }
    }

    /// Whether nobody knows if what was asked for has happened: the connection broke, or the deadline passed, after it
    /// was sent and before its answer came.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        self.unknown
    }

    /// Whether another transaction stood in the way, so that all of this one was taken back and may be run again.
    #[must_use]
    pub fn is_clash(&self) -> bool {
        !self.unknown && is_clash(&self.source)
    }

    /// Whether a unique constraint refused the row: `constraint` as PostgreSQL names it, or `column` as SQLite does
    /// (`table.column`, several joined by `, `).
    #[must_use]
    pub fn violates(&self, constraint: &str, column: &str) -> bool {
        let sqlx::Error::Database(error) = &self.source else { return false };
        if !error.is_unique_violation() {
            return false;
        }
        match error.constraint() {
            Some(name) => name == constraint,
            // SQLite tells the columns, not the constraint: "UNIQUE constraint failed: projects.name".
            None => error.message().rsplit_once(": ").is_some_and(|(_, columns)| columns == column),
        }
    }

    /// Whether a check or not-null constraint refused the row.
    #[must_use]
    pub fn is_check_violation(&self) -> bool {
        matches!(&self.source, sqlx::Error::Database(error) if error.is_check_violation())
    }

    /// Whether the connection broke or could not be had, so that the statement may never have arrived.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        match &self.source {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // 53: out of connections or memory.
            sqlx::Error::Database(error) => {
                error.code().is_some_and(|code| ends_connection(&code) || code.starts_with("53"))
            }
            _ => false,
        }
    }

    /// Whether the server gave the statement up because it took too long, or waited too long for what others held.
    /// Nothing came of it.
    #[must_use]
    pub fn is_late(&self) -> bool {
        // query_canceled, as statement_timeout does; lock_not_available, as lock_timeout does.
        !self.unknown
            && matches!(&self.source, sqlx::Error::Database(error)
                if matches!(error.code().as_deref(), Some("57014" | "55P03")))
    }

    /// Whether the server is there and does not let this node in, or could never be reached as it is written.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match &self.source {
            sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => true,
            sqlx::Error::Database(_) => !self.is_connection() && !self.is_clash() && !self.is_late(),
            _ => false,
        }
    }

    /// Whether there is no room left to write; what is there can still be read.
    #[must_use]
    pub fn is_full(&self) -> bool {
        // SQLITE_FULL; disk_full.
        matches!(&self.source, sqlx::Error::Database(error) if matches!(error.code().as_deref(), Some("13" | "53100")))
    }
}

/// Whether an error of PostgreSQL with this code is its last word on the connection.
pub(super) fn ends_connection(code: &str) -> bool {
    // Connection exceptions; the server shuts down or starts up; idle_in_transaction_session_timeout; transaction_timeout.
    code.starts_with("08") || code.starts_with("57P") || matches!(code, "25P03" | "25P04")
}

pub(super) fn is_clash(error: &sqlx::Error) -> bool {
    // serialization_failure, deadlock_detected; SQLITE_BUSY, SQLITE_BUSY_SNAPSHOT.
    matches!(error, sqlx::Error::Database(error)
        if matches!(error.code().as_deref(), Some("40001" | "40P01" | "5" | "517")))
}

impl<E> From<Error> for CallError<E> {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.is_unknown() {
            tracing::warn!(%error, "the database did not say whether something was written");
            return Self::Unknown;
        }
        if error.is_full() {
            tracing::error!(error = %error, "the database has no room left: free some space on its disk");
            return Self::Unavailable { retry_after: Duration::from_secs(10) };
        }
        if error.is_connection() {
            // Its pool has said so, once for all who find out.
            tracing::debug!(error = %error, "the database can't be reached");
            return Self::Unavailable { retry_after: Duration::from_secs(1) };
        }
        if error.is_clash() || error.is_late() {
            tracing::warn!(error = %error, "the database is too busy with others");
            return Self::Unavailable { retry_after: Duration::from_secs(1) };
        }
        Self::Internal(format!("database: {}", error.source))
    }
}

/// The schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database could not be opened.
    #[error("the database of {domain} can't be opened: {source}")]
    Open {
        /// Whose.
        domain: String,
        /// Why.
        source: Error,
    },
    /// A newer program has migrated this database.
    #[error(
        "the database of {domain} has migration {version}, which this version of Callboard does not know: \
         start the newer version, or restore a backup"
    )]
    TooNew {
        /// Whose.
        domain: String,
        /// The migration this program lacks.
        version: i64,
    },
    /// It took too long, or another node's did.
    #[error(
        "the schema of {domain} was not brought up to date in time; if another node has begun to and does not go on, end \
         that node, or the session that pg_locks shows with the advisory lock"
    )]
    Late {
        /// Whose.
        domain: String,
    },
    /// A migration failed; none of it was applied.
    #[error("a migration of {domain} failed: {source}")]
    Failed {
        /// Whose.
        domain: String,
        /// Why.
        source: sqlx::migrate::MigrateError,
    },
}
