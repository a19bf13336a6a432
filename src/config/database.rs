//! Where data is kept.

use std::{path::Path, time::Duration};

use callboard_messages::Secret;
use callboard_supervisors::db::{DatabaseSettings, PostgresSettings};

use super::{reader::Reader, value::Value};
use crate::domains;

/// SQLite files in the data folder, or a PostgreSQL server.
#[derive(Debug)]
pub struct DatabaseChoice {
    /// `CALLBOARD_DATABASE_URL`, or `_FILE`: `postgres://…`. SQLite in the data folder unless set.
    pub url: Option<Secret>,
    /// `CALLBOARD_<DOMAIN>_DATABASE_URL`, or `_FILE`: of one domain alone, by its name.
    pub own_urls: Vec<(&'static str, Secret)>,
    /// `CALLBOARD_DATABASE_READ_URL`, or `_FILE`: a replica, for reads that may be a little old.
    pub read_url: Option<Secret>,
    /// `CALLBOARD_DATABASE_CONNECTIONS`: of this node to each server.
    pub connections: u32,
    /// How many threads have a part of them.
    pub threads: u32,
    /// `CALLBOARD_DATABASE_POOLER`: whether a pooler in transaction mode stands before the servers.
    pub is_pooled: bool,
    /// `CALLBOARD_DATABASE_STATEMENT_TIMEOUT`.
    pub statement_timeout: Duration,
    /// `CALLBOARD_DATABASE_SCHEMA_PREFIX`: before each domain's name.
    pub schema_prefix: String,
}

/// What stands before a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pooler {
    None,
    /// It gives a connection for as long as a transaction takes.
    Transaction,
}

impl Value for Pooler {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "none" => Ok(Self::None),
            "transaction" => Ok(Self::Transaction),
            _ => Err("none or transaction".to_owned()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::None => "none",
            Self::Transaction => "transaction",
        }
        .to_owned()
    }
}

fn is_postgres(url: &Secret) -> bool {
    url::Url::parse(url.expose()).is_ok_and(|url| matches!(url.scheme(), "postgres" | "postgresql"))
}

impl DatabaseChoice {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let choice = Self {
            url: reader.secret(
                "CALLBOARD_DATABASE_URL",
                "A PostgreSQL server, postgres://user:password@host/database; SQLite files in the data folder when not set.",
            ),
            own_urls: domains::stores()
                .filter_map(|store| {
                    let about = format!("PostgreSQL: another server or database for {} alone.", store.name);
                    Some((store.name, reader.secret(domains::database_variable(store.name), about)?))
                })
                .collect(),
            read_url: reader.secret(
                "CALLBOARD_DATABASE_READ_URL",
                "PostgreSQL: a replica of CALLBOARD_DATABASE_URL, for reads that may be a little behind.",
            ),
            connections: reader.within(
                "CALLBOARD_DATABASE_CONNECTIONS",
                "PostgreSQL: connections of this node to each server, at most; two for each of its threads at least.",
                64,
                1..=10_000,
            ),
            threads: 1,
            is_pooled: reader.value::<Pooler>(
                "CALLBOARD_DATABASE_POOLER",
                "PostgreSQL: transaction where the URLs lead to a pooler in transaction mode, such as PgBouncer; none.",
                Pooler::None,
            ) == Pooler::Transaction,
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
        let urls = [("CALLBOARD_DATABASE_URL", &choice.url), ("CALLBOARD_DATABASE_READ_URL", &choice.read_url)];
        for (variable, url) in urls {
            reader.require(url.as_ref().is_none_or(is_postgres), || format!("{variable} must begin with postgres://"));
        }
        for (domain, url) in &choice.own_urls {
            let variable = domains::database_variable(domain);
            reader.require(is_postgres(url), || format!("{variable} must begin with postgres://"));
            reader.require(choice.url.is_some(), || format!("{variable} needs CALLBOARD_DATABASE_URL for the rest"));
        }
        reader.require(choice.read_url.is_none() || choice.url.is_some(), || {
            "CALLBOARD_DATABASE_READ_URL needs CALLBOARD_DATABASE_URL, which it is a replica of".to_owned()
        });
        choice
    }

    /// How many connections this node opens to each server at most: what it is told, and two for each thread at least.
    pub fn bound(&self) -> u32 {
        self.connections.max(2 * self.threads)
    }

    /// As the runtime takes it.
    pub fn settings(&self, data: &Path) -> DatabaseSettings {
        match &self.url {
            None => DatabaseSettings::Sqlite { folder: data.join("databases") },
            Some(url) => DatabaseSettings::Postgres(PostgresSettings {
                own_urls: self.own_urls.iter().map(|(of, url)| ((*of).to_owned(), url.expose().to_owned())).collect(),
                read_url: self.read_url.as_ref().map(|url| url.expose().to_owned()),
                schema_prefix: self.schema_prefix.clone(),
                connections: self.bound(),
                threads: self.threads,
                is_pooled: self.is_pooled,
                statement_timeout: self.statement_timeout,
                ..PostgresSettings::new(url.expose())
            }),
        }
    }
}
