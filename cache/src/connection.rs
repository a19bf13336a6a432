//! Connections to Redis: one for each thread, a deadline for each command, and a breaker before all of them, which is
//! reset when an absent server answers again.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
    time::Duration,
};

use callboard_platform::limits::{InProcess, RateLimitStore, RateLimits};
use callboard_supervisors::{
    About, Clock, Dependency,
    breaker::{self, Breaker, Permit, Verdict, Window},
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use prometheus::Registry;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult, Script, aio::MultiplexedConnection};

use crate::{
    error::{CacheError, CheckError},
    metrics::Metrics,
    rates::SharedRates,
    settings::CacheSettings,
};

/// Time limit of connecting, including TLS and sign-in. Longer than a command: the caller that can't wait goes on
/// without, and a later command finds the connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// A client of a Redis server. Cheap to clone.
///
/// Connections are made when they are needed, one for each thread that asks, so that no answer has to cross threads;
/// the commands of a thread share its connection and do not wait for one another.
#[derive(Clone)]
pub struct Cache {
    pub(crate) metrics: Option<Metrics>,
    server: Option<Arc<Server>>,
}

struct Server {
    client: Client,
    prefix: String,
    timeout: Duration,
    breaker: Breaker,
    /// Asked in the background while it is away.
    dependency: Dependency,
    clock: Clock,
    links: Mutex<HashMap<ThreadId, Link>>,
    next_link: AtomicU64,
}

type Connecting = Shared<BoxFuture<'static, Result<MultiplexedConnection, RedisError>>>;

#[derive(Clone)]
struct Link {
    number: u64,
    connection: Connecting,
}

/// A breaker that opens soon and shortly, so that an outage is not paid for by every caller and its end is noticed
/// soon: after five failures in a row, for half a second.
fn breaker_settings(timeout: Duration) -> breaker::Settings {
    breaker::Settings {
        window: Window::Count(10),
        minimum_calls: 5,
        slow_after: timeout,
        open_for: Duration::from_millis(500),
        open_at_most: Duration::from_secs(2),
        probes: 2,
        half_open_at_most: Duration::from_secs(2),
        ..breaker::Settings::default()
    }
}

impl Cache {
    /// A client with these settings. Nothing is connected yet, so that an absent server delays no start.
    ///
    /// # Errors
    /// A sentence for each invalid setting.
    pub fn connect(settings: &CacheSettings, clock: Clock) -> Result<Self, Vec<String>> {
        Self::behind(breaker_settings(settings.timeout), settings, clock)
    }

    /// The same with a breaker of these settings.
    pub(crate) fn behind(
        breaker: breaker::Settings,
        settings: &CacheSettings,
        clock: Clock,
    ) -> Result<Self, Vec<String>> {
        settings.validate()?;
        // Another part of the program may have installed one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::open(settings.url.expose()).map_err(|error| vec![error.category().to_owned()])?;
        let dependency = dependency(&client, key(&settings.prefix, "check", "back"));
        let breaker = Breaker::before(dependency.clone(), "redis", breaker, clock.clone())?;
        let metrics = Metrics::new(breaker.clone()).map_err(|error| vec![error.to_string()])?;
        let server = Server {
            client,
            prefix: settings.prefix.clone(),
            timeout: settings.timeout,
            breaker,
            dependency,
            clock,
            links: Mutex::default(),
            next_link: AtomicU64::new(0),
        };
        Ok(Self { metrics: Some(metrics), server: Some(Arc::new(server)) })
    }

    /// No server, for a node that is alone. Everything works within the process.
    #[must_use]
    pub const fn none() -> Self {
        Self { metrics: None, server: None }
    }

    /// Whether a server is configured, up or not.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.server.is_some()
    }

    /// Checks the server once, at the start of a node.
    ///
    /// # Errors
    /// [`CheckError::Refused`] is a reason not to start; [`CheckError::Unreachable`] is not.
    pub async fn check(&self) -> Result<(), CheckError> {
        let Some(server) = &self.server else { return Ok(()) };
        match tokio::time::timeout(CONNECT_WITHIN, look(&server.client, &self.key("check", "start"))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(CacheError::from(error).into()),
            Err(_) => Err(CacheError::Late.into()),
        }
    }

    /// Rate limits across all nodes, by `limits`; counted in this process without a server, or when it does not answer.
    #[must_use]
    pub fn rate_limits(&self, limits: &RateLimits) -> Arc<dyn RateLimitStore> {
        if self.is_shared() {
            Arc::new(SharedRates::new(self.clone(), limits))
        } else {
            Arc::new(InProcess::new(limits))
        }
    }

    /// Registers its metrics. Once a node.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        self.metrics.iter().try_for_each(|metrics| registry.register(Box::new(metrics.clone())))
    }

    /// `<prefix>:<kind>:<name>`.
    pub(crate) fn key(&self, kind: &str, name: impl std::fmt::Display) -> String {
        key(self.server.as_ref().map_or("", |server| server.prefix.as_str()), kind, name)
    }

    /// A permit for one command.
    pub(crate) fn admit(&self) -> Result<Turn, CacheError> {
        let server = self.server.clone().ok_or(CacheError::None)?;
        match server.breaker.admit() {
            Ok(permit) => Ok(Turn { permit, server, metrics: self.metrics.clone() }),
            Err(failure) => {
                count(self.metrics.as_ref(), "not_asked");
                let retry_after = match failure {
                    callboard_messages::Failure::Unavailable { retry_after } => retry_after,
                    _ => Duration::ZERO,
                };
                Err(CacheError::Resting { retry_after })
            }
        }
    }

    /// Runs one command or script, within the deadline.
    pub(crate) async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, CacheError> {
        self.admit()?.run(work).await
    }
}

