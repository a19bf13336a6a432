//! Which engine, where, and its bounds.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// Where the data of every domain is.
#[derive(Debug, Clone)]
pub enum DatabaseSettings {
    /// Files in this folder, one a domain.
    Sqlite {
        /// Made when it is not there.
        folder: PathBuf,
    },
    /// A schema a domain, on one server or several.
    Postgres(PostgresSettings),
}

/// The servers, and the bounds of what is asked of them.
#[derive(Clone)]
pub struct PostgresSettings {
    /// `CALLBOARD_DATABASE_URL`: `postgres://…`, of every domain that has none of its own.
    pub url: String,
    /// `CALLBOARD_<DOMAIN>_DATABASE_URL`: of one domain, by its name.
    pub own_urls: BTreeMap<String, String>,
    /// `CALLBOARD_DATABASE_READ_URL`: a replica of `url`, for reads that ask for it and may be as old as the replica is
    /// behind. The domains with a server of their own do not use it.
    pub read_url: Option<String>,
    /// Before the domain's name in its schema's name. Nothing.
    pub schema_prefix: String,
    /// Connections of one domain on one thread, to the server and to the replica each. 8.
    pub connections: u32,
    /// The server ends a statement that takes longer; without an answer a second later, the connection is given up.
    /// 10 s.
    pub statement_timeout: Duration,
    /// How long one may wait for a connection. 5 s.
    pub acquire_timeout: Duration,
}

impl PostgresSettings {
    /// One server with the defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            own_urls: BTreeMap::new(),
            read_url: None,
            schema_prefix: String::new(),
            connections: 8,
            statement_timeout: Duration::from_secs(10),
            acquire_timeout: Duration::from_secs(5),
        }
    }

    /// The server of `domain`.
    pub(super) fn url_of(&self, domain: &str) -> &str {
        self.own_urls.get(domain).unwrap_or(&self.url)
    }

    /// Its replica.
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
            .field("statement_timeout", &self.statement_timeout)
            .finish_non_exhaustive()
    }
}

impl DatabaseSettings {
    /// A PostgreSQL server with the defaults of [`PostgresSettings::new`].
    pub fn postgres(url: impl Into<String>) -> Self {
        Self::Postgres(PostgresSettings::new(url))
    }

    /// Which engine.
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
