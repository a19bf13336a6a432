//! Where connections come from.

use std::{
    collections::HashMap,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, LazyLock},
    thread::{self, ThreadId},
    time::Duration,
};

use parking_lot::Mutex;
use sqlx::{
    ConnectOptions, Connection, PgPool, SqlitePool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tracing::log::LevelFilter;

use super::{Error, MigrationError, Query, Transaction, transaction::Origin};

/// The tables that the runtime itself keeps beside those of each domain: outbox, inbox, leases, sagas, schedules.
static RUNTIME: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("../migrations/runtime");
    migrator.dangerous_set_table_name("_runtime_migrations");
    migrator
});

/// A connection that was idle for longer is tested before it is used; under load none is.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(1);

/// Which engine, and its bounds.
#[derive(Debug, Clone)]
pub enum DatabaseSettings {
    /// Files in this folder, one a domain.
    Sqlite {
        /// Made when it is not there.
        folder: PathBuf,
    },
    /// One server, a schema a domain.
    Postgres {
        /// `postgres://…`.
        url: String,
        /// Before the domain's name in its schema's name.
        schema_prefix: String,
        /// Connections of one domain on one thread.
        connections: u32,
        /// The server ends a statement that takes longer.
        statement_timeout: Duration,
    },
}

impl DatabaseSettings {
    /// A PostgreSQL server with the defaults: 8 connections for each domain and thread, 10 s for a statement.
    pub fn postgres(url: impl Into<String>) -> Self {
        Self::Postgres {
            url: url.into(),
            schema_prefix: String::new(),
            connections: 8,
            statement_timeout: Duration::from_secs(10),
        }
    }

    /// Which engine.
    #[must_use]
    pub const fn engine(&self) -> Engine {
        match self {
            Self::Sqlite { .. } => Engine::Sqlite,
            Self::Postgres { .. } => Engine::Postgres,
        }
    }
}

/// The engine behind a [`Database`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A file of the domain's own.
    Sqlite,
    /// A schema of the domain's own.
    Postgres,
}

/// Every domain's database; cheap to clone.
#[derive(Debug, Clone)]
pub struct Databases {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: DatabaseSettings,
    sqlite: Mutex<HashMap<String, SqlitePools>>,
    postgres: Mutex<HashMap<(ThreadId, String), PgPool>>,
    origins: Mutex<HashMap<String, Arc<Origin>>>,
}

#[derive(Debug, Clone)]
pub(super) struct SqlitePools {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
}

/// One domain's database, for use on the thread that opened it.
#[derive(Debug, Clone)]
pub struct Database {
    pub(super) pools: Pools,
    pub(super) origin: Arc<Origin>,
}

#[derive(Debug, Clone)]
pub(super) enum Pools {
    Sqlite(SqlitePools),
    Postgres(PgPool),
}

