//! A held lease and its renewal.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::FenceError;
use crate::{
    db::{Database, Error, Transaction},
    tasks::anchored::Anchored,
    time::clock::Clock,
};

/// The right to act, for as long as the lease is renewed. Dropping it ends the renewal, so that it expires;
/// [`Lease::release`] frees it at once.
pub struct Lease {
    held: Arc<Held>,
    /// Ends the renewal when the lease is dropped.
    _renewal: DropGuard,
}

/// The fencing token of a lease, without keeping the lease. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fence(Arc<Held>);

struct Held {
    database: Database,
    clock: Clock,
    name: String,
    token: i64,
    /// When the holder must stop acting, unless the lease is renewed before.
    until: Mutex<Instant>,
    lost: CancellationToken,
}

impl Lease {
    /// `sent` is the time before the acquiring statement was sent.
    pub(super) fn keep(
        database: Database,
        clock: Clock,
        name: String,
        token: i64,
        ttl: Duration,
        sent: Instant,
    ) -> Self {
        let until = Mutex::new(sent + acts_for(ttl));
        let held = Arc::new(Held { database, clock, name, token, until, lost: CancellationToken::new() });
        let stop = CancellationToken::new();
        let (renewed, stopped) = (held.clone(), stop.clone());
        actix_rt::spawn(Anchored::new(async move {
            // Stopping also drops a renewal in flight.
            let _ = stopped.run_until_cancelled(renewed.renew_until_lost(ttl)).await;
        }));
        Self { held, _renewal: stop.drop_guard() }
    }

    /// The fencing token: higher than that of every former holder.
    #[must_use]
    pub fn token(&self) -> i64 {
        self.held.token
    }

    /// Whether its holder may still act. Ask right before acting, and [`fence`](Self::fence) what is written.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.held.lost.is_cancelled() && self.held.clock.instant() < *self.held.until.lock()
    }

    /// When the holder must stop acting, unless the lease is renewed before.
    #[cfg(test)]
    pub(super) fn until(&self) -> Instant {
        *self.held.until.lock()
    }

    /// Waits until it is lost.
    pub async fn lost(&self) {
        self.held.lost.cancelled().await;
    }

    /// Refuses, within a transaction, unless this is still the holder, and keeps the lease from being taken over before
    /// the transaction ends. The transaction must be of the database that has the lease.
    ///
    /// # Errors
    /// [`FenceError::Lost`] when another holds it: roll the transaction back.
    pub async fn fence(&self, transaction: &mut Transaction) -> Result<(), FenceError> {
        self.held.fence(transaction).await
    }

    /// The fencing token alone, for tasks that do a part of the holder's work.
    pub(crate) fn fencing(&self) -> Fence {
        Fence(self.held.clone())
    }

    /// Frees the lease for others at once. If that fails, it expires.
    pub async fn release(self) {
        let held = self.held.clone();
        drop(self);
        let released = held
            .database
            .query("UPDATE leases SET holder = NULL, beat = beat + 1 WHERE name = $1 AND token = $2")
            .bind(held.name.clone())
            .bind(held.token)
            .execute()
            .await;
        held.lost.cancel();
        if let Some(error) = released.as_ref().err().and_then(Error::outside_outage) {
            tracing::warn!(lease = held.name, %error, "releasing a lease failed; it expires");
        }
    }
}

impl Fence {
    /// As [`Lease::fence`].
    pub(crate) async fn check(&self, transaction: &mut Transaction) -> Result<(), FenceError> {
        self.0.fence(transaction).await
    }
}

impl Held {
    async fn fence(&self, transaction: &mut Transaction) -> Result<(), FenceError> {
        let updated = transaction
            .query("UPDATE leases SET beat = beat + 1 WHERE name = $1 AND token = $2 AND holder IS NOT NULL")
            .bind(self.name.clone())
            .bind(self.token)
            .execute()
            .await?;
        if updated == 1 {
            return Ok(());
        }
        self.lost.cancel();
        Err(FenceError::Lost(self.name.clone()))
    }

    async fn renew_until_lost(&self, ttl: Duration) {
        let mut pause = ttl / 4;
        loop {
            self.clock.sleep(pause).await;
            let until = *self.until.lock();
            let sent = self.clock.instant();
            if sent >= until {
                break;
            }
            pause = ttl / 4;
            match self.clock.timeout_at(until, self.renew()).await {
                Some(Ok(true)) => *self.until.lock() = sent + acts_for(ttl),
                Some(Err(error)) => {
                    if let Some(error) = error.outside_outage() {
                        tracing::warn!(lease = self.name, %error, "renewing a lease failed; retrying");
                    }
                    pause = (ttl / 20).min(until.saturating_duration_since(self.clock.instant()));
                }
                Some(Ok(false)) | None => break,
            }
        }
        self.lost.cancel();
    }

    async fn renew(&self) -> Result<bool, Error> {
        let renewed = self
            .database
            .query("UPDATE leases SET beat = beat + 1 WHERE name = $1 AND token = $2 AND holder IS NOT NULL")
            .bind(self.name.clone())
            .bind(self.token)
            .execute()
            .await?;
        Ok(renewed == 1)
    }
}

/// How long the holder acts, counted from before the lease was asked for: less than its time to live, because clocks
/// differ.
fn acts_for(ttl: Duration) -> Duration {
    ttl / 4 * 3
}
