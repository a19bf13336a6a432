//! Dead letters: events that a subscriber could not apply, kept until an operator replays or drops them.

use callboard_messages::{
    CallError, Caller, CloudEvent, Cursor, Failure, Page,
    cluster::{Bury, ClusterError, DeadLetter, DropDeadLetter, GetDeadLetter, ListDeadLetters, ReplayDeadLetter},
};
use callboard_supervisors::{Handle, Outcome, db::Error};
use serde_json::{Value, json};
use sqlx::types::Json;
use uuid::Uuid;

use crate::Cluster;

/// Longest event that a list shows: a page has many.
const LISTED_MAXIMUM: i64 = 4_096;
/// Characters kept of an error.
const ERROR_MAXIMUM: usize = 4_000;
/// Characters kept of a domain's name: none is longer, and an index holds no text of any length.
const DOMAIN_MAXIMUM: usize = 64;

/// A letter, and how often it was buried.
#[derive(sqlx::FromRow)]
struct LetterRow {
    #[sqlx(flatten)]
    letter: DeadLetter,
    burials: i64,
}

/// A letter in a list, whose event is null if it is too long.
#[derive(sqlx::FromRow)]
struct ListedRow {
    #[sqlx(flatten)]
    letter: DeadLetter,
    is_long: bool,
    event_id: Option<String>,
    event_type: Option<String>,
}

impl From<ListedRow> for DeadLetter {
    fn from(ListedRow { letter, is_long, event_id, event_type }: ListedRow) -> Self {
        if is_long { Self { event: json!({ "id": event_id, "type": event_type }), ..letter } } else { letter }
    }
}

impl Handle<Bury> for Cluster {
    async fn handle(&self, _: &Caller, Bury { letter }: Bury) -> Outcome<Bury> {
        let is_event = letter.event.is_object();
        let burials: i64 = self
            .database
            .query(
                "INSERT INTO dead_letters (id, burial, burials, domain, event, error, attempts, died_at, is_event)
                 VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (burial) DO UPDATE SET burials = dead_letters.burials + 1, error = excluded.error,
                    attempts = excluded.attempts, died_at = excluded.died_at
                 RETURNING burials",
            )
            .bind(Uuid::now_v7())
            .bind(letter.id)
            .bind(short(&letter.domain, DOMAIN_MAXIMUM))
            .bind(Json(storable(letter.event)))
            .bind(short(&letter.error, ERROR_MAXIMUM))
            .bind(i64::from(letter.attempts))
            .bind(letter.died_at)
            .bind(is_event)
            .fetch_scalar()
            .await?;
        if burials == 1 {
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
        let rows: Vec<ListedRow> = self
            .database
            .query(
                "SELECT id, domain, CASE WHEN LENGTH(CAST(event AS TEXT)) <= $4 THEN event ELSE 'null' END AS event,
                    LENGTH(CAST(event AS TEXT)) > $4 AS is_long,
                    event ->> 'id' AS event_id, event ->> 'type' AS event_type, error, attempts, died_at
                 FROM dead_letters WHERE id < $1 AND domain = COALESCE($2, domain) ORDER BY id DESC LIMIT $3",
            )
            .bind(Cursor::below(message.cursor))
            .bind(message.domain)
            .bind(message.limit.rows())
            .bind(LISTED_MAXIMUM)
            .fetch_all()
            .await?;
        Ok(Page::of(rows.into_iter().map(DeadLetter::from).collect(), message.limit, |letter| letter.id))
    }
}

impl Handle<GetDeadLetter> for Cluster {
    async fn handle(&self, _: &Caller, message: GetDeadLetter) -> Outcome<GetDeadLetter> {
        Ok(self.letter(message.dead_letter_id).await?.letter)
    }
}

impl Handle<ReplayDeadLetter> for Cluster {
    /// The event is published before the letter is deleted: a crash between the two delivers it again, and the
    /// subscriber's inbox drops it. A letter that was buried again meanwhile stays.
    async fn handle(&self, _: &Caller, message: ReplayDeadLetter) -> Outcome<ReplayDeadLetter> {
        let LetterRow { letter, burials } = self.letter(message.dead_letter_id).await?;
        let event: CloudEvent = serde_json::from_value(letter.event)
            .map_err(|error| ClusterError::ReplayFailed(format!("it is no event: {error}")))?;
        let sent = self.events.redeliver(&letter.domain, event).await;
        sent.map_err(|error| ClusterError::ReplayFailed(error.to_string()))?;
        tracing::warn!(letter = %letter.id, "an operator has replayed a dead letter");
        if self.remove(letter.id, burials).await? == 0
            && let Some(again) = self.find(letter.id).await?
        {
            return Err(ClusterError::ReplayFailed(again.letter.error).into());
        }
        Ok(())
    }
}

impl Handle<DropDeadLetter> for Cluster {
    async fn handle(&self, _: &Caller, message: DropDeadLetter) -> Outcome<DropDeadLetter> {
        if self.remove(message.dead_letter_id, i64::MAX).await? == 0 {
            return Err(ClusterError::NotFound("dead letter".to_owned()).into());
        }
        tracing::warn!(letter = %message.dead_letter_id, "an operator has dropped a dead letter");
        Ok(())
    }
}

impl Cluster {
    async fn find(&self, id: Uuid) -> Result<Option<LetterRow>, Error> {
        self.database
            .query("SELECT id, domain, event, error, attempts, died_at, burials FROM dead_letters WHERE id = $1")
            .bind(id)
            .fetch_optional()
            .await
    }

    async fn letter(&self, id: Uuid) -> Result<LetterRow, CallError<ClusterError>> {
        self.find(id).await?.ok_or_else(|| ClusterError::NotFound("dead letter".to_owned()).into())
    }

    /// Deletes a letter with at most this many burials. Returns how many were deleted.
    async fn remove(&self, id: Uuid, burials: i64) -> Result<u64, Failure> {
        let removed = self
            .database
            .query("DELETE FROM dead_letters WHERE id = $1 AND burials <= $2")
            .bind(id)
            .bind(burials)
            .execute()
            .await?;
        self.count_dead_letters().await?;
        Ok(removed)
    }

    /// Updates the gauge of dead letters. Returns their number.
    pub(crate) async fn count_dead_letters(&self) -> Result<i64, Error> {
        let count: i64 = self.database.query("SELECT COUNT(*) FROM dead_letters").fetch_scalar().await?;
        self.metrics.set_dead_letters(count);
        Ok(count)
    }

    /// Drops the oldest when there are too many: a subscriber that can apply nothing must not fill the disk. Letters
    /// that were no events go first, or a client of the broker could have every event dropped.
    async fn make_room(&self) -> Result<(), Failure> {
        let most = i64::from(self.settings.dead_letters);
        if self.count_dead_letters().await? <= most {
            return Ok(());
        }
        let dropped = self
            .database
            .query(
                "DELETE FROM dead_letters
                 WHERE id NOT IN (SELECT id FROM dead_letters ORDER BY is_event DESC, id DESC LIMIT $1)",
            )
            .bind(most)
            .execute()
            .await?;
        tracing::error!(dropped, most, "there are too many dead letters: the oldest were dropped");
        self.count_dead_letters().await?;
        Ok(())
    }
}

/// The first characters of a text, as the store keeps them.
fn short(text: &str, most: usize) -> String {
    without_nul(text).chars().take(most).collect()
}

/// A text for PostgreSQL, which stores no NUL.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// JSON for PostgreSQL, which stores no NUL there either.
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
