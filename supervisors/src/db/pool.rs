//! Connections of one thread to one PostgreSQL server, for all domains that run there.
//!
//! A domain has a share of them, so that one whose statements hang leaves connections to the others; the last few are
//! given only to a domain that has none of these, so that several may hang.
//!
//! sqlx's own pool asks the server, without a deadline, about every connection that comes back. A server that has gone
//! silent (a stopped process, a black-holed route: the kernel goes on acknowledging) then keeps the permit of each such
//! connection for ever, and one that has not costs every statement another round trip. Here no wait for a server is
//! unbounded: a connection whose last answer came in full goes back at once, any other is dropped, and its permit is
//! free in that moment.

use std::{
    borrow::Cow,
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    runtime::Handle,
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{error::ends_connection, server::Server};

/// A connection that was idle for longer is pinged before it is used; under load none is.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(1);

/// Time limit of the answer to a ping or a ROLLBACK.
const TEST_WITHIN: Duration = Duration::from_secs(1);

/// Time limit of connecting.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// Time beyond the server's own statement timeout in which its error may arrive.
const ANSWER_GRACE: Duration = Duration::from_secs(1);

/// The server ends a transaction that is idle for longer. A node that froze in one would keep its locks for as long as
/// its connection lasts, so that no other node could take over.
pub(super) const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(5);

/// The bounds of a pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) connections: usize,
    /// Most connections of one domain.
    pub(super) share: usize,
    /// Time limit of getting a connection, including connecting.
    pub(super) acquire_within: Duration,
    /// The server ends a statement that takes longer.
    pub(super) statement_timeout: Duration,
    /// A connection that is idle for longer is closed.
    pub(super) idle_for: Duration,
    /// Whether a pooler is before the server, which lends a connection for one transaction only: no setting and no
    /// prepared statement may be left on it.
    pub(super) is_pooled: bool,
}

impl Bounds {
    /// Connections kept for domains that have none of these; zero where one domain may have all.
    const fn reserve(&self) -> usize {
        if self.connections > self.share { self.connections.div_ceil(4) } else { 0 }
    }
}

/// A pool of connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: PgConnectOptions,
    server: Server,
    bounds: Bounds,
    /// The statement that begins a transaction.
    begin: Cow<'static, str>,
    common: Arc<Semaphore>,
    /// Permits of the reserve: one at a time for each domain.
    reserve: Arc<Semaphore>,
    idle: Mutex<IdleConnections>,
}

/// The connections of a pool that one domain may have. Cheap to clone; clones are the same share.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pool: Arc<Inner>,
    permits: Arc<Semaphore>,
    /// The domain's only permit to use the reserve, or to wait for it.
    reserved: Arc<Semaphore>,
}

/// Connections not in use.
#[derive(Debug, Default)]
struct IdleConnections {
    /// Last used first.
    connections: VecDeque<Idle>,
    /// Whether a task runs that closes old ones.
    are_watched: bool,
    /// When a connection was last returned with all its answers.
    answered: Option<Instant>,
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    since: Instant,
}

/// A connection in use with its permits. When dropped it returns to the pool if every statement on it was answered.
#[derive(Debug)]
pub(super) struct Held {
    connection: Option<PgConnection>,
    is_in_step: bool,
    pool: Arc<Inner>,
    _permit: ConnectionPermit,
    _share: OwnedSemaphorePermit,
}

/// Permission to open one connection.
#[derive(Debug)]
enum ConnectionPermit {
    Common { _permit: OwnedSemaphorePermit },
    Reserved { _permit: OwnedSemaphorePermit, _reserved: OwnedSemaphorePermit },
}

/// Numbers of connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) in_use: usize,
    pub(super) idle: usize,
    pub(super) limit: usize,
}

impl Counts {
    pub(super) const fn add(&mut self, other: Self) {
        self.in_use += other.in_use;
        self.idle += other.idle;
        self.limit += other.limit;
    }
}

impl Pool {
    /// A pool without connections yet.
    pub(super) fn new(options: PgConnectOptions, server: Server, bounds: Bounds) -> Self {
        let reserve = bounds.reserve();
        let common = Arc::new(Semaphore::new(bounds.connections - reserve));
        let begin = match bounds.is_pooled {
            true => format!(
                "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL idle_in_transaction_session_timeout = {}",
                bounds.statement_timeout.as_millis(),
                IDLE_IN_TRANSACTION.as_millis()
            )
            .into(),
            false => "BEGIN".into(),
        };
        let reserve = Arc::new(Semaphore::new(reserve));
        Self(Arc::new(Inner { options, server, bounds, begin, common, reserve, idle: Mutex::default() }))
    }

