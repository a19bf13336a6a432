//! The log's rows.

use callboard_messages::{Caller, OrganizationId, SagaStatus, UserId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use super::plan::Plan;
use crate::db::{Database, Error, Transaction};

/// Who began a saga, as far as its steps need to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Beginner {
    correlation_id: Uuid,
    #[serde(default)]
    organization_id: Option<OrganizationId>,
    #[serde(default)]
    user_id: Option<UserId>,
}

impl Beginner {
    pub(super) const fn of(caller: &Caller) -> Self {
        Self { correlation_id: caller.correlation_id, organization_id: caller.organization_id, user_id: caller.user_id }
    }

    /// The platform itself, on this one's behalf.
    pub(super) fn caller(&self) -> Caller {
        Caller {
            correlation_id: self.correlation_id,
            organization_id: self.organization_id,
            user_id: self.user_id,
            ..Caller::system()
        }
    }

    pub(super) const fn correlation_id(&self) -> Uuid {
        self.correlation_id
    }
}

/// How far a saga has come.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) status: SagaStatus,
    pub(super) state: Value,
    /// How many steps have been done, and not undone.
    pub(super) position: usize,
    /// Whether the step at `position` may have been carried out.
    pub(super) in_doubt: bool,
    /// Why it is being undone.
    pub(super) refusal: Option<Value>,
    pub(super) trouble: Option<String>,
}

impl Progress {
    pub(super) const fn beginning(state: Value) -> Self {
        Self { status: SagaStatus::Running, state, position: 0, in_doubt: false, refusal: None, trouble: None }
    }
}

#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) name: String,
    state: Json<Value>,
    status: String,
    position: i64,
    in_doubt: bool,
    refusal: Option<Json<Value>>,
    trouble: Option<String>,
    /// As whoever drives it knows them.
    steps: Option<Json<Vec<String>>>,
    pub(super) caller: Json<Beginner>,
    pub(super) holder: Option<Uuid>,
    pub(super) token: i64,
    pub(super) beat: i64,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
}

impl Row {
    /// An unknown word is of a newer version; what it means cannot be guessed, so it is left alone like a stuck one.
    pub(super) fn status(&self) -> SagaStatus {
        SagaStatus::ALL.into_iter().find(|status| status.as_str() == self.status).unwrap_or(SagaStatus::Stuck)
    }

    /// Whether this plan is that of the saga, or a newer one that says the same up to where the saga stands.
    pub(super) fn fits(&self, plan: &Plan) -> bool {
        let Some(Json(steps)) = &self.steps else { return true };
        let (ours, reached) = (plan.step_names(), self.progress().position.saturating_add(1));
        let same_so_far = steps.iter().take(reached).eq(ours.iter().take(reached.min(steps.len())));
        same_so_far && steps.iter().all(|step| ours.contains(&step.as_str()))
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            status: self.status(),
            state: self.state.0.clone(),
            position: usize::try_from(self.position).unwrap_or_default(),
            in_doubt: self.in_doubt,
            refusal: self.refusal.clone().map(|Json(refusal)| refusal),
            trouble: self.trouble.clone(),
        }
    }
}

/// A saga whose log this node holds, with its fencing token.
pub(super) struct HeldSaga {
    pub(super) id: Uuid,
    pub(super) token: i64,
}

pub(super) async fn insert(
    transaction: &mut Transaction,
    id: Uuid,
    plan: &Plan,
    caller: &Beginner,
    holder: Uuid,
    progress: &Progress,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let holder = (!progress.status.has_ended()).then_some(holder);
    transaction
        .query(
            "INSERT INTO sagas
                (id, name, state, status, position, in_doubt, caller, holder, token, beat, created_at, updated_at,
                 steps)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, 0, $9, $9, $10)",
        )
        .bind(id)
        .bind(plan.name)
        .bind(Json(progress.state.clone()))
        .bind(progress.status.as_str())
        .bind(position(progress))
        .bind(progress.in_doubt)
        .bind(Json(caller.clone()))
        .bind(holder)
        .bind(now)
        .bind(Json(plan.step_names()))
        .execute()
        .await?;
    Ok(())
}

/// Writes down how far the saga has come; false when another drives it now, it has ended, or it does not stand where it
/// was `read`: what is written here is not made twice.
pub(super) async fn write(
    transaction: &mut Transaction,
    held: &HeldSaga,
    read: &Progress,
    progress: &Progress,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let keeps = matches!(progress.status, SagaStatus::Running | SagaStatus::Undoing);
    let written = transaction
        .query(
            "UPDATE sagas
             SET state = $3, status = $4, position = $5, in_doubt = $6, refusal = $7, trouble = $8,
                 holder = CASE WHEN $9 THEN holder END, beat = beat + 1, updated_at = $10
             WHERE id = $1 AND token = $2 AND position = $11 AND status IN ('running', 'undoing')",
        )
        .bind(held.id)
        .bind(held.token)
        .bind(Json(progress.state.clone()))
        .bind(progress.status.as_str())
        .bind(position(progress))
        .bind(progress.in_doubt)
        .bind(progress.refusal.clone().map(Json))
        .bind(progress.trouble.clone())
        .bind(keeps)
        .bind(now)
        .bind(position(read))
        .execute()
        .await?;
    Ok(written == 1)
}

