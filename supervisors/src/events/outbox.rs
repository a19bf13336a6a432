//! The outbox's rows.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::CloudEvent;
use crate::db::{Database, Error, Transaction};

/// An event that waits to be published.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Pending {
    pub(super) id: Uuid,
    pub(super) aggregate: Uuid,
    #[sqlx(rename = "type")]
    pub(super) kind: String,
    pub(super) event: Json<CloudEvent>,
    pub(super) created_at: DateTime<Utc>,
}

/// How many wait, and since when the oldest of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Backlog {
    pub(super) pending: i64,
    pub(super) oldest: Option<DateTime<Utc>>,
    pub(super) unroutable: i64,
}

/// What waits.
pub(super) async fn backlog(database: &Database) -> Result<Backlog, Error> {
    database
        .query(
            "SELECT COUNT(*) AS pending, MIN(created_at) AS oldest, COUNT(trouble) AS unroutable
             FROM outbox WHERE published_at IS NULL",
        )
        .fetch_one()
        .await
}

/// The first event of each aggregate that has any, beginning after this aggregate. From one aggregate it goes to the next
/// by the index of those that wait, so that it costs as much as it finds: neither how many wait in all, nor how many of
/// one aggregate, nor what the database believes to know of either, makes it slower.
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

/// Marks events as published, all in one transaction.
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

/// Says on the row that nobody takes the event.
pub(super) async fn note_trouble(database: &Database, id: Uuid, trouble: &str) -> Result<(), Error> {
    database
        .query("UPDATE outbox SET trouble = $2 WHERE id = $1 AND published_at IS NULL")
        .bind(id)
        .bind(trouble.to_owned())
        .execute()
        .await?;
    Ok(())
}

/// Forgets up to `limit` events that were published before `before`; how many there were.
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
