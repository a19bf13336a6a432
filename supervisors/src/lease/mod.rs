//! Leases: one holder at a time, decided by the domain's own database.
//!
//! No clock is compared with another. The holder raises its **beat** at each renewal; a contender takes a lease over
//! only when it has itself seen the same token and beat for the lease's whole time to live, on its own monotonic clock,
//! and does so by a conditional update that raises the **token**. The holder counts from before its renewal was sent
//! and stops acting after three quarters of the time, so that two can't act at once as long as their clocks run at
//! about the same speed. A process may be paused between the check and the act: [`Lease::fence`] makes the database
//! refuse, within the transaction of the act, any token but the newest.

mod keeper;
mod sighting;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use callboard_messages::{CallError, Failure};
use uuid::Uuid;

pub use self::keeper::Lease;
pub(crate) use self::{keeper::Fence, sighting::Sightings};
use crate::{
    db::{Database, Error},
    time::clock::Clock,
};

/// Default time to live of a lease without renewal.
pub const TTL: Duration = Duration::from_secs(5);

/// Why a holder was refused.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// Another has taken it over.
    #[error("the lease {0} was lost to another")]
    Lost(String),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] Error),
}

impl FenceError {
    /// The error, for a log, unless it is by an outage that is logged once: [`Error::outside_outage`].
    pub(crate) fn outside_outage(&self) -> Option<&Self> {
        match self {
            Self::Database(error) => error.outside_outage().map(|_| self),
            Self::Lost(_) => Some(self),
        }
    }
}

impl From<FenceError> for Failure {
    fn from(error: FenceError) -> Self {
        match error {
            // Nothing was written, and the new holder does it.
            FenceError::Lost(_) => Self::Unavailable { retry_after: Duration::from_secs(1) },
            FenceError::Database(error) => error.into(),
        }
    }
}

impl<E> From<FenceError> for CallError<E> {
    fn from(error: FenceError) -> Self {
        Self::Failed(error.into())
    }
}

/// The leases in one domain's database, as one contender sees them. Cheap to clone; clones share what they have seen.
#[derive(Clone)]
pub struct Leases {
    database: Database,
    clock: Clock,
    holder: Uuid,
    sightings: Arc<Sightings<String>>,
}

#[derive(sqlx::FromRow)]
struct Row {
    holder: Option<Uuid>,
    token: i64,
    beat: i64,
    ttl: i64,
}

impl Leases {
    /// For a contender that others see as `holder`, such as its node's id.
    #[must_use]
    pub fn new(database: Database, clock: Clock, holder: Uuid) -> Self {
        Self { database, sightings: Arc::new(Sightings::new(clock.clone())), clock, holder }
    }

    /// Takes the lease if it is free, or if its holder has shown no sign of life for its whole time to live. `None`
    /// means that another holds it, or was faster: ask again later. Needs an actix arbiter on this thread, on which it
    /// is renewed every quarter of `ttl`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn acquire(&self, name: &str, ttl: Duration) -> Result<Option<Lease>, Error> {
        let row: Option<Row> = self
            .database
            .query("SELECT holder, token, beat, ttl FROM leases WHERE name = $1")
            .bind(name.to_owned())
            .fetch_optional()
            .await?;
        // Before the acquiring statement is sent.
        let sent = self.clock.instant();
        let Some(row) = row else { return self.create(name, ttl, sent).await };
        let time_to_live = Duration::from_millis(u64::try_from(row.ttl).unwrap_or(u64::MAX)).max(ttl);
        if row.holder.is_some() && !self.sightings.has_lapsed(name.to_owned(), row.token, row.beat, time_to_live) {
            return Ok(None);
        }
        let token = row.token + 1;
        let taken = self
            .database
            .query(
                "UPDATE leases SET holder = $2, token = $3, beat = 0, ttl = $4
                 WHERE name = $1 AND token = $5 AND beat = $6",
            )
            .bind(name.to_owned())
            .bind(self.holder)
            .bind(token)
            .bind(millis(ttl))
            .bind(row.token)
            .bind(row.beat)
            .execute()
            .await?;
        if taken == 0 {
            return Ok(None);
        }
        self.sightings.forget(name);
        Ok(Some(self.held(name, token, ttl, sent)))
    }

    async fn create(&self, name: &str, ttl: Duration, sent: std::time::Instant) -> Result<Option<Lease>, Error> {
        let created = self
            .database
            .query(
                "INSERT INTO leases (name, holder, token, beat, ttl) VALUES ($1, $2, 1, 0, $3) ON CONFLICT DO NOTHING",
            )
            .bind(name.to_owned())
            .bind(self.holder)
            .bind(millis(ttl))
            .execute()
            .await?;
        Ok((created == 1).then(|| self.held(name, 1, ttl, sent)))
    }

    fn held(&self, name: &str, token: i64, ttl: Duration, sent: std::time::Instant) -> Lease {
        Lease::keep(self.database.clone(), self.clock.clone(), name.to_owned(), token, ttl, sent)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