    /// A share for a domain that has none yet.
    pub(super) fn share(&self) -> Share {
        Share {
            pool: self.0.clone(),
            permits: Arc::new(Semaphore::new(self.0.bounds.share)),
            reserved: Arc::new(Semaphore::new(1)),
        }
    }

    /// Gives out no more connections, waits for those in use until shortly before the end of `within`, and closes all.
    pub(super) async fn close(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let back_within = within.saturating_sub(TEST_WITHIN);
        let all_back = timeout(back_within, async {
            let reserve = self.0.bounds.reserve();
            for (permits, all) in [(&self.0.common, self.0.bounds.connections - reserve), (&self.0.reserve, reserve)] {
                // Kept: a permit given out again would be awaited again.
                if let Ok(back) = permits.acquire_many(u32::try_from(all).unwrap_or(u32::MAX)).await {
                    back.forget();
                }
            }
        });
        let is_in_use = all_back.await.is_err();
        self.0.common.close();
        self.0.reserve.close();
        if is_in_use {
            tracing::warn!("connections to the database are still in use and are dropped when they are not");
        }
        let idle = std::mem::take(&mut self.0.idle.lock().connections);
        let goodbye = TEST_WITHIN.min(deadline.saturating_duration_since(Instant::now()));
        // Without this the server would log a lost connection.
        join_all(idle.into_iter().map(|idle| timeout(goodbye, idle.connection.close()))).await;
    }

    pub(super) fn counts(&self) -> Counts {
        let limit = self.0.bounds.connections;
        let free = self.0.common.available_permits() + self.0.reserve.available_permits();
        Counts { in_use: limit.saturating_sub(free), idle: self.0.idle.lock().connections.len(), limit }
    }
}

impl Share {
    /// The domain's connections in use, and its share; idle connections belong to no domain.
    pub(super) fn counts(&self) -> Counts {
        let limit = self.pool.bounds.share;
        Counts { in_use: limit.saturating_sub(self.permits.available_permits()), idle: 0, limit }
    }

    /// Pings the server. If no answer comes in time but others got theirs since, the server is busy and not away.
    pub(super) async fn answers(&self, within: Duration) -> Result<(), sqlx::Error> {
        let began = Instant::now();
        let asked = async {
            let mut held = self.acquire_in_time().await?;
            held.run(async |connection| connection.ping().await).await
        };
        match timeout(within, asked).await {
            Ok(outcome) => outcome,
            Err(_) if self.pool.idle.lock().answered.is_some_and(|answered| answered > began) => Ok(()),
            Err(_) => Err(silent()),
        }
    }

    pub(super) fn server(&self) -> &Server {
        &self.pool.server
    }

