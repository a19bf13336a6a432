//! Retention of the runtime's rows in a domain's database.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Schedule, Slot};
use crate::{
    db::{Database, Error},
    domain::once,
    events, saga,
};

/// Published events.
const PUBLISHED: TimeDelta = TimeDelta::days(1);
/// Sagas that are done or compensated.
const ENDED: TimeDelta = TimeDelta::days(7);
/// Replies to requests: longer than an idempotency key is kept.
const ANSWERED: TimeDelta = TimeDelta::hours(36);
/// Rows removed by one statement, so that none holds the database for long.
const AT_ONCE: i64 = 1_000;

/// Prunes old rows, every hour.
pub(crate) fn housekeeping() -> Schedule {
    Schedule::cron("housekeeping", "17 * * * *", |slot: Slot| async move {
        let now = slot.clock.now();
        forget(&slot.database, now).await
    })
}

pub(super) async fn forget(database: &Database, now: DateTime<Utc>) -> Result<(), Error> {
    while events::prune_outbox(database, now - PUBLISHED, AT_ONCE).await? > 0 {}
    while events::prune_inbox(database, now - events::REMEMBERED, AT_ONCE).await? > 0 {}
    while saga::prune(database, now - ENDED, AT_ONCE).await? > 0 {}
    while once::prune(database, now - ANSWERED, AT_ONCE).await? > 0 {}
    Ok(())
}
