//! Schedules: work at certain times, done once on however many nodes host the domain.
//!
//! The row of a schedule has the last slot that was carried out. When the next one is due, one node gets the schedule's
//! lease, does the work and writes the slot. A node that dies in between leaves the slot to another, so the work may
//! begin twice and must be idempotent; what must not happen twice is [fenced](Slot::fence). Slots that passed while no
//! node ran are made up for by one run. Expressions are in UTC.

mod housekeeping;
mod keeper;

#[cfg(test)]
mod tests;

use std::{fmt::Display, str::FromStr, sync::Arc};

use chrono::{DateTime, Utc};
use croner::Cron;
use futures_util::{FutureExt, future::LocalBoxFuture};

pub(crate) use self::housekeeping::housekeeping;
pub use self::keeper::keeper;
use crate::{
    call::bus::Bus,
    db::{Database, Transaction},
    lease::{Fence, FenceError},
    time::clock::Clock,
};

/// One run of a schedule.
#[derive(Clone)]
pub struct Slot {
    /// The scheduled time in UTC: the latest that is due.
    pub time: DateTime<Utc>,
    /// The domain's own database.
    pub database: Database,
    /// The bus to all domains.
    pub bus: Bus,
    /// The node's clock.
    pub clock: Clock,
    fence: Fence,
}

impl Slot {
    /// Refuses, within a transaction of the domain's own database, unless this run is still the only one of the
    /// schedule, and keeps another from beginning before the transaction ends. The work ends by itself when its lease
    /// is lost; only this refuses writes of a node that was paused in between.
    ///
    /// # Errors
    /// [`FenceError::Lost`] when another node has taken over: roll the transaction back.
    pub async fn fence(&self, transaction: &mut Transaction) -> Result<(), FenceError> {
        self.fence.check(transaction).await
    }
}

type Work = Arc<dyn Fn(Slot) -> LocalBoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Work, and the times at which it is done.
#[derive(Clone)]
pub struct Schedule {
    pub(crate) name: &'static str,
    cron: Result<Cron, String>,
    work: Work,
}

impl Schedule {
    /// Does `work` at the times of a cron expression with five fields, or six with seconds first, such as `17 * * * *`.
    /// A failure is logged, and the slot is retried until the next one is due.
    pub fn cron<F, Fut, E>(name: &'static str, expression: &str, work: F) -> Self
    where
        F: Fn(Slot) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + 'static,
        E: Display,
    {
        let cron = Cron::from_str(expression);
        let cron = cron.map_err(|error| format!("schedule {name}: {expression:?} is no cron expression: {error}"));
        let work = move |slot| {
            let done = work(slot);
            async move { done.await.map_err(|error| error.to_string()) }.boxed_local()
        };
        Self { name, cron, work: Arc::new(work) }
    }

    /// A sentence if its expression is invalid.
    pub(crate) fn validate(&self) -> Result<(), String> {
        self.cron.as_ref().map(drop).map_err(Clone::clone)
    }

    /// The latest time that is due at `now`.
    fn due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.cron.as_ref().ok()?.find_previous_occurrence(&now, true).ok()
    }

    /// The first time after `now`.
    fn next(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.cron.as_ref().ok()?.find_next_occurrence(&now, false).ok()
    }
}