    /// A connection that was alive a moment ago.
    pub(super) async fn acquire(&self) -> Result<Held, sqlx::Error> {
        match timeout(self.pool.bounds.acquire_within, self.acquire_in_time()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    async fn acquire_in_time(&self) -> Result<Held, sqlx::Error> {
        let closed = |_: AcquireError| sqlx::Error::PoolClosed;
        let share = Arc::clone(&self.permits).acquire_owned().await.map_err(closed)?;
        let permit = self.connection_permit().await.map_err(closed)?;
        let mut held =
            Held { connection: None, is_in_step: false, pool: self.pool.clone(), _permit: permit, _share: share };
        while let Some(Idle { connection, since }) = self.pool.pop() {
            let is_fresh = since.elapsed() < TEST_AFTER_IDLE;
            let connection = held.connection.insert(connection);
            if is_fresh {
                held.is_in_step = true;
                return Ok(held);
            }
            match timeout(TEST_WITHIN, connection.ping()).await {
                Ok(Ok(())) => {
                    held.is_in_step = true;
                    return Ok(held);
                }
                // This connection broke, which says nothing of the others.
                Ok(Err(_)) => {}
                // The server is silent: pinging the others one by one would take as long for each.
                Err(_) => self.pool.idle.lock().connections.clear(),
            }
        }
        let connected = timeout(CONNECT_WITHIN, self.pool.options.connect()).await;
        let connected = connected.map_err(|_| silent()).flatten();
        held.connection = Some(connected.inspect_err(|error| self.pool.server.note_refused(error))?);
        held.is_in_step = true;
        Ok(held)
    }

    async fn connection_permit(&self) -> Result<ConnectionPermit, AcquireError> {
        if let Ok(permit) = Arc::clone(&self.pool.common).try_acquire_owned() {
            return Ok(ConnectionPermit::Common { _permit: permit });
        }
        let reserved = async {
            let reserved = Arc::clone(&self.reserved).acquire_owned().await?;
            let permit = Arc::clone(&self.pool.reserve).acquire_owned().await?;
            Ok(ConnectionPermit::Reserved { _permit: permit, _reserved: reserved })
        };
        tokio::select! {
            biased;
            permit = Arc::clone(&self.pool.common).acquire_owned() => Ok(ConnectionPermit::Common { _permit: permit? }),
            permit = reserved => permit,
        }
    }
}

impl Inner {
    /// The connection used last.
    fn pop(&self) -> Option<Idle> {
        self.idle.lock().connections.pop_front()
    }

    fn put_back(self: &Arc<Self>, connection: PgConnection) {
        let mut idle = self.idle.lock();
        let now = Instant::now();
        idle.answered = Some(now);
        idle.connections.push_front(Idle { connection, since: now });
        if idle.are_watched {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        idle.are_watched = true;
        drop(idle);
        let pool = Arc::downgrade(self);
        runtime.spawn(async move {
            while let Some(next) = pool.upgrade().and_then(|pool| pool.close_old()) {
                tokio::time::sleep(next).await;
            }
        });
    }

    /// Closes connections that were idle for too long. Returns the time until the next is due; `None` when all are
    /// closed.
    fn close_old(&self) -> Option<Duration> {
        let idle_for = self.bounds.idle_for;
        let (old, oldest) = {
            let mut idle = self.idle.lock();
            let used = idle.connections.partition_point(|idle| idle.since.elapsed() < idle_for);
            let old = idle.connections.split_off(used);
            let oldest = idle.connections.back().map(|idle| idle.since);
            idle.are_watched = oldest.is_some();
            (old, oldest)
        };
        for idle in old {
            close_in_background(idle.connection);
        }
        oldest.map(|since| idle_for.saturating_sub(since.elapsed()))
    }
}

impl Held {
    /// Runs `work` with the connection, within the time limit of a statement.
    pub(super) async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let within = self.pool.bounds.statement_timeout + ANSWER_GRACE;
        let Some(connection) = &mut self.connection else { return Err(sqlx::Error::PoolClosed) };
        // Also when this future is dropped halfway: then a statement is unanswered.
        self.is_in_step = false;
        let outcome = match timeout(within, work(connection)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(silent()),
        };
        self.is_in_step = outcome.as_ref().err().is_none_or(leaves_in_step);
        if let Err(error) = &outcome {
            self.pool.server.note(error);
        }
        outcome
    }

    /// Begins a transaction on it.
    pub(super) async fn begin(&mut self) -> Result<(), sqlx::Error> {
        let begin = self.pool.begin.clone();
        self.run(async move |connection| sqlx::raw_sql(sqlx::AssertSqlSafe(begin)).execute(connection).await.map(drop))
            .await
    }

    /// Whether nothing may be left on the connection between two transactions.
    pub(super) fn is_pooled(&self) -> bool {
        self.pool.bounds.is_pooled
    }

    /// Whether every statement on it was answered.
    pub(super) const fn is_in_step(&self) -> bool {
        self.is_in_step
    }

    /// Notes that a write on it succeeded.
    pub(super) fn note_written(&self) {
        self.pool.server.note_written();
    }

    /// Drops the connection instead of returning it to the pool.
    pub(super) const fn discard(&mut self) {
        self.is_in_step = false;
    }

    /// Rolls its transaction back in the background.
    pub(super) fn take_back(mut self) {
        if !self.is_in_step {
            return; // dropped: the server takes it back when it sees that
        }
        let Ok(runtime) = Handle::try_current() else {
            self.is_in_step = false;
            return;
        };
        runtime.spawn(async move {
            let mut held = self;
            let Some(connection) = &mut held.connection else { return };
            held.is_in_step = false;
            let taken_back = timeout(TEST_WITHIN, sqlx::raw_sql("ROLLBACK").execute(connection)).await;
            held.is_in_step = matches!(taken_back, Ok(Ok(_)));
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if !self.is_in_step {
            // The caller may have had less time than it takes to notice that the server is away.
            self.pool.server.dependency.doubt();
        }
        if self.is_in_step && !self.pool.common.is_closed() {
            self.pool.put_back(connection);
        } else if self.is_in_step {
            close_in_background(connection);
        }
    }
}

/// Closes a connection properly, so that the server need not notice its end.
fn close_in_background(connection: PgConnection) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(timeout(TEST_WITHIN, connection.close()));
    }
}

/// Whether the connection is usable after this error.
pub(super) fn leaves_in_step(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => false,
        sqlx::Error::Database(error) => !error.code().is_some_and(|code| ends_connection(&code)),
        _ => true,
    }
}

fn silent() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the database server did not answer in time"))
}

/// Whether the connection broke at once, rather than fell silent.
pub(super) fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() != io::ErrorKind::TimedOut,
        sqlx::Error::Protocol(_) => true,
        // The server's reason for ending a connection, sent while it was idle.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
        _ => false,
    }
}
