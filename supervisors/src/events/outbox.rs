//! The outbox's rows.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::CloudEvent;
use crate::db::{Database, Error, Transaction};

/// An unpublished event.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Pending {
    pub(super) id: Uuid,
    pub(super) aggregate: Uuid,
    #[sqlx(rename = "type")]
    pub(super) kind: String,
    pub(super) event: Json<CloudEvent>,
    pub(super) created_at: DateTime<Utc>,
}

/// The number of unpublished events, and the time of the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Backlog {
    pub(super) pending: i64,
    pub(super) oldest: Option<DateTime<Utc>>,
    pub(super) unroutable: i64,
}

/// The backlog of the outbox.
pub(super) async fn backlog(database: &Database) -> Result<Backlog, Error> {
    database
        .query(
            "SELECT COUNT(*) AS pending, MIN(created_at) AS oldest, COUNT(trouble) AS unroutable
             FROM outbox WHERE published_at IS NULL",
        )
        .fetch_one()
        .await
}

/// The first unpublished event of each aggregate that has any, after this aggregate. It skips from one aggregate to the
/// next by the index of unpublished events, so that its cost is that of the rows it returns: it depends neither on the
/// backlog, nor on the backlog of one aggregate, nor on the planner's statistics.
pub(super) const FIRST_OF_EACH: &str = "SELECT o.id, o.aggregate, o.type, o.event, o.created_at
     FROM (WITH RECURSIVE waiting (aggregate, number) AS (
               SELECT (SELECT aggregate FROM outbox WHERE published_at IS NULL AND aggregate > $1
                       ORDER BY aggregate LIMIT 1), 1
               UNION ALL
               SELECT (SELECT following.aggregate FROM outbox AS following
                       WHERE following.published_at IS NULL AND following.aggregate > waiting.aggregate
                       ORDER BY following.aggregate LIMIT 1), number + 1
               FROM waiting WHERE aggregate IS NOT NULL AND number < $2
           )
           SELECT aggregate FROM waiting WHERE aggregate IS NOT NULL) AS every
     JOIN outbox AS o ON o.id = (SELECT earliest.id FROM outbox AS earliest
                                 WHERE earliest.published_at IS NULL AND earliest.aggregate = every.aggregate
                                 ORDER BY earliest.position LIMIT 1)
     ORDER BY o.aggregate";

pub(super) async fn first_of_each(database: &Database, after: Uuid, limit: i64) -> Result<Vec<Pending>, Error> {
    database.query(FIRST_OF_EACH).bind(after).bind(limit).fetch_all().await
}

/// Marks events as published, in one transaction.
pub(super) async fn mark(database: &Database, ids: &[Uuid], now: DateTime<Utc>) -> Result<(), Error> {
    let mark = async |transaction: &mut Transaction| -> Result<(), Error> {
        for id in ids {
            transaction
                .query("UPDATE outbox SET published_at = $2, trouble = NULL WHERE id = $1 AND published_at IS NULL")
                .bind(*id)
                .bind(now)
                .execute()
                .await?;
        }
        Ok(())
    };
    database.transact(mark).await
}

/// Notes on the row that the event has no subscriber.
pub(super) async fn note_trouble(database: &Database, id: Uuid, trouble: &str) -> Result<(), Error> {
    database
        .query("UPDATE outbox SET trouble = $2 WHERE id = $1 AND published_at IS NULL")
        .bind(id)
        .bind(trouble.to_owned())
        .execute()
        .await?;
    Ok(())
}

/// Removes up to `limit` events that were published before `before`. Returns how many.
pub(crate) async fn prune(database: &Database, before: DateTime<Utc>, limit: i64) -> Result<u64, Error> {
    database
        .query(
            "DELETE FROM outbox WHERE id IN
                (SELECT id FROM outbox WHERE published_at IS NOT NULL AND published_at < $1 LIMIT $2)",
        )
        .bind(before)
        .bind(limit)
        .execute()
        .await
}
