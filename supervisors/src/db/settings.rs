//! Settings of the databases: engine, address and bounds.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// Where the data of every domain is.
#[derive(Debug, Clone)]
pub enum DatabaseSettings {
    /// A file for each domain in this folder.
    Sqlite {
        /// Created if it does not exist.
        folder: PathBuf,
    },
    /// A schema for each domain, on one server or several.
    Postgres(PostgresSettings),
}

/// The servers, and the bounds of their use.
#[derive(Clone)]
pub struct PostgresSettings {
    /// `CALLBOARD_DATABASE_URL`: `postgres://…`, of every domain that has none of its own.
    pub url: String,
    /// `CALLBOARD_<DOMAIN>_DATABASE_URL`: of one domain, by its name.
    pub own_urls: BTreeMap<String, String>,
    /// `CALLBOARD_DATABASE_READ_URL`: a replica of `url`, for reads that allow its staleness. Domains with a server of
    /// their own do not use it.
    pub read_url: Option<String>,
    /// Prefix of every schema's name. Default: none.
    pub schema_prefix: String,
    /// Connections of this process to each server, all domains and threads together. Default: 64.
    pub connections: u32,
    /// Threads that open connections: each has an equal part of them. Default: 1.
    pub threads: u32,
    /// Whether the URLs lead to a pooler in transaction mode (PgBouncer): nothing is then left on a connection between
    /// two transactions, which costs three more round trips per statement. Default: no.
    pub is_pooled: bool,
    /// The server ends a statement that takes longer; without an answer a second later, the connection is dropped.
    /// Default: 10 s.
    pub statement_timeout: Duration,
    /// Time limit of getting a connection. Default: 5 s.
    pub acquire_timeout: Duration,
    /// An idle connection is closed after this. Default: 60 s.
    pub idle_timeout: Duration,
}

impl PostgresSettings {
    /// One server with the defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            own_urls: BTreeMap::new(),
            read_url: None,
            schema_prefix: String::new(),
            connections: 64,
            threads: 1,
            is_pooled: false,
            statement_timeout: Duration::from_secs(10),
            acquire_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
        }
    }

    /// The server of `domain`.
    pub(super) fn url_of(&self, domain: &str) -> &str {
        self.own_urls.get(domain).unwrap_or(&self.url)
    }

    /// Whether only one domain is on the server of `url`.
    pub(super) fn is_of_one(&self, url: &str) -> bool {
        url != self.url && self.own_urls.values().filter(|own| *own == url).count() == 1
    }

    /// The replica of `domain`.
    pub(super) fn read_url_of(&self, domain: &str) -> Option<&str> {
        if self.own_urls.contains_key(domain) { None } else { self.read_url.as_deref() }
    }
}

/// Without the URLs, which hold passwords.
impl std::fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresSettings")
            .field("own_urls", &self.own_urls.keys())
            .field("has_replica", &self.read_url.is_some())
            .field("schema_prefix", &self.schema_prefix)
            .field("connections", &self.connections)
            .field("threads", &self.threads)
            .field("is_pooled", &self.is_pooled)
            .field("statement_timeout", &self.statement_timeout)
            .finish_non_exhaustive()
    }
}

impl DatabaseSettings {
    /// A PostgreSQL server with the defaults of [`PostgresSettings::new`].
    pub fn postgres(url: impl Into<String>) -> Self {
        Self::Postgres(PostgresSettings::new(url))
    }

    /// The server's name in metrics: `primary`, `replica`, or the domains that have it for themselves.
    pub(super) fn server_of(&self, url: &str) -> String {
        let Self::Postgres(settings) = self else { return String::new() };
        if url == settings.url {
            return "primary".to_owned();
        }
        let own = settings.own_urls.iter().filter(|(_, own)| *own == url);
        match own.map(|(domain, _)| domain.as_str()).collect::<Vec<_>>().join("+") {
            of if of.is_empty() => "replica".to_owned(),
            of => of,
        }
    }

    /// The engine.
    #[must_use]
    pub const fn engine(&self) -> Engine {
        match self {
            Self::Sqlite { .. } => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
        }
    }
}

/// The engine behind a [`Database`](super::Database).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A file of the domain's own.
    Sqlite,
    /// A schema of the domain's own.
    Postgres,
}
