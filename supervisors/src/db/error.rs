//! What a database can answer besides rows, told apart by what it means for the caller.

use std::time::Duration;

use callboard_messages::{CallError, Failure};

/// A statement failed.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] sqlx::Error);

impl Error {
    /// Whether a unique constraint refused the row: `constraint` as PostgreSQL names it, or `column` as SQLite does
    /// (`table.column`, several joined by `, `).
    #[must_use]
    pub fn violates(&self, constraint: &str, column: &str) -> bool {
        let sqlx::Error::Database(error) = &self.0 else { return false };
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
        matches!(&self.0, sqlx::Error::Database(error) if error.is_check_violation())
    }

    /// Whether the connection broke or could not be had, so that the statement may never have arrived.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        match &self.0 {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            // 08: connection exceptions; 57P: the server shuts down or starts up; 53: out of connections or memory.
            sqlx::Error::Database(error) => {
                error.code().is_some_and(|code| ["08", "57P", "53"].iter().any(|class| code.starts_with(class)))
            }
            _ => false,
        }
    }

    /// Whether there is no room left to write; what is there can still be read.
    #[must_use]
    pub fn is_full(&self) -> bool {
        // SQLITE_FULL; disk_full.
        matches!(&self.0, sqlx::Error::Database(error) if matches!(error.code().as_deref(), Some("13" | "53100")))
    }
}

impl<E> From<Error> for CallError<E> {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.is_full() {
            tracing::error!(error = %error.0, "the database has no room left: free some space on its disk");
            return Self::Unavailable { retry_after: Duration::from_secs(10) };
        }
        if error.is_connection() {
            tracing::warn!(error = %error.0, "the database can't be reached");
            return Self::Unavailable { retry_after: Duration::from_secs(1) };
        }
        Self::Internal(format!("database: {}", error.0))
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
    /// A migration failed; none of it was applied.
    #[error("a migration of {domain} failed: {source}")]
    Failed {
        /// Whose.
        domain: String,
        /// Why.
        source: sqlx::migrate::MigrateError,
    },
}