/// A permit for one command.
pub(crate) struct Turn {
    permit: Permit,
    server: Arc<Server>,
    metrics: Option<Metrics>,
}

impl Turn {
    pub(crate) async fn run<T>(
        self,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, CacheError> {
        let Self { permit, server, metrics } = self;
        let link = server.link();
        let command = async {
            let mut connection = link.connection.clone().await?;
            work(&mut connection).await
        };
        let (outcome, verdict, said) = match tokio::time::timeout(server.timeout, command).await {
            Ok(Ok(value)) => (Ok(value), Verdict::Works, "done"),
            Ok(Err(error)) => match CacheError::from(error) {
                refused @ CacheError::Refused(_) => (Err(refused), Verdict::Works, "refused"),
                broken => {
                    server.forget(link.number);
                    server.dependency.broke();
                    (Err(broken), Verdict::Fails, "unreachable")
                }
            },
            Err(_) => {
                // An established connection that is silent may be so for ever: the next command gets a new one. A
                // pending one goes on, within its own time limit.
                if link.connection.peek().is_some() {
                    server.forget(link.number);
                }
                server.dependency.doubt();
                (Err(CacheError::Late), Verdict::Fails, "late")
            }
        };
        permit.record(verdict);
        count(metrics.as_ref(), said);
        outcome
    }
}

fn count(metrics: Option<&Metrics>, outcome: &str) {
    if let Some(metrics) = metrics {
        metrics.commands.with_label_values(&[outcome]).inc();
    }
}

impl Server {
    fn link(&self) -> Link {
        let thread = thread::current().id();
        let mut links = self.links.lock();
        if let Some(link) = links.get(&thread)
            && !matches!(link.connection.peek(), Some(Err(_)))
        {
            return link.clone();
        }
        let connection = self.connecting().shared();
        // As a task: the caller may not wait for the end.
        tokio::spawn(connection.clone().map(drop));
        let link = Link { number: self.next_link.fetch_add(1, Ordering::Relaxed), connection };
        links.insert(thread, link.clone());
        link
    }

    fn connecting(&self) -> BoxFuture<'static, Result<MultiplexedConnection, RedisError>> {
        let client = self.client.clone();
        async move { connect(&client).await }.boxed()
    }

    fn forget(&self, number: u64) {
        self.links.lock().retain(|_, link| link.number != number);
    }
}

async fn connect(client: &Client) -> Result<MultiplexedConnection, RedisError> {
    // Each command has its deadline in `Turn::run`.
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_WITHIN)).set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Writes a key and has a script read it, as a node does, on a connection of its own.
async fn look(client: &Client, key: &str) -> Result<(), RedisError> {
    let mut connection = connect(client).await?;
    redis::cmd("SET").arg(key).arg(1).arg("PX").arg(1000).exec_async(&mut connection).await?;
    let read = Script::new("return redis.call('GET', KEYS[1])");
    read.key(key).invoke_async::<Option<i64>>(&mut connection).await.map(drop)
}

/// The server as a dependency.
fn dependency(client: &Client, key: String) -> Dependency {
    let client = client.clone();
    let name = format!("Redis at {}", client.get_connection_info().addr());
    let meanwhile = "this node goes on without it until it does";
    Dependency::new(About { meanwhile, ..About::from(name) }, move || {
        let (client, key) = (client.clone(), key.clone());
        async move { look(&client, &key).await.map_err(|error| error.to_string()) }
    })
}

fn key(prefix: &str, kind: &str, name: impl std::fmt::Display) -> String {
    format!("{prefix}:{kind}:{name}")
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.server.as_ref().map(|server| server.breaker.state());
        f.debug_struct("Cache").field("state", &state).finish_non_exhaustive()
    }
}

impl Cache {
    /// The clock of lifetimes: the node's, or the system's when there is no server.
    pub(crate) fn clock(&self) -> Clock {
        self.server.as_ref().map_or_else(Clock::system, |server| server.clock.clone())
    }
}

#[cfg(test)]
impl Cache {
    /// Whether the server is known to be away.
    pub(crate) fn is_away(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.dependency.is_away())
    }
}
