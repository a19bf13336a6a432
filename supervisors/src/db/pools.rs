//! Where connections come from.

use std::{
    collections::HashMap,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    thread::{self, ThreadId},
    time::Duration,
};

use futures_util::future::join_all;
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
    pool::{Bounds, Counts, Pool},
    query::Replica,
    transaction::Origin,
};
use crate::{
    Clock, Outage,
    breaker::{self, Breaker, Window},
};

/// How long everything may take to close, unless told otherwise.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// How long a read waits for a connection to the replica before the primary answers it.
const REPLICA_WITHIN: Duration = Duration::from_secs(1);

/// How long it waits for the answer of the replica: with the primary's it must come within the deadline of a request.
const REPLICA_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Every domain's database; cheap to clone.
#[derive(Debug, Clone)]
pub struct Databases {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: DatabaseSettings,
    sqlite: Mutex<HashMap<String, SqlitePools>>,
    postgres: Mutex<HashMap<(ThreadId, String), PostgresPools>>,
    /// Of the replica, for all threads.
    breaker: Option<Breaker>,
    origins: Mutex<HashMap<String, Arc<Origin>>>,
    /// Of each server, by its name.
    outages: Mutex<HashMap<String, Arc<Outage>>>,
}

#[derive(Debug, Clone)]
pub(super) struct SqlitePools {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
}

#[derive(Debug, Clone)]
pub(super) struct PostgresPools {
    pub(super) primary: Pool,
    pub(super) replica: Option<Replica>,
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
    Postgres(PostgresPools),
}

