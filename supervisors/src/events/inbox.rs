//! The inbox's rows.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::db::{Database, Error, Transaction};

/// Records an event in the transaction of its effect; false when it was applied before. Of two transactions that record
/// the same one, the second waits for the first.
pub(super) async fn take(
    transaction: &mut Transaction,
    event_id: Uuid,
    kind: &'static str,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let taken = transaction
        .query("INSERT INTO inbox (event_id, type, applied_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(event_id)
        .bind(kind)
        .bind(now)
        .execute()
        .await?;
    Ok(taken == 1)
}

/// Removes up to `limit` events that were applied before `before`. Returns how many.
pub(crate) async fn prune(database: &Database, before: DateTime<Utc>, limit: i64) -> Result<u64, Error> {
    database
        .query("DELETE FROM inbox WHERE event_id IN (SELECT event_id FROM inbox WHERE applied_at < $1 LIMIT $2)")
        .bind(before)
        .bind(limit)
        .execute()
        .await
}
