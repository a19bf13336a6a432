//! Cached reads: in the process, and in Redis for all nodes.
//!
//! A value stays in the process for a short time (`remembered`) and in Redis for a longer one (`shared`), each varied
//! at random, so that values that were read together do not expire together. Concurrent readers of a key share one
//! load, so a stampede is one load per process; across processes a short lock in Redis lets one load while the others
//! look again a few times, and then load themselves rather than wait for one that died.
//!
//! [`forget`](Cached::forget) invalidates a key after its value has changed in the store. A load that began before is
//! given to its waiters and to nobody later: neither the process nor Redis keeps it, because forgetting deletes the
//! lock that storing needs. Other processes are told by the live hub ([`follow`](Cached::follow)). When that is lost,
//! or Redis was unreachable, a stale value lives no longer than the times above: choose them so that this is harmless,
//! or put into the key what changes.

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use callboard_messages::Failure;
use callboard_supervisors::{Live, LiveEvent};
use futures_util::StreamExt;
use parking_lot::Mutex;
use redis::Script;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OnceCell;

use crate::{Cache, error::CacheError};

/// How long one process may load before another does the same.
const LOCK: Duration = Duration::from_secs(2);

/// Pauses after which a process looks whether another has loaded.
const LOOKS: [Duration; 4] =
    [Duration::from_millis(10), Duration::from_millis(20), Duration::from_millis(40), Duration::from_millis(80)];

/// Most keys that are still to be forgotten in Redis before they may be read again.
const TO_FORGET_MOST: usize = 1024;

/// What is cached, and for how long.
#[derive(Debug, Clone)]
pub struct CachedSettings {
    /// Part of every key, and the label of its metrics.
    pub name: &'static str,
    /// Version of the values' form. Raise it when that changes, so that two versions of the program do not read each
    /// other's values.
    pub version: u32,
    /// Values in the process. Default: 10,000.
    pub capacity: u64,
    /// Time in the process. Default: 5 s.
    pub remembered: Duration,
    /// Time in Redis. Default: 60 s.
    pub shared: Duration,
    /// Time for which an absent value is cached, in both; zero caches no absence. Default: 2 s.
    pub absent: Duration,
}

impl CachedSettings {
    /// The defaults.
    #[must_use]
    pub const fn new(name: &'static str, version: u32) -> Self {
        Self {
            name,
            version,
            capacity: 10_000,
            remembered: Duration::from_secs(5),
            shared: Duration::from_secs(60),
            absent: Duration::from_secs(2),
        }
    }
}

/// A cache of values by key. Cheap to clone; clones share it.
pub struct Cached<K, V, E = Failure>(pub(crate) Arc<Inner<K, V, E>>);

impl<K, V, E> Clone for Cached<K, V, E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

pub(crate) struct Inner<K, V, E> {
    settings: CachedSettings,
    topic: String,
    cache: Cache,
    live: Option<Live>,
    pub(crate) process: moka::sync::Cache<K, Remembered<V>>,
    pub(crate) readings: Mutex<HashMap<K, Reading<V, E>>>,
    to_forget: Mutex<HashSet<String>>,
    /// Set when too many keys are still to be forgotten: Redis is not used until its values have expired.
    redis_is_old_until: Mutex<Option<Instant>>,
    look_up: Script,
    store: Script,
}

pub(crate) type Reading<V, E> = Arc<OnceCell<Result<Option<V>, E>>>;

#[derive(Clone)]
pub(crate) struct Remembered<V> {
    value: Option<V>,
    lives: Duration,
}

struct Lives;

impl<K, V> moka::Expiry<K, Remembered<V>> for Lives {
    fn expire_after_create(&self, _: &K, value: &Remembered<V>, _: Instant) -> Option<Duration> {
        Some(value.lives)
    }

    fn expire_after_update(&self, _: &K, value: &Remembered<V>, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(value.lives)
    }
}

/// What Redis has under a key.
enum Found<V> {
    Value(Option<V>),
    /// Nothing, and this process loads, with the token of its lock.
    Load(String),
    /// Nothing, and another process loads.
    Wait,
}

