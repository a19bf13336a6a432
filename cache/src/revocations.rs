//! Distribution of the count of revocations to all nodes.
//!
//! The count is in auth's database. Redis has a copy that expires half a second after the count was read there, by the
//! server's own clock, whoever read it and however late the copy arrived: a copy that could not be corrected (Redis was
//! away when a credential was revoked) is therefore soon gone. The first node that finds no copy asks auth and stores
//! one. Without Redis every node asks auth itself. A nudge on the live hub is faster than all that, and may be lost.

use std::time::{Duration, Instant};

use callboard_messages::{
    Caller,
    auth::{GetRevocationCount, RevocationCount},
};
use callboard_platform::revocations::Revocations;
use callboard_supervisors::{Bus, ChildContext, ChildSpec, Clock, Exit, Live, LiveEvent};
use futures_util::{FutureExt, StreamExt};
use redis::Script;

use crate::{Cache, error::CacheError};

/// Topic of the nudges.
const TOPIC: &str = "internal:revocations";

/// Interval of reading the count.
const EVERY: Duration = Duration::from_millis(250);

/// Lifetime of a copy after it was read from the database. Together with [`EVERY`] and the time of the reads it must
/// stay below [`TRUSTED_FOR`](callboard_platform::revocations::TRUSTED_FOR), or nodes ask about every token.
const COPY_LIVES: Duration = Duration::from_millis(500);

/// Time limit of auth's answer.
const ASK_WITHIN: Duration = Duration::from_millis(900);

/// The child that keeps `revocations` current. For each node that has [`Revocations::among_several`]; a node that is
/// alone needs none.
#[must_use]
pub fn watch(revocations: Revocations, cache: Cache) -> ChildSpec {
    ChildSpec::new("revocations", move |context: ChildContext| {
        let ChildContext { bus, live, clock, .. } = context.clone();
        let watcher = Watcher::new(revocations.clone(), cache.clone(), bus, live, clock);
        async move {
            futures_util::select! {
                () = watcher.run().fuse() => {}
                () = context.stopping().fuse() => {}
            }
            Exit::Shutdown
        }
    })
}

pub(crate) struct Watcher {
    revocations: Revocations,
    cache: Cache,
    key: String,
    script: Script,
    bus: Bus,
    live: Live,
    clock: Clock,
}

impl Watcher {
    pub(crate) fn new(revocations: Revocations, cache: Cache, bus: Bus, live: Live, clock: Clock) -> Self {
        let (key, script) = (cache.key("revocations", "count"), Script::new(include_str!("revocations.lua")));
        Self { revocations, cache, key, script, bus, live, clock }
    }

    pub(crate) async fn run(&self) {
        futures_util::join!(self.look(), self.listen(), self.tell());
    }

    /// Reads the count at intervals, shorter ones while it is not current.
    async fn look(&self) {
        loop {
            let began = self.clock.instant();
            if let Err(why) = self.look_once().await {
                tracing::debug!(why, "reading the count of revocations failed");
            }
            let pause = if self.revocations.is_current() { EVERY } else { EVERY / 5 };
            self.clock.sleep_until(began + pause).await;
            // A read that took longer than the pause must not become a loop without one.
            tokio::task::yield_now().await;
        }
    }

    async fn look_once(&self) -> Result<(), String> {
        let asked = self.clock.instant();
        let server_time = match self.read().await {
            Ok((_, Some(count), left)) => {
                let age = COPY_LIVES.saturating_sub(Duration::from_millis(left));
                self.revocations.confirm(count, asked.checked_sub(age).unwrap_or(asked));
                return Ok(());
            }
            Ok((server_time, None, _)) => Some(server_time),
            Err(_) => None,
        };
        let asked = self.clock.instant();
        let count = self.ask_auth(asked).await?;
        self.revocations.confirm(count, asked);
        if let Some(server_time) = server_time {
            let too_old = server_time + u64::try_from(COPY_LIVES.as_millis()).unwrap_or(0);
            // On failure the copy expires, and the next read asks auth again.
            if let Err(error) = self.write(&["confirm", &count.to_string(), &too_old.to_string()]).await {
                tracing::debug!(%error, "storing the count of revocations in Redis failed");
            }
        }
        Ok(())
    }

    async fn ask_auth(&self, asked: Instant) -> Result<u64, String> {
        let caller = Caller::system().with_deadline(asked + ASK_WITHIN);
        let RevocationCount { count } =
            self.bus.ask(&caller, GetRevocationCount {}).await.map_err(|error| error.to_string())?;
        Ok(count)
    }

    /// Listens for nudges of other nodes.
    async fn listen(&self) {
        loop {
            let mut nudges = self.live.subscribe(TOPIC, None);
            while let Some(nudge) = nudges.next().await {
                if let Ok(event) = nudge
                    && let Some(count) = event.data.as_u64()
                {
                    self.revocations.nudge(count);
                }
            }
        }
    }

    /// Publishes revocations of this node.
    async fn tell(&self) {
        let mut made = self.revocations.made();
        while made.changed().await.is_ok() {
            let count = *made.borrow_and_update();
            self.live.publish(TOPIC, LiveEvent::new("revoked", count.into()));
            if let Err(error) = self.write(&["raise", &count.to_string()]).await
                && self.cache.is_shared()
            {
                tracing::debug!(%error, "writing a revocation to Redis failed; its copy of the count expires");
            }
        }
    }

    pub(crate) async fn read(&self) -> Result<(u64, Option<u64>, u64), CacheError> {
        let (time, count, left) = self
            .cache
            .run(async |connection| {
                self.script.key(&self.key).arg("read").invoke_async::<(u64, Option<u64>, i64)>(connection).await
            })
            .await?;
        Ok((time, count, u64::try_from(left).unwrap_or(0)))
    }

    pub(crate) async fn write(&self, arguments: &[&str]) -> Result<(), CacheError> {
        let outcome = self
            .cache
            .run(async |connection| self.script.key(&self.key).arg(arguments).invoke_async::<i64>(connection).await);
        outcome.await.map(drop)
    }
}
