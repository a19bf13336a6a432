//! The events that a subscriber could not apply: kept until somebody replays or drops them.

use callboard_messages::{
    CallError, Caller, Failure, Page,
    cluster::{Bury, ClusterError, DeadLetter, DropDeadLetter, GetDeadLetter, ListDeadLetters, ReplayDeadLetter},
    page_limit,
};
use callboard_supervisors::{Handle, Outcome, db::Error};
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use crate::Cluster;

/// An error is cut to this many characters.
const ERROR_MAXIMUM: usize = 4_000;

/// Brings an event to one subscriber again.
pub trait Redeliver: Send + Sync {
    /// Resolves once the event is certainly on its way, so that the dead letter may go.
    ///
    /// The error is a sentence: it was not accepted, and the dead letter stays.
    fn redeliver(&self, domain: String, event: Value) -> BoxFuture<'static, Result<(), String>>;
}

#[derive(sqlx::FromRow)]
struct LetterRow {
    id: Uuid,
    domain: String,
    event: Json<Value>,
    error: String,
    attempts: i64,
    died_at: DateTime<Utc>,
}

impl From<LetterRow> for DeadLetter {
    fn from(row: LetterRow) -> Self {
        Self {
            id: row.id,
            domain: row.domain,
            event: row.event.0,
            error: row.error,
            attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
            died_at: row.died_at,
        }
    }
}

impl Handle<Bury> for Cluster {
    async fn handle(&self, _: &Caller, Bury { letter }: Bury) -> Outcome<Bury> {
        let buried = self
            .database
            .query(
                "INSERT INTO dead_letters (id, domain, event, error, attempts, died_at)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING",
            )
            .bind(letter.id)
            .bind(without_nul(&letter.domain))
            .bind(Json(storable(letter.event)))
            .bind(without_nul(&letter.error).chars().take(ERROR_MAXIMUM).collect::<String>())
            .bind(i64::from(letter.attempts))
            .bind(letter.died_at)
            .execute()
            .await?;
        if buried > 0 {
            self.metrics.buried();
            tracing::error!(
                letter = %letter.id, subscriber = letter.domain, error = letter.error.escape_debug().to_string(),
                attempts = letter.attempts, "an event could not be applied and is kept as a dead letter"
            );
            self.make_room().await?;
        }
        Ok(())
    }
}

impl Handle<ListDeadLetters> for Cluster {
    async fn handle(&self, _: &Caller, message: ListDeadLetters) -> Outcome<ListDeadLetters> {
        let limit = page_limit(message.limit).map_err(ClusterError::Invalid)?;
        let before = message.cursor.map_or(Uuid::max(), |cursor| cursor.0);
        let rows: Vec<LetterRow> = self
            .database
            .query(
                "SELECT id, domain, event, error, attempts, died_at FROM dead_letters
                 WHERE id < $1 AND domain = COALESCE($2, domain) ORDER BY id DESC LIMIT $3",
            )
            .bind(before)
            .bind(message.domain)
            .bind(i64::from(limit) + 1)
            .fetch_all()
            .await?;
        Ok(Page::from_rows(rows.into_iter().map(DeadLetter::from).collect(), limit, |letter| letter.id))
    }
}

impl Handle<GetDeadLetter> for Cluster {
    async fn handle(&self, _: &Caller, message: GetDeadLetter) -> Outcome<GetDeadLetter> {
        self.letter(message.dead_letter_id).await
    }
}

impl Handle<ReplayDeadLetter> for Cluster {
    /// The event goes out before the letter goes away: a crash between the two delivers it again, which the subscriber's
    /// inbox makes harmless.
    async fn handle(&self, _: &Caller, message: ReplayDeadLetter) -> Outcome<ReplayDeadLetter> {
        let letter = self.letter(message.dead_letter_id).await?;
        self.redeliver.redeliver(letter.domain, letter.event).await.map_err(ClusterError::ReplayFailed)?;
        self.remove(letter.id).await?;
        tracing::warn!(letter = %letter.id, "an operator has replayed a dead letter");
        Ok(())
    }
}

impl Handle<DropDeadLetter> for Cluster {
    async fn handle(&self, _: &Caller, message: DropDeadLetter) -> Outcome<DropDeadLetter> {
        if self.remove(message.dead_letter_id).await? == 0 {
            return Err(not_found());
        }
        tracing::warn!(letter = %message.dead_letter_id, "an operator has dropped a dead letter");
        Ok(())
    }
}

impl Cluster {
    async fn letter(&self, id: Uuid) -> Result<DeadLetter, CallError<ClusterError>> {
        let row: Option<LetterRow> = self
            .database
            .query("SELECT id, domain, event, error, attempts, died_at FROM dead_letters WHERE id = $1")
            .bind(id)
            .fetch_optional()
            .await?;
        row.map(DeadLetter::from).ok_or_else(not_found)
    }

    async fn remove(&self, id: Uuid) -> Result<u64, Failure> {
        let removed = self.database.query("DELETE FROM dead_letters WHERE id = $1").bind(id).execute().await?;
        self.count_dead_letters().await?;
        Ok(removed)
    }

    /// Shows among the metrics how many there are; how many.
    pub(crate) async fn count_dead_letters(&self) -> Result<i64, Error> {
        let count: i64 = self.database.query("SELECT COUNT(*) FROM dead_letters").fetch_scalar().await?;
        self.metrics.set_dead_letters(count);
        Ok(count)
    }

    /// Drops the oldest when there are too many: a subscriber that can apply nothing must not fill the disk.
    async fn make_room(&self) -> Result<(), Failure> {
        let most = i64::from(self.settings.dead_letters);
        if self.count_dead_letters().await? <= most {
            return Ok(());
        }
        let dropped = self
            .database
            .query("DELETE FROM dead_letters WHERE id NOT IN (SELECT id FROM dead_letters ORDER BY id DESC LIMIT $1)")
            .bind(most)
            .execute()
            .await?;
        tracing::error!(dropped, most, "there are too many dead letters: the oldest were dropped");
        self.count_dead_letters().await?;
        Ok(())
    }
}

fn not_found() -> CallError<ClusterError> {
    ClusterError::NotFound("dead letter".to_owned()).into()
}

/// PostgreSQL keeps no NUL in a text.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// PostgreSQL keeps no NUL in JSON either.
fn storable(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_nul(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(storable).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (without_nul(&name), storable(value))).collect())
        }
        other => other,
    }
}
