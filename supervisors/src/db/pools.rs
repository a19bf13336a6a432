//! The connection pools of every domain's database.

use std::{
    collections::HashMap,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, OnceLock},
    thread::{self, ThreadId},
    time::Duration,
};

use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use sqlx::{
    ConnectOptions, SqlitePool,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::timeout;
use tracing::log::LevelFilter;

use super::{
    DatabaseSettings, Engine, Error, PostgresSettings, Query, Transaction,
    names::Names,
    opaque::Opaque,
    pool::{Bounds, Counts, IDLE_IN_TRANSACTION, Pool, Share},
    query::Replica,
    server::Server,
    transaction::Origin,
};
use crate::{
    breaker::{self, Breaker, Window},
    health::{dependency::Dependency, disk::Disk},
    time::clock::Clock,
};

/// Default time limit of closing all pools.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// How long a read waits for a connection to the replica before the primary answers it.
const REPLICA_WITHIN: Duration = Duration::from_secs(1);

/// How long a read waits for the replica's answer: together with the primary's it must come within a request's
/// deadline.
const REPLICA_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Prepared statements kept per connection: those of every domain.
const STATEMENTS: usize = 512;

/// Every domain's database; cheap to clone.
#[derive(Debug, Clone)]
pub struct Databases {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: DatabaseSettings,
    /// The disk of the SQLite files.
    disk: Disk,
    sqlite: Mutex<HashMap<String, SqlitePools>>,
    /// By thread and URL.
    postgres: Mutex<HashMap<(ThreadId, String), Pool>>,
    /// Of each domain on each thread.
    shares: Mutex<HashMap<(ThreadId, String), Shares>>,
    /// By their URLs.
    servers: Mutex<HashMap<String, Server>>,
    /// Breaker of the replica, for all threads.
    breaker: OnceLock<Breaker>,
    origins: Mutex<HashMap<String, Arc<Origin>>>,
}

#[derive(Debug, Clone)]
pub(super) struct SqlitePools {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
    pub(super) disk: Disk,
}

/// A domain's shares of the pools of one thread.
#[derive(Debug, Clone)]
pub(super) struct Shares {
    pub(super) primary: Share,
    pub(super) replica: Option<Replica>,
}

/// A domain's database, for use on the thread that opened it.
#[derive(Debug, Clone)]
pub struct Database(Arc<dyn Opaque<Opened> + Sync>);

/// What a database is for its domain.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) pools: Pools,
    pub(super) origin: Arc<Origin>,
}

#[derive(Debug, Clone)]
pub(super) enum Pools {
    Sqlite(SqlitePools),
    Postgres(Shares),
}

impl Databases {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(settings: DatabaseSettings) -> Self {
        Self::on_disk(settings, Disk::default())
    }

    /// The same with files on `disk`, which is told of writes that find it full.
    #[must_use]
    pub fn on_disk(settings: DatabaseSettings, disk: Disk) -> Self {
        Self {
            inner: Arc::new(Inner {
                breaker: OnceLock::new(),
                servers: Mutex::new(HashMap::new()),
                settings,
                disk,
                sqlite: Mutex::new(HashMap::new()),
                postgres: Mutex::new(HashMap::new()),
                shares: Mutex::new(HashMap::new()),
                origins: Mutex::new(HashMap::new()),
            }),
        }
    }