fn position(progress: &Progress) -> i64 {
    i64::try_from(progress.position).unwrap_or(i64::MAX)
}

/// Shows that the saga is driven; false when another drives it now. Notes what went wrong last.
pub(super) async fn beat(database: &Database, held: &HeldSaga, trouble: Option<&str>) -> Result<bool, Error> {
    let beaten = database
        .query(
            "UPDATE sagas SET beat = beat + 1, trouble = COALESCE($3, trouble)
             WHERE id = $1 AND token = $2 AND status IN ('running', 'undoing')",
        )
        .bind(held.id)
        .bind(held.token)
        .bind(trouble.map(str::to_owned))
        .execute()
        .await?;
    Ok(beaten == 1)
}

/// Lets another take the saga at once.
pub(super) async fn release(database: &Database, held: &HeldSaga) -> Result<(), Error> {
    database
        .query("UPDATE sagas SET holder = NULL, beat = beat + 1 WHERE id = $1 AND token = $2")
        .bind(held.id)
        .bind(held.token)
        .execute()
        .await?;
    Ok(())
}

/// Takes the saga over from a driver that has shown no sign of life, or from nobody.
pub(super) async fn take_over(
    database: &Database,
    row: &Row,
    plan: &Plan,
    holder: Uuid,
) -> Result<Option<HeldSaga>, Error> {
    let token = row.token + 1;
    let taken = database
        .query(
            "UPDATE sagas SET holder = $2, token = $3, beat = 0, steps = $6
             WHERE id = $1 AND token = $4 AND beat = $5 AND status IN ('running', 'undoing')",
        )
        .bind(row.id)
        .bind(holder)
        .bind(token)
        .bind(row.token)
        .bind(row.beat)
        .bind(Json(plan.step_names()))
        .execute()
        .await?;
    Ok((taken == 1).then_some(HeldSaga { id: row.id, token }))
}

pub(super) async fn get(database: &Database, id: Uuid) -> Result<Option<Row>, Error> {
    database.query("SELECT * FROM sagas WHERE id = $1").bind(id).fetch_optional().await
}

/// Sagas that go forward or back, by id, beginning after this one.
pub(super) async fn under_way(database: &Database, after: Uuid, limit: i64) -> Result<Vec<Row>, Error> {
    database
        .query("SELECT * FROM sagas WHERE status IN ('running', 'undoing') AND id > $1 ORDER BY id LIMIT $2")
        .bind(after)
        .bind(limit)
        .fetch_all()
        .await
}

/// How many have not ended, by status.
pub(super) async fn count(database: &Database) -> Result<Vec<(String, i64)>, Error> {
    database
        .query("SELECT status, COUNT(*) FROM sagas WHERE status IN ('running', 'undoing', 'stuck') GROUP BY status")
        .fetch_all()
        .await
}

/// The newest first, below this id: those with this status, or those that have not ended.
pub(super) async fn list(
    database: &Database,
    status: Option<SagaStatus>,
    before: Uuid,
    limit: i64,
) -> Result<Vec<Row>, Error> {
    let query = match status {
        Some(status) => database
            .query("SELECT * FROM sagas WHERE id < $1 AND status = $3 ORDER BY id DESC LIMIT $2")
            .bind(before)
            .bind(limit)
            .bind(status.as_str()),
        None => database
            .query(
                "SELECT * FROM sagas WHERE id < $1 AND status IN ('running', 'undoing', 'stuck')
                 ORDER BY id DESC LIMIT $2",
            )
            .bind(before)
            .bind(limit),
    };
    query.fetch_all().await
}

/// Lets a stuck saga go on where it is; false when it is not stuck.
pub(super) async fn unstick(database: &Database, id: Uuid, now: DateTime<Utc>) -> Result<bool, Error> {
    let changed = database
        .query(
            "UPDATE sagas
             SET status = CASE WHEN refusal IS NULL THEN 'running' ELSE 'undoing' END,
                 holder = NULL, token = token + 1, beat = 0, updated_at = $2
             WHERE id = $1 AND status = 'stuck'",
        )
        .bind(id)
        .bind(now)
        .execute()
        .await?;
    Ok(changed == 1)
}

/// Forgets up to `limit` sagas that ended before `before`; how many there were.
pub(crate) async fn prune(database: &Database, before: DateTime<Utc>, limit: i64) -> Result<u64, Error> {
    database
        .query(
            "DELETE FROM sagas WHERE id IN
                (SELECT id FROM sagas WHERE status IN ('done', 'undone') AND updated_at < $1 LIMIT $2)",
        )
        .bind(before)
        .bind(limit)
        .execute()
        .await
}
