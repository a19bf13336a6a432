//! Where data is kept.

use std::{path::Path, time::Duration};

use callboard_messages::Secret;
use callboard_supervisors::db::DatabaseSettings;

use super::reader::Reader;

/// SQLite files in the data folder, or a PostgreSQL server.
#[derive(Debug)]
pub struct DatabaseChoice {
    /// `CALLBOARD_DATABASE_URL`, or `_FILE`: `postgres://…`. SQLite in the data folder unless set.
    pub url: Option<Secret>,
    /// `CALLBOARD_DATABASE_CONNECTIONS`: of one domain on one thread.
    pub connections: u32,
    /// `CALLBOARD_DATABASE_STATEMENT_TIMEOUT`.
    pub statement_timeout: Duration,
    /// `CALLBOARD_DATABASE_SCHEMA_PREFIX`: before each domain's name.
    pub schema_prefix: String,
}

impl DatabaseChoice {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let choice = Self {
            url: reader.secret(
                "CALLBOARD_DATABASE_URL",
                "A PostgreSQL server, postgres://user:password@host/database; SQLite files in the data folder when not set.",
            ),
            connections: reader.within(
                "CALLBOARD_DATABASE_CONNECTIONS",
                "PostgreSQL: connections of one domain on one worker thread.",
                8,
                1..=1000,
            ),
            statement_timeout: reader.within(
                "CALLBOARD_DATABASE_STATEMENT_TIMEOUT",
                "PostgreSQL: the server ends a statement that takes longer.",
                Duration::from_secs(10),
                Duration::from_millis(100)..=Duration::from_secs(600),
            ),
            schema_prefix: reader.value(
                "CALLBOARD_DATABASE_SCHEMA_PREFIX",
                "PostgreSQL: before each domain's name in the name of its schema.",
                "",
            ),
        };
        let good = choice.url.as_ref().is_none_or(|url| {
            url::Url::parse(url.expose()).is_ok_and(|url| matches!(url.scheme(), "postgres" | "postgresql"))
        });
        reader.require(good, || "CALLBOARD_DATABASE_URL must begin with postgres://".to_owned());
        choice
    }

    /// As the runtime takes it.
    pub fn settings(&self, data: &Path) -> DatabaseSettings {
        match &self.url {
            None => DatabaseSettings::Sqlite { folder: data.join("databases") },
            Some(url) => DatabaseSettings::Postgres {
                url: url.expose().to_owned(),
                schema_prefix: self.schema_prefix.clone(),
                connections: self.connections,
                statement_timeout: self.statement_timeout,
            },
        }
    }
}