    /// The engine of all databases.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.inner.settings.engine()
    }

    /// The database of `domain` for this thread.
    ///
    /// # Errors
    /// When the file or the folder can't be opened. A PostgreSQL server is connected to at first use.
    pub fn open<'a>(&'a self, domain: &'a str) -> BoxFuture<'a, Result<Database, Error>> {
        // Boxed, as all that other crates await of these: each of them would compile it anew, down to the TLS handshake.
        Box::pin(self.open_now(domain))
    }

    async fn open_now(&self, domain: &str) -> Result<Database, Error> {
        let pools = match &self.inner.settings {
            DatabaseSettings::Sqlite { folder } => Pools::Sqlite(self.open_sqlite(domain, folder.clone()).await?),
            DatabaseSettings::Postgres(settings) => Pools::Postgres(self.open_postgres(settings, domain)?),
        };
        Ok(Database(Arc::new(Opened { pools, origin: self.origin(domain) })))
    }

    fn origin(&self, domain: &str) -> Arc<Origin> {
        let mut origins = self.inner.origins.lock();
        let names = || match self.engine() {
            Engine::Postgres => Some(Names::of(self.schema(domain))),
            Engine::Sqlite => None,
        };
        origins.entry(domain.to_owned()).or_insert_with(|| Arc::new(Origin::new(domain, names()))).clone()
    }

    async fn open_sqlite(&self, domain: &str, folder: PathBuf) -> Result<SqlitePools, Error> {
        if let Some(pools) = self.inner.sqlite.lock().get(domain) {
            return Ok(pools.clone());
        }
        tokio::fs::create_dir_all(&folder).await.map_err(sqlx::Error::Io)?;
        let options = SqliteConnectOptions::new()
            .filename(folder.join(format!("{domain}.sqlite")))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // FULL: a committed transaction survives a power cut, not only a crash of the process.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .log_statements(LevelFilter::Trace);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            // Opening a file without another connection rebuilds its WAL index, for which a full disk has no room: one
            // stays open.
            .min_connections(1)
            .test_before_acquire(false)
            .idle_timeout(Duration::from_secs(60))
            .max_lifetime(None)
            .connect_lazy_with(options.read_only(true).create_if_missing(false));
        let opened = SqlitePools { writer, readers, disk: self.inner.disk.clone() };
        Ok(self.inner.sqlite.lock().entry(domain.to_owned()).or_insert(opened).clone())
    }

    fn open_postgres(&self, settings: &PostgresSettings, domain: &str) -> Result<Shares, Error> {
        let key = (thread::current().id(), domain.to_owned());
        if let Some(shares) = self.inner.shares.lock().get(&key) {
            return Ok(shares.clone());
        }
        let connections = (settings.connections / settings.threads.max(1)).max(1) as usize;
        let url = settings.url_of(domain);
        let bounds = Bounds {
            connections,
            share: if settings.is_of_one(url) { connections } else { connections.div_ceil(2) },
            acquire_within: settings.acquire_timeout,
            statement_timeout: settings.statement_timeout,
            idle_for: settings.idle_timeout,
            is_pooled: settings.is_pooled,
        };
        let primary = self.pool(url, bounds)?.share();
        let replica = match settings.read_url_of(domain) {
            Some(url) => {
                let bounds = Bounds {
                    acquire_within: REPLICA_WITHIN.min(bounds.acquire_within),
                    statement_timeout: REPLICA_ANSWERS_WITHIN.min(bounds.statement_timeout),
                    ..bounds
                };
                let breaker = self.replica_breaker(self.server_at(url)?.dependency)?;
                Some(Replica { share: self.pool(url, bounds)?.share(), breaker })
            }
            None => None,
        };
        let shares = Shares { primary, replica };
        Ok(self.inner.shares.lock().entry(key).or_insert(shares).clone())
    }

    /// This thread's pool for the server of `url`.
    fn pool(&self, url: &str, bounds: Bounds) -> Result<Pool, Error> {
        let key = (thread::current().id(), url.to_owned());
        if let Some(pool) = self.inner.postgres.lock().get(&key) {
            return Ok(pool.clone());
        }
        let options = self.postgres_options(url)?;
        let options = if bounds.is_pooled {
            options.statement_cache_capacity(0)
        } else {
            let timeout = bounds.statement_timeout.as_millis().to_string();
            options.statement_cache_capacity(STATEMENTS).options([
                ("statement_timeout", timeout),
                ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION.as_millis().to_string()),
            ])
        };
        let pool = Pool::new(options, self.server_at(url)?, bounds);
        Ok(self.inner.postgres.lock().entry(key).or_insert(pool).clone())
    }

    fn server_at(&self, url: &str) -> Result<Server, Error> {
        let options = self.postgres_options(url)?;
        Ok(self.inner.servers.lock().entry(url.to_owned()).or_insert_with(|| Server::at(&options)).clone())
    }

    /// The server that `domain` depends on; `None` for a file and for an invalid URL.
    #[must_use]
    pub fn server(&self, domain: &str) -> Option<Dependency> {
        let DatabaseSettings::Postgres(settings) = self.settings() else { return None };
        Some(self.server_at(settings.url_of(domain)).ok()?.dependency)
    }

    /// The breaker keeps reads from waiting one by one for a replica that fails.
    fn replica_breaker(&self, server: Dependency) -> Result<Breaker, Error> {
        if let Some(breaker) = self.inner.breaker.get() {
            return Ok(breaker.clone());
        }
        let settings = breaker::Settings {
            window: Window::Count(10),
            minimum_calls: 3,
            open_for: Duration::from_secs(1),
            open_at_most: Duration::from_secs(10),
            probes: 1,
            ..breaker::Settings::default()
        };
        let breaker = Breaker::before(server, "database replica", settings, Clock::system())
            .map_err(|wrong| sqlx::Error::Configuration(wrong.join("; ").into()))?;
        Ok(self.inner.breaker.get_or_init(|| breaker).clone())
    }

    pub(super) fn settings(&self) -> &DatabaseSettings {
        &self.inner.settings
    }

    pub(super) fn schema(&self, domain: &str) -> String {
        match &self.inner.settings {
            DatabaseSettings::Postgres(settings) => format!("{}{domain}", settings.schema_prefix),
            DatabaseSettings::Sqlite { .. } => domain.to_owned(),
        }
    }

    pub(super) fn postgres_options(&self, url: &str) -> Result<PgConnectOptions, Error> {
        let options = PgConnectOptions::from_str(url)?.application_name("callboard").log_statements(LevelFilter::Trace);
        let is_pooled = matches!(&self.inner.settings, DatabaseSettings::Postgres(settings) if settings.is_pooled);
        // Notices of IF NOT EXISTS are not wanted. A pooler accepts no settings of one client.
        Ok(if is_pooled { options } else { options.options([("client_min_messages", "warning")]) })
    }

    /// Connections of this node to each server, all threads together.
    pub(super) fn counts(&self) -> Vec<(String, Counts)> {
        let mut sums: HashMap<String, Counts> = HashMap::new();
        for ((_, url), pool) in &*self.inner.postgres.lock() {
            sums.entry(self.settings().server_of(url)).or_default().add(pool.counts());
        }
        sums.into_iter().collect()
    }

    /// Connections of each domain, by domain and server.
    pub(super) fn shares(&self) -> Vec<((String, &'static str), Counts)> {
        let mut sums: HashMap<(String, &'static str), Counts> = HashMap::new();
        for ((_, domain), shares) in &*self.inner.shares.lock() {
            let replica = shares.replica.as_ref().map(|replica| ("replica", replica.share.counts()));
            for (server, counts) in [Some(("primary", shares.primary.counts())), replica].into_iter().flatten() {
                sums.entry((domain.clone(), server)).or_default().add(counts);
            }
        }
        sums.into_iter().collect()
    }

    /// Closes every pool, so that files can be removed and a server sees no connection. Waits a bounded time for
    /// connections in use.
    pub async fn close(&self) {
        self.close_within(CLOSE_WITHIN).await;
    }

    /// The same, within this time.
    pub fn close_within(&self, within: Duration) -> BoxFuture<'_, ()> {
        Box::pin(self.close_now(within))
    }

    async fn close_now(&self, within: Duration) {
        let sqlite: Vec<_> = self.inner.sqlite.lock().drain().map(|(_, pools)| pools).collect();
        let closed = join_all(sqlite.iter().map(async |pools| {
            pools.readers.close().await;
            pools.writer.close().await;
        }));
        if timeout(within, closed).await.is_err() {
            tracing::warn!("a database file is still in use");
        }
        self.inner.shares.lock().clear();
        let pools: Vec<Pool> = self.inner.postgres.lock().drain().map(|(_, pool)| pool).collect();
        join_all(pools.iter().map(|pool| pool.close(within))).await;
    }
}