impl<K, V, E> Cached<K, V, E>
where
    K: Clone + Eq + Hash + Display + Send + Sync + 'static,
    V: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// An empty cache. With `live`, other processes are told of [`forget`](Self::forget).
    #[must_use]
    pub fn new(cache: Cache, live: Option<Live>, settings: CachedSettings) -> Self {
        let process = moka::sync::Cache::builder().max_capacity(settings.capacity).expire_after(Lives).build();
        Self(Arc::new(Inner {
            topic: format!("internal:cached:{}", settings.name),
            settings,
            cache,
            live,
            process,
            readings: Mutex::default(),
            to_forget: Mutex::default(),
            redis_is_old_until: Mutex::default(),
            look_up: Script::new(include_str!("cached_look_up.lua")),
            store: Script::new(include_str!("cached_store.lua")),
        }))
    }

    /// The value of `key`, or its absence: cached, or else loaded.
    ///
    /// # Errors
    /// Those of `load`, which all waiters get and which are never cached.
    pub async fn get(&self, key: &K, load: impl AsyncFnOnce() -> Result<Option<V>, E>) -> Result<Option<V>, E> {
        let inner = &*self.0;
        if let Some(remembered) = inner.process.get(key) {
            inner.count("process");
            return Ok(remembered.value);
        }
        let joined = Joined::new(inner, key);
        let first = AtomicBool::new(false);
        let outcome = joined
            .reading
            .get_or_init(async || {
                first.store(true, Ordering::Relaxed);
                inner.read(key, &joined.reading, load).await
            })
            .await;
        if !first.load(Ordering::Relaxed) {
            inner.count("joined");
        }
        outcome.clone()
    }

    /// Invalidates `key` after its value has changed: no reader gets what was read before.
    pub async fn forget(&self, key: &K) {
        let inner = &*self.0;
        inner.forget_everywhere(key);
        let (value, lock) = inner.keys(key);
        let forgotten = inner
            .cache
            .run(async |connection| redis::cmd("DEL").arg(&value).arg(&lock).query_async::<i64>(connection).await);
        match forgotten.await {
            Ok(_) | Err(CacheError::None) => {}
            Err(error) => {
                tracing::debug!(%error, cache = inner.settings.name, "forgetting a value in Redis failed; retrying before the next read");
                let mut to_forget = inner.to_forget.lock();
                if to_forget.len() < TO_FORGET_MOST {
                    to_forget.extend([value, lock]);
                } else {
                    to_forget.clear();
                    *inner.redis_is_old_until.lock() = Some(inner.cache.clock().instant() + inner.settings.shared * 2);
                }
            }
        }
        // Again, because a reader may have cached what Redis still had meanwhile.
        inner.forget_everywhere(key);
    }

    /// Forgets in this process what other processes have forgotten. Runs until it is dropped.
    pub async fn follow(&self)
    where
        K: std::str::FromStr,
    {
        let inner = &*self.0;
        let Some(live) = &inner.live else { return };
        loop {
            let mut events = live.subscribe(&inner.topic, None);
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        if let Some(key) = event.data.as_str().and_then(|text| text.parse().ok()) {
                            inner.forget_here(&key);
                        }
                    }
                    // Updates were lost.
                    Err(_) => inner.process.invalidate_all(),
                }
            }
            inner.process.invalidate_all();
        }
    }
}

