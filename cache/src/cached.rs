//! Reads that are remembered: in the process, and in Redis for all nodes.
//!
//! What was read stays in the process for a short time (`remembered`) and in Redis for a longer one (`shared`), each
//! spread at random, so that what was read together is not forgotten together. Who asks for what is being read waits
//! for that reading, so a stampede is one load in the process; across processes a short lock in Redis lets one load
//! while the others look again a few times, and then load themselves rather than wait for one that died.
//!
//! [`forget`](Cached::forget) is for whoever changed the truth. A reading that began before it is given to those who
//! wait for it and to nobody later: neither the process nor Redis keeps it, because forgetting takes the lock away that
//! storing needs. Other processes hear of it on the live hub ([`follow`](Cached::follow)). When that is lost, or Redis
//! could not be reached to forget, an old value lives no longer than the times above: choose them so that this may be,
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

/// How often, and after which pauses, a process looks whether another has loaded.
const LOOKS: [Duration; 4] =
    [Duration::from_millis(10), Duration::from_millis(20), Duration::from_millis(40), Duration::from_millis(80)];

/// What could not be forgotten in Redis and must be, before it is read again.
const UNFORGOTTEN: usize = 1024;

/// What is remembered, and for how long.
#[derive(Debug, Clone)]
pub struct CachedSettings {
    /// Part of every key, and the label of its metrics.
    pub name: &'static str,
    /// Of the form of the values. Raise it when that changes: two versions of the program then read what each has
    /// written itself.
    pub version: u32,
    /// Values remembered in the process. 10,000.
    pub capacity: u64,
    /// In the process. 5 s.
    pub remembered: Duration,
    /// In Redis. 60 s.
    pub shared: Duration,
    /// How long it is remembered, in both, that there is nothing; zero remembers no absence. 2 s.
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

/// Values by key, each read once. Cheap to clone; clones remember the same.
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
    unforgotten: Mutex<HashSet<String>>,
    /// Too many to keep: Redis is left alone until its values have ended.
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

/// What Redis says of a key.
enum Found<V> {
    Value(Option<V>),
    /// Nothing, and this process is the one that loads. With the token of its lock.
    Load(String),
    /// Nothing yet: another process loads.
    Wait,
}

impl<K, V, E> Cached<K, V, E>
where
    K: Clone + Eq + Hash + Display + Send + Sync + 'static,
    V: Clone + Serialize + DeserializeOwned + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// Nothing is remembered yet. With `live`, [`forget`](Self::forget) is told to the other processes.
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
            unforgotten: Mutex::default(),
            redis_is_old_until: Mutex::default(),
            look_up: Script::new(include_str!("cached_look_up.lua")),
            store: Script::new(include_str!("cached_store.lua")),
        }))
    }

    /// The value of `key`, or that there is none: remembered, or else loaded.
    ///
    /// # Errors
    /// Those of `load`, which are told to everybody who waits for it and never remembered.
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

    /// The truth of `key` has changed: nobody is given what was read before.
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
                tracing::debug!(%error, cache = inner.settings.name, "Redis could not be told to forget; it will be");
                let mut unforgotten = inner.unforgotten.lock();
                if unforgotten.len() < UNFORGOTTEN {
                    unforgotten.extend([value, lock]);
                } else {
                    unforgotten.clear();
                    *inner.redis_is_old_until.lock() = Some(inner.cache.clock().instant() + inner.settings.shared * 2);
                }
            }
        }
        // Once more, because whoever asked meanwhile may have got what Redis still had.
        inner.forget_everywhere(key);
    }

    /// Forgets in this process what others were told to. Runs until it is dropped.
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
                    // Nobody knows what was missed.
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
    /// From Redis, or from the store.
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
                // The other one is slow, or gone.
                Ok(Found::Wait) => {}
                Err(error) => tracing::debug!(%error, cache = self.settings.name, "read without Redis"),
            }
        }
        self.count("store");
        let loaded = load().await?;
        self.remember(key, reading, &loaded);
        if let Some(token) = token
            && let Err(error) = self.share(key, &token, &loaded).await
        {
            tracing::debug!(%error, cache = self.settings.name, "what was read could not be shared");
        }
        Ok(loaded)
    }

    async fn find(&self, key: &K) -> Result<Found<V>, CacheError> {
        self.forget_what_was_not().await?;
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

    /// Redis is not read before it has forgotten what it should have.
    async fn forget_what_was_not(&self) -> Result<(), CacheError> {
        let now = self.cache.clock().instant();
        if self.redis_is_old_until.lock().is_some_and(|until| now < until) {
            return Err(CacheError::Late);
        }
        let keys: Vec<String> = self.unforgotten.lock().iter().cloned().collect();
        if keys.is_empty() {
            return Ok(());
        }
        self.cache.run(async |connection| redis::cmd("DEL").arg(&keys).query_async::<i64>(connection).await).await?;
        self.unforgotten.lock().retain(|key| !keys.contains(key));
        Ok(())
    }

    /// Unless the truth changed while it was read.
    fn remember(&self, key: &K, reading: &Reading<V, E>, value: &Option<V>) {
        let lives = if value.is_some() { self.settings.remembered } else { self.settings.absent };
        let readings = self.readings.lock();
        if !lives.is_zero() && readings.get(key).is_some_and(|current| Arc::ptr_eq(current, reading)) {
            let remembered = Remembered { value: value.clone(), lives: spread(lives) };
            self.process.insert(key.clone(), remembered);
        }
    }

    /// In every process; not in Redis.
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

    /// Of the value, and of its lock; in one slot of a Redis cluster.
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

/// One who waits for a reading; the last one clears up.
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
        // Read: whoever comes now reads anew, or finds it remembered. Not read, and the last to wait: nobody will.
        if is_current && (self.reading.initialized() || Arc::strong_count(&self.reading) <= 2) {
            readings.remove(self.key);
        }
    }
}

/// A tenth up or down.
fn spread(duration: Duration) -> Duration {
    duration.mul_f64(0.9 + rand::random::<f64>() * 0.2)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