impl Database {
    pub(super) fn opened(&self) -> &Opened {
        (*self.0).get()
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match self.opened().pools {
            Pools::Sqlite(_) => Engine::Sqlite,
            Pools::Postgres(_) => Engine::Postgres,
        }
    }

    /// One statement, outside a transaction.
    pub fn query(&self, sql: &'static str) -> Query<'_> {
        let Opened { pools, origin } = self.opened();
        Query::on_pools(pools, origin, sql)
    }

    /// For statements that only read, and whose answer may be as stale as the replica: from the replica when there is
    /// one that answers, and from the primary otherwise.
    #[must_use]
    pub const fn read(&self) -> Reads<'_> {
        Reads(self)
    }

    /// A transaction that can write. On SQLite it takes the one writer at once, because a transaction that begins as a
    /// reader and then writes is refused when another wrote meanwhile.
    ///
    /// # Errors
    /// When no connection is available in time.
    pub fn begin(&self) -> BoxFuture<'_, Result<Transaction, Error>> {
        let Opened { pools, origin } = self.opened();
        Box::pin(Transaction::begin(pools, origin.clone()))
    }

    /// The domain of the database.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.opened().origin.domain
    }

    /// Changes whenever a transaction of this process has committed events to the outbox.
    pub(crate) fn outbox_filled(&self) -> tokio::sync::watch::Receiver<u64> {
        self.opened().origin.outbox_filled.subscribe()
    }
}

/// A database for statements that only read.
#[derive(Debug, Clone, Copy)]
pub struct Reads<'d>(&'d Database);

impl<'d> Reads<'d> {
    /// One statement that only reads.
    pub fn query(self, sql: &'static str) -> Query<'d> {
        let Opened { pools, origin } = self.0.opened();
        Query::on_replica(pools, origin, sql)
    }
}
