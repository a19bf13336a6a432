//! Errors of a database, classified by what they mean for the caller.

use std::time::Duration;

use callboard_messages::{CallError, Failure};
use sqlx::{postgres::PgDatabaseError, sqlite::SqliteError};

/// Pause before a write that found the disk full is worth a retry.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(10);

/// A statement failed.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct Error {
    source: sqlx::Error,
    /// Whether the statement may have been carried out all the same.
    unknown: bool,
    /// Whether the disk was full, where `source` does not say so.
    full: bool,
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        Self { source, unknown: false, full: false }
    }
}

impl Error {
    /// Of a write that was sent and not answered.
    pub(super) const fn unknown(source: sqlx::Error) -> Self {
        Self { source, unknown: true, full: false }
    }

    /// Of a write that found the disk full.
    pub(super) const fn full(source: sqlx::Error) -> Self {
        Self { source, unknown: false, full: true }
    }

    pub(super) fn into_unknown(self) -> Self {
        Self { unknown: true, ..self }
    }

    pub(super) fn into_full(self) -> Self {
        Self { full: true, ..self }
    }

    /// Whether the outcome is unknown: the connection broke, or the deadline passed, after the statement was sent and
    /// before its answer came.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        self.unknown
    }

    /// Whether the transaction conflicted with another, so that all of it was rolled back and may be retried.
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

    /// Whether the connection broke or none was available, so that the statement may never have arrived.
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

    /// The error, for a log, unless it is one of many by an outage that is logged once: the server is away, the disk is
    /// full.
    #[must_use]
    pub fn outside_outage(&self) -> Option<&Self> {
        (!self.is_full() && !self.is_connection()).then_some(self)
    }

    /// Whether the server ended the statement because it, or its wait for a lock, took too long. It had no effect.
    #[must_use]
    pub fn is_late(&self) -> bool {
        // query_canceled, as statement_timeout does; lock_not_available, as lock_timeout does.
        !self.unknown
            && matches!(&self.source, sqlx::Error::Database(error)
                if matches!(error.code().as_deref(), Some("57014" | "55P03")))
    }

    /// Whether the server is there and refuses this node, or its address is wrong.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match &self.source {
            sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => true,
            sqlx::Error::Database(_) => !self.is_connection() && !self.is_clash() && !self.is_late(),
            _ => false,
        }
    }

    /// Whether the disk is full; what is there can still be read.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full || is_full(&self.source)
    }

    /// Whether a value of the statement is at fault, and neither the server nor the connection.
    #[must_use]
    pub fn is_of_input(&self) -> bool {
        if let Some(state) = sqlstate(&self.source) {
            // Values that can't be stored: text not in the database's encoding, out of range. Constraints that the
            // domain does not know by name. Sizes over a limit of the server, as of an index row.
            return ["22", "23", "54"].iter().any(|class| state.starts_with(class));
        }
        match sqlite_code(&self.source) {
            // A trigger's refusal is no constraint on a value.
            Some(SQLITE_CONSTRAINT) => sqlite_extended(&self.source) != Some(SQLITE_CONSTRAINT_TRIGGER),
            Some(code) => matches!(code, SQLITE_TOOBIG | SQLITE_MISMATCH),
            None => matches!(self.source, sqlx::Error::Encode(_)),
        }
    }

    /// Whether the database answered with it, as opposed to an error of the connection.
    pub(super) const fn is_of_database(&self) -> bool {
        matches!(self.source, sqlx::Error::Database(_))
    }

    /// Whether SQLite could not read, write or open its file.
    pub(super) fn is_of_file(&self) -> bool {
        matches!(sqlite_code(&self.source), Some(SQLITE_IOERR | SQLITE_FULL | SQLITE_CANTOPEN))
    }
}