impl Databases {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(settings: DatabaseSettings) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings,
                sqlite: Mutex::new(HashMap::new()),
                postgres: Mutex::new(HashMap::new()),
                origins: Mutex::new(HashMap::new()),
            }),
        }
    }

    /// Which engine all of them have.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.inner.settings.engine()
    }

    /// The database of `domain` for this thread.
    ///
    /// # Errors
    /// When the file or the folder can't be opened. A PostgreSQL server is connected to at first use.
    pub async fn open(&self, domain: &str) -> Result<Database, Error> {
        let pools = match &self.inner.settings {
            DatabaseSettings::Sqlite { folder } => Pools::Sqlite(self.open_sqlite(domain, folder.clone()).await?),
            DatabaseSettings::Postgres { .. } => Pools::Postgres(self.open_postgres(domain)?),
        };
        Ok(Database { pools, origin: self.origin(domain) })
    }

    fn origin(&self, domain: &str) -> Arc<Origin> {
        let mut origins = self.inner.origins.lock();
        origins.entry(domain.to_owned()).or_insert_with(|| Arc::new(Origin::new(domain))).clone()
    }

    async fn open_sqlite(&self, domain: &str, folder: PathBuf) -> Result<SqlitePools, Error> {
        if let Some(pools) = self.inner.sqlite.lock().get(domain) {
            return Ok(pools.clone());
        }
        std::fs::create_dir_all(&folder).map_err(sqlx::Error::Io)?;
        let options = SqliteConnectOptions::new()
            .filename(folder.join(format!("{domain}.sqlite")))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // FULL: what was acknowledged survives a power cut, not only a crash of the process.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .log_statements(LevelFilter::Trace);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false)
            .connect_with(options.clone())
            .await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .test_before_acquire(false)
            .idle_timeout(Duration::from_secs(60))
            .connect_lazy_with(options.read_only(true).create_if_missing(false));
        let opened = SqlitePools { writer, readers };
        Ok(self.inner.sqlite.lock().entry(domain.to_owned()).or_insert(opened).clone())
    }

    fn open_postgres(&self, domain: &str) -> Result<PgPool, Error> {
        let DatabaseSettings::Postgres { connections, .. } = &self.inner.settings else {
            return Err(sqlx::Error::PoolClosed.into());
        };
        let options = self.postgres_options(Some(domain))?;
        let key = (thread::current().id(), domain.to_owned());
        let mut pools = self.inner.postgres.lock();
        let pool = pools.entry(key).or_insert_with(|| {
            PgPoolOptions::new()
                .max_connections(*connections)
                .acquire_timeout(Duration::from_secs(5))
                .idle_timeout(Duration::from_secs(60))
                .test_before_acquire(false)
                .before_acquire(|connection, meta| {
                    Box::pin(async move {
                        if meta.idle_for < TEST_AFTER_IDLE {
                            return Ok(true);
                        }
                        connection.ping().await.map(|()| true)
                    })
                })
                .connect_lazy_with(options)
        });
        Ok(pool.clone())
    }

    fn schema(&self, domain: &str) -> String {
        match &self.inner.settings {
            DatabaseSettings::Postgres { schema_prefix, .. } => format!("{schema_prefix}{domain}"),
            DatabaseSettings::Sqlite { .. } => domain.to_owned(),
        }
    }

    fn postgres_options(&self, domain: Option<&str>) -> Result<PgConnectOptions, Error> {
        let DatabaseSettings::Postgres { url, statement_timeout, .. } = &self.inner.settings else {
            return Err(sqlx::Error::PoolClosed.into());
        };
        let mut options = PgConnectOptions::from_str(url)?
            .application_name("callboard")
            .log_statements(LevelFilter::Trace)
            .options([("statement_timeout", statement_timeout.as_millis().to_string())]);
        if let Some(domain) = domain {
            options = options.options([("search_path", self.schema(domain))]);
        }
        Ok(options)
    }

    /// Brings the schema of `domain` up to date, and the runtime's own tables in it. Nodes that start together wait for
    /// one another.
    ///
    /// # Errors
    /// When the database can't be opened, is newer than this program, or a migration fails.
    pub async fn migrate(&self, domain: &str, migrator: &Migrator) -> Result<(), MigrationError> {
        let open = |source: Error| MigrationError::Open { domain: domain.to_owned(), source };
        if self.engine() == Engine::Postgres {
            self.create_schema(domain).await.map_err(open)?;
        }
        let database = self.open(domain).await.map_err(open)?;
        for migrator in [&*RUNTIME, migrator] {
            let outcome = match &database.pools {
                Pools::Sqlite(pools) => migrator.run(&pools.writer).await,
                Pools::Postgres(pool) => migrator.run(pool).await,
            };
            outcome.map_err(|error| match error {
                MigrateError::VersionMissing(version) => MigrationError::TooNew { domain: domain.to_owned(), version },
                source => MigrationError::Failed { domain: domain.to_owned(), source },
            })?;
        }
        Ok(())
    }

    async fn create_schema(&self, domain: &str) -> Result<(), Error> {
        let schema = quoted(&self.schema(domain));
        let mut connection = self.postgres_options(None)?.connect().await?;
        let statement = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
        let created = sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await;
        connection.close().await?;
        match created {
            // Two nodes that start together: IF NOT EXISTS looks before it writes, and the other was faster.
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Closes every pool, so that files can be removed and a server sees no connection.
    pub async fn close(&self) {
        let sqlite: Vec<_> = self.inner.sqlite.lock().drain().map(|(_, pools)| pools).collect();
        for pools in sqlite {
            pools.readers.close().await;
            pools.writer.close().await;
        }
        let postgres: Vec<_> = self.inner.postgres.lock().drain().map(|(_, pool)| pool).collect();
        for pool in postgres {
            pool.close().await;
        }
    }

    /// Removes the schema of `domain` with all that is in it. For tests.
    ///
    /// # Errors
    /// When the server can't be reached.
    pub(crate) async fn drop_schema(&self, domain: &str) -> Result<(), Error> {
        let mut connection = self.postgres_options(None)?.connect().await?;
        let statement = format!("DROP SCHEMA IF EXISTS {} CASCADE", quoted(&self.schema(domain)));
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

impl Database {
    /// Which engine.
    #[must_use]
    pub const fn engine(&self) -> Engine {
        match self.pools {
            Pools::Sqlite(_) => Engine::Sqlite,
            Pools::Postgres(_) => Engine::Postgres,
        }
    }

    /// One statement, outside a transaction.
    pub fn query(&self, sql: &'static str) -> Query<'_> {
        Query::on_pools(&self.pools, sql)
    }

    /// A transaction that can write. On SQLite it takes the one writer at once, because a transaction that begins as a
    /// reader and then writes is refused when another wrote meanwhile.
    ///
    /// # Errors
    /// When no connection can be had in time.
    pub async fn begin(&self) -> Result<Transaction, Error> {
        Transaction::begin(&self.pools, self.origin.clone()).await
    }

    /// Whose database it is.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.origin.domain
    }

    /// Waits until a transaction of this process has committed events to the outbox; one that did so since the last
    /// wait counts.
    pub(crate) async fn outbox_filled(&self) {
        self.origin.outbox_filled.notified().await;
    }
}