impl Databases {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(settings: DatabaseSettings) -> Self {
        let has_replica = matches!(&settings, DatabaseSettings::Postgres(PostgresSettings { read_url: Some(_), .. }));
        Self {
            inner: Arc::new(Inner {
                breaker: has_replica.then(replica_breaker).flatten(),
                settings,
                sqlite: Mutex::new(HashMap::new()),
                postgres: Mutex::new(HashMap::new()),
                origins: Mutex::new(HashMap::new()),
                outages: Mutex::default(),
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
            DatabaseSettings::Postgres(settings) => Pools::Postgres(self.open_postgres(settings, domain)?),
        };
        Ok(Database { pools, origin: self.origin(domain) })
    }

    fn origin(&self, domain: &str) -> Arc<Origin> {
        let mut origins = self.inner.origins.lock();
        origins.entry(domain.to_owned()).or_insert_with(|| Arc::new(Origin::new(domain))).clone()
    }

    /// The outages of a server, which all domains and threads share that use it.
    fn outage(&self, what: &str, server: &PgConnectOptions) -> Arc<Outage> {
        let server = format!("{what} at {}:{}", server.get_host(), server.get_port());
        let mut outages = self.inner.outages.lock();
        outages.entry(server.clone()).or_insert_with(|| Arc::new(Outage::new(server))).clone()
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

    fn open_postgres(&self, settings: &PostgresSettings, domain: &str) -> Result<PostgresPools, Error> {
        let key = (thread::current().id(), domain.to_owned());
        if let Some(pools) = self.inner.postgres.lock().get(&key) {
            return Ok(pools.clone());
        }
        let bounds = Bounds {
            connections: settings.connections,
            acquire_within: settings.acquire_timeout,
            statement_timeout: settings.statement_timeout,
            idle_for: Duration::from_secs(60),
        };
        let options = |url: &str| -> Result<PgConnectOptions, Error> {
            let timeout = settings.statement_timeout.as_millis().to_string();
            Ok(self
                .postgres_options(url)?
                .options([("statement_timeout", timeout), ("search_path", self.schema(domain))]))
        };
        let primary = options(settings.url_of(domain))?;
        let outage = self.outage("PostgreSQL", &primary);
        let primary = Pool::new(primary, bounds, outage);
        let replica = match (settings.read_url_of(domain), &self.inner.breaker) {
            (Some(url), Some(breaker)) => {
                let bounds = Bounds {
                    acquire_within: REPLICA_WITHIN.min(bounds.acquire_within),
                    statement_timeout: REPLICA_ANSWERS_WITHIN.min(bounds.statement_timeout),
                    ..bounds
                };
                let options = options(url)?;
                let outage = self.outage("the replica of PostgreSQL", &options);
                Some(Replica { pool: Pool::new(options, bounds, outage), breaker: breaker.clone() })
            }
            _ => None,
        };
        let pools = PostgresPools { primary, replica };
        Ok(self.inner.postgres.lock().entry(key).or_insert(pools).clone())
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
        Ok(PgConnectOptions::from_str(url)?
            .application_name("callboard")
            // What exists already and is left as it is need not be told.
            .options([("client_min_messages", "warning")])
            .log_statements(LevelFilter::Trace))
    }

    /// How many connections each domain has, all threads together: domain, server, and counts.
    pub(super) fn counts(&self) -> Vec<(String, &'static str, Counts)> {
        let mut sums: HashMap<(String, &'static str), Counts> = HashMap::new();
        for ((_, domain), pools) in &*self.inner.postgres.lock() {
            let replica = pools.replica.as_ref().map(|replica| ("replica", replica.pool.counts()));
            for (server, counts) in [Some(("primary", pools.primary.counts())), replica].into_iter().flatten() {
                let sum = sums.entry((domain.clone(), server)).or_default();
                sum.in_use += counts.in_use;
                sum.idle += counts.idle;
                sum.limit += counts.limit;
            }
        }
        sums.into_iter().map(|((domain, server), counts)| (domain, server, counts)).collect()
    }

    /// Closes every pool, so that files can be removed and a server sees no connection. What is in use then is waited
    /// for, but not for long.
    pub async fn close(&self) {
        self.close_within(CLOSE_WITHIN).await;
    }

    /// The same, in this time.
    pub async fn close_within(&self, within: Duration) {
        let sqlite: Vec<_> = self.inner.sqlite.lock().drain().map(|(_, pools)| pools).collect();
        let closed = join_all(sqlite.iter().map(async |pools| {
            pools.readers.close().await;
            pools.writer.close().await;
        }));
        if timeout(within, closed).await.is_err() {
            tracing::warn!("a database file is still in use");
        }
        let postgres: Vec<_> = self.inner.postgres.lock().drain().map(|(_, pools)| pools).collect();
        let all = postgres.iter().flat_map(|pools| {
            [Some(&pools.primary), pools.replica.as_ref().map(|replica| &replica.pool)].into_iter().flatten()
        });
        join_all(all.map(|pool| pool.close(within))).await;
    }
}

/// A replica that fails is left alone for a while, so that reads do not wait for it one by one.
fn replica_breaker() -> Option<Breaker> {
    let settings = breaker::Settings {
        window: Window::Count(10),
        minimum_calls: 3,
        open_for: Duration::from_secs(1),
        open_at_most: Duration::from_secs(10),
        probes: 1,
        ..breaker::Settings::default()
    };
    Breaker::new("database replica", settings, Clock::system()).ok()
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

    /// For statements that only read, and whose answer may be as old as the replica is behind: from the replica when
    /// there is one that answers, and from the database itself otherwise.
    #[must_use]
    pub const fn read(&self) -> Reads<'_> {
        Reads(self)
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

    /// Changes whenever a transaction of this process has committed events to the outbox.
    pub(crate) fn outbox_filled(&self) -> tokio::sync::watch::Receiver<u64> {
        self.origin.outbox_filled.subscribe()
    }
}

/// A database for statements that only read.
#[derive(Debug, Clone, Copy)]
pub struct Reads<'d>(&'d Database);

impl<'d> Reads<'d> {
    /// One statement that only reads.
    pub fn query(self, sql: &'static str) -> Query<'d> {
        Query::on_replica(&self.0.pools, sql)
    }
}