// https://www.sqlite.org/rescode.html
const SQLITE_NOMEM: i32 = 7;
const SQLITE_INTERRUPT: i32 = 9;
const SQLITE_IOERR: i32 = 10;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_CANTOPEN: i32 = 14;
const SQLITE_PROTOCOL: i32 = 15;
const SQLITE_TOOBIG: i32 = 18;
const SQLITE_CONSTRAINT: i32 = 19;
const SQLITE_CONSTRAINT_TRIGGER: i32 = 1811;
const SQLITE_MISMATCH: i32 = 20;
const SQLITE_NOTADB: i32 = 26;

pub(super) fn is_full(error: &sqlx::Error) -> bool {
    sqlite_code(error) == Some(SQLITE_FULL) || sqlstate(error) == Some("53100")
}

/// PostgreSQL's SQLSTATE: five characters, of which two are its class.
fn sqlstate(error: &sqlx::Error) -> Option<&str> {
    let sqlx::Error::Database(error) = error else { return None };
    error.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::code)
}

/// SQLite's extended result code.
fn sqlite_extended(error: &sqlx::Error) -> Option<i32> {
    let sqlx::Error::Database(error) = error else { return None };
    error.try_downcast_ref::<SqliteError>()?;
    error.code()?.parse().ok()
}

/// SQLite's primary result code.
fn sqlite_code(error: &sqlx::Error) -> Option<i32> {
    sqlite_extended(error).map(|code| code & 0xff)
}

/// Whether a connection to a file is usable after this error, within its transaction if there is one.
pub(super) fn leaves_file_in_step(error: &sqlx::Error) -> bool {
    match sqlite_code(error) {
        Some(code) => !matches!(
            code,
            SQLITE_NOMEM
                | SQLITE_INTERRUPT
                | SQLITE_IOERR
                | SQLITE_CORRUPT
                | SQLITE_FULL
                | SQLITE_CANTOPEN
                | SQLITE_PROTOCOL
                | SQLITE_NOTADB
        ),
        None => !matches!(
            error,
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed | sqlx::Error::PoolClosed
        ),
    }
}

/// Whether PostgreSQL ends the connection after an error with this code.
pub(super) fn ends_connection(code: &str) -> bool {
    // Connection exceptions; the server shuts down or starts up; idle_in_transaction_session_timeout; transaction_timeout.
    code.starts_with("08") || code.starts_with("57P") || matches!(code, "25P03" | "25P04")
}

fn is_clash(error: &sqlx::Error) -> bool {
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
            tracing::warn!(%error, "the outcome of a write is unknown");
            return Self::Unknown;
        }
        if error.is_full() {
            // Logged once by the watch of the disk, not with each write.
            tracing::debug!(error = %error, "the database has no room left");
            return Self::DiskFull { retry_after: FULL_RETRY_AFTER };
        }
        if error.is_connection() {
            match error.source {
                // Logged nowhere else.
                sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => {
                    tracing::warn!(error = %error, "no connection to the database was free in time");
                }
                // Logged once by the server's dependency, which is asked until it answers again.
                _ => tracing::debug!(error = %error, "the database can't be reached"),
            }
            return Self::Unavailable { retry_after: Duration::from_secs(1) };
        }
        if error.is_clash() || error.is_late() {
            tracing::warn!(error = %error, "the database is too busy with others");
            return Self::Unavailable { retry_after: Duration::from_secs(1) };
        }
        if error.is_of_input() {
            tracing::warn!(error = %error, "the database refused a value that the domain let through");
            return Self::Invalid;
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
        /// The domain of the database.
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
        /// The domain of the database.
        domain: String,
        /// The migration this program lacks.
        version: i64,
    },
    /// The migration took too long, or another node's did.
    #[error(
        "the schema of {domain} was not brought up to date in time; if another node has begun to and does not go on, end \
         that node, or the session that pg_locks shows with the advisory lock"
    )]
    Late {
        /// The domain of the database.
        domain: String,
    },
    /// A migration failed; none of it was applied.
    #[error("a migration of {domain} failed: {source}")]
    Failed {
        /// The domain of the database.
        domain: String,
        /// Why.
        source: sqlx::migrate::MigrateError,
    },
}