impl<K, V, E> Inner<K, V, E>
where
    K: Clone + Eq + Hash + Display + Send + Sync + 'static,
    V: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// Reads from Redis, or from the store.
    async fn read(
        &self,
        key: &K,
        reading: &Reading<V, E>,
        load: impl AsyncFnOnce() -> Result<Option<V>, E>,
    ) -> Result<Option<V>, E> {
        let mut token = None;
        if self.cache.is_shared() {
            match self.find(key).await {
                Ok(Found::Value(value)) => {
                    self.count("redis");
                    self.remember(key, reading, &value);
                    return Ok(value);
                }
                Ok(Found::Load(mine)) => token = Some(mine),
                // The other process is slow, or gone.
                Ok(Found::Wait) => {}
                Err(error) => {
                    tracing::debug!(%error, cache = self.settings.name, "reading from Redis failed; loading from the store")
                }
            }
        }
        self.count("store");
        let loaded = load().await?;
        self.remember(key, reading, &loaded);
        if let Some(token) = token
            && let Err(error) = self.share(key, &token, &loaded).await
        {
            tracing::debug!(%error, cache = self.settings.name, "storing a value in Redis failed");
        }
        Ok(loaded)
    }

    async fn find(&self, key: &K) -> Result<Found<V>, CacheError> {
        self.forget_pending().await?;
        let mut looks = LOOKS.iter();
        loop {
            let found = self.look(key).await?;
            let (Found::Wait, Some(pause)) = (&found, looks.next()) else { return Ok(found) };
            self.cache.clock().sleep(spread(*pause)).await;
        }
    }

    async fn look(&self, key: &K) -> Result<Found<V>, CacheError> {
        let (value, lock) = self.keys(key);
        let token = uuid::Uuid::now_v7().simple().to_string();
        let (said, json): (String, Option<String>) = self
            .cache
            .run(async |connection| {
                let mut invocation = self.look_up.key(&value);
                invocation.key(&lock).arg(&token).arg(millis(LOCK)).invoke_async(connection).await
            })
            .await?;
        Ok(match (said.as_str(), json) {
            ("value", Some(json)) => match serde_json::from_str(&json) {
                Ok(value) => Found::Value(value),
                Err(error) => {
                    tracing::warn!(%error, cache = self.settings.name, "a value in Redis can't be read");
                    Found::Wait
                }
            },
            ("load", _) => Found::Load(token),
            _ => Found::Wait,
        })
    }

    async fn share(&self, key: &K, token: &str, loaded: &Option<V>) -> Result<(), CacheError> {
        let lives = if loaded.is_some() { self.settings.shared } else { self.settings.absent };
        let Ok(json) = serde_json::to_string(loaded) else {
            tracing::warn!(cache = self.settings.name, "a value can't be written as JSON");
            return Ok(());
        };
        let (value, lock) = self.keys(key);
        let stored = self.cache.run(async |connection| {
            let mut invocation = self.store.key(&value);
            invocation.key(&lock).arg(token).arg(&json).arg(millis(spread(lives)));
            invocation.invoke_async::<i64>(connection).await
        });
        stored.await.map(drop)
    }

    /// Forgets in Redis what could not be forgotten before: nothing is read from it until then.
    async fn forget_pending(&self) -> Result<(), CacheError> {
        let now = self.cache.clock().instant();
        if self.redis_is_old_until.lock().is_some_and(|until| now < until) {
            return Err(CacheError::Late);
        }
        let keys: Vec<String> = self.to_forget.lock().iter().cloned().collect();
        if keys.is_empty() {
            return Ok(());
        }
        self.cache.run(async |connection| redis::cmd("DEL").arg(&keys).query_async::<i64>(connection).await).await?;
        self.to_forget.lock().retain(|key| !keys.contains(key));
        Ok(())
    }

    /// Caches a value in the process, unless it was forgotten while it was read.
    fn remember(&self, key: &K, reading: &Reading<V, E>, value: &Option<V>) {
        let lives = if value.is_some() { self.settings.remembered } else { self.settings.absent };
        let readings = self.readings.lock();
        if !lives.is_zero() && readings.get(key).is_some_and(|current| Arc::ptr_eq(current, reading)) {
            let remembered = Remembered { value: value.clone(), lives: spread(lives) };
            self.process.insert(key.clone(), remembered);
        }
    }

    /// Forgets in every process, but not in Redis.
    fn forget_everywhere(&self, key: &K) {
        self.forget_here(key);
        if let Some(live) = &self.live {
            live.publish(&self.topic, LiveEvent::new("forget", key.to_string().into()));
        }
    }

    fn forget_here(&self, key: &K) {
        let mut readings = self.readings.lock();
        readings.remove(key);
        self.process.invalidate(key);
    }

    /// The keys of the value and of its lock; in one slot of a Redis cluster.
    pub(crate) fn keys(&self, key: &K) -> (String, String) {
        let CachedSettings { name, version, .. } = &self.settings;
        let value = self.cache.key("cached", format_args!("{name}:{version}:{{{key}}}"));
        let lock = format!("{value}:lock");
        (value, lock)
    }

    fn count(&self, from: &str) {
        if let Some(metrics) = &self.cache.metrics {
            metrics.reads.with_label_values(&[self.settings.name, from]).inc();
        }
    }
}

/// A waiter of a load; the last one cleans up.
struct Joined<'a, K: Eq + Hash, V, E> {
    inner: &'a Inner<K, V, E>,
    key: &'a K,
    reading: Reading<V, E>,
}

impl<'a, K: Clone + Eq + Hash, V, E> Joined<'a, K, V, E> {
    fn new(inner: &'a Inner<K, V, E>, key: &'a K) -> Self {
        let reading = inner.readings.lock().entry(key.clone()).or_default().clone();
        Self { inner, key, reading }
    }
}

impl<K: Eq + Hash, V, E> Drop for Joined<'_, K, V, E> {
    fn drop(&mut self) {
        let mut readings = self.inner.readings.lock();
        let is_current = readings.get(self.key).is_some_and(|current| Arc::ptr_eq(current, &self.reading));
        // After a load, later readers load again or find the value cached. Without one, the last waiter removes it.
        if is_current && (self.reading.initialized() || Arc::strong_count(&self.reading) <= 2) {
            readings.remove(self.key);
        }
    }
}

/// Varied by up to a tenth, up or down.
fn spread(duration: Duration) -> Duration {
    duration.mul_f64(0.9 + rand::random::<f64>() * 0.2)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
