//! `Idempotency-Key`: the same request, sent again, has no second effect and gets the same bytes.
//!
//! A key belongs to a principal and an operation. Before the work begins its place is taken in the gateway's database,
//! under a lease; what the work answers is stored before the client reads it, and kept for a day, also over a restart.
//! The work goes on when the client goes away, so that the client's next try finds the answer. A place whose node died
//! is free again when its lease has run out.
//!
//! Only what may have had an effect is kept: a refusal changed nothing, so the key may be used again. So it may when the
//! outcome is unknown but the operation finds what an earlier try made. The database holds
//! neither the key nor, in the clear, the answer (an answer may show an API key): the answer is sealed under a key that
//! derives from the client's.

use std::{rc::Rc, time::Duration};

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{HeaderName, HeaderValue},
    },
};
use callboard_messages::{Code, Failure, Operation};
use callboard_supervisors::{db::Database, seal::DataKey};
use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    answer::Answer,
    problem::Problem,
    worker::{Arrival, Request, Worker},
};

const KEPT: TimeDelta = TimeDelta::hours(24);
/// Beyond the operation's own deadline, until another may take a lost place.
const LEASE_GRACE: Duration = Duration::from_secs(30);
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The request's key, if it has one.
pub(crate) fn key_of(request: &Request) -> Result<Option<&str>, Problem> {
    let Some(value) = request.http.headers().get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > 255 {
        return Err(Problem::invalid("Idempotency-Key must be 1 to 255 visible ASCII characters"));
    }
    Ok(Some(key))
}

/// Where a request's answer is kept.
pub(crate) struct Place {
    id: Vec<u8>,
    fingerprint: Vec<u8>,
    seal: DataKey,
    lease: Duration,
    /// Whether the work may be done again when nobody knows whether it was.
    repeatable: bool,
}

#[derive(sqlx::FromRow)]
struct Row {
    fingerprint: Vec<u8>,
    lease_until: DateTime<Utc>,
    answer: Option<Vec<u8>>,
    expires_at: DateTime<Utc>,
}

impl Place {
    pub(crate) fn of<M: Operation>(request: &Request, key: &str, body: &[u8]) -> Self {
        let caller = &request.caller;
        let principal = caller.api_key_id.map(|id| id.0).or(caller.user_id.map(|id| id.0)).unwrap_or_default();
        let organization = caller.organization_id.map(|id| id.0).unwrap_or_default();
        let scope = [principal.as_bytes().as_slice(), organization.as_bytes(), M::NAME.as_bytes()];
        let hash = |purpose: &str, parts: &[&[u8]]| -> [u8; 32] {
            let mut hash = Sha256::new();
            for part in [purpose.as_bytes()].iter().chain(&scope).chain(parts) {
                hash.update(part.len().to_be_bytes());
                hash.update(part);
            }
            hash.finalize().into()
        };
        Self {
            id: hash("id", &[key.as_bytes()]).to_vec(),
            fingerprint: hash("fingerprint", &[key.as_bytes(), request.http.path().as_bytes(), body]).to_vec(),
            seal: DataKey::from_bytes(hash("seal", &[key.as_bytes()])),
            lease: M::TIMEOUT + LEASE_GRACE,
            repeatable: M::IDEMPOTENT,
        }
    }

    /// The same for every request with this key, and another for each key.
    pub(crate) fn request(&self) -> Uuid {
        uuid::Builder::from_custom_bytes(self.id.first_chunk().copied().unwrap_or_default()).into_uuid()
    }
}

enum Taken {
    /// The place is ours, under this name.
    Ours(Uuid),
    /// It was answered before.
    Answered(Answer),
}

/// Does `work` at most once for its place, and answers as it did.
pub(crate) async fn once(
    worker: Rc<Worker>,
    arrival: Rc<Arrival>,
    place: Place,
    work: impl Future<Output = Result<Answer, Problem>> + 'static,
) -> Result<HttpResponse, Problem> {
    let owner = match take(&worker, &place).await? {
        Taken::Ours(owner) => owner,
        Taken::Answered(answer) => {
            let mut response = answer.into_response();
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            return Ok(response);
        }
    };
    // On its own, so that a client who goes away does not leave the work half told.
    let task = actix_rt::spawn(async move {
        let outcome = work.await;
        settle(&worker, &arrival, &place, owner, &outcome).await;
        outcome
    });
    match task.await {
        Ok(outcome) => outcome.map(Answer::into_response),
        Err(error) => Err(Problem::internal(format!("the work under an idempotency key ended early: {error}"))),
    }
}

async fn take(worker: &Worker, place: &Place) -> Result<Taken, Problem> {
    let database = worker.database().await?;
    let failed = |error| Problem::from(Failure::from(error));
    // Each round ends here unless another request changes the row between two statements.
    for _ in 0..5 {
        let now = worker.clock().now();
        let owner = Uuid::now_v7();
        let lease_until = now + TimeDelta::from_std(place.lease).unwrap_or(TimeDelta::minutes(5));
        let inserted = database
            .query(
                "INSERT INTO idempotency_keys (id, fingerprint, owner, lease_until, expires_at)
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING",
            )
            .bind(place.id.clone())
            .bind(place.fingerprint.clone())
            .bind(owner)
            .bind(lease_until)
            .bind(now + KEPT)
            .execute()
            .await
            .map_err(failed)?;
        if inserted == 1 {
            return Ok(Taken::Ours(owner));
        }
        let row: Option<Row> = database
            .query("SELECT fingerprint, lease_until, answer, expires_at FROM idempotency_keys WHERE id = $1")
            .bind(place.id.clone())
            .fetch_optional()
            .await
            .map_err(failed)?;
        let Some(row) = row else { continue };
        if row.expires_at <= now {
            forget_expired(database, now).await.map_err(failed)?;
            continue;
        }
        if row.fingerprint != place.fingerprint {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "this Idempotency-Key came with another request before",
            ));
        }
        if let Some(sealed) = row.answer {
            let opened = place.seal.open(&sealed, &place.id).map_err(|error| Problem::internal(error.to_string()))?;
            let answer = serde_json::from_slice(&opened).map_err(|error| Problem::internal(error.to_string()))?;
            return Ok(Taken::Answered(answer));
        }
        if row.lease_until > now {
            return Err(in_flight());
        }
        let taken_over = database
            .query(
                "UPDATE idempotency_keys SET owner = $2, lease_until = $3
                 WHERE id = $1 AND answer IS NULL AND lease_until <= $4",
            )
            .bind(place.id.clone())
            .bind(owner)
            .bind(lease_until)
            .bind(now)
            .execute()
            .await
            .map_err(failed)?;
        if taken_over == 1 {
            return Ok(Taken::Ours(owner));
        }
    }
    Err(in_flight())
}

fn in_flight() -> Problem {
    let detail = "a request with this Idempotency-Key is still being carried out";
    Problem { retry_after: Some(Duration::from_secs(1)), ..Problem::of(Code::Conflict, detail) }
}

/// Stores the answer, or gives the place back when nothing happened.
async fn settle(worker: &Worker, arrival: &Arrival, place: &Place, owner: Uuid, outcome: &Result<Answer, Problem>) {
    let kept = match outcome {
        Ok(answer) => Some(answer.clone()),
        // Nobody knows what happened; the same words until someone looks, unless the next try finds what this one did.
        Err(problem) if !problem.certain && !place.repeatable => Some(problem.answer(arrival.request_id)),
        Err(_) => None,
    };
    let stored = async {
        let database = worker.database().await?;
        let Some(answer) = kept else {
            let sql = "DELETE FROM idempotency_keys WHERE id = $1 AND owner = $2 AND answer IS NULL";
            database.query(sql).bind(place.id.clone()).bind(owner).execute().await?;
            return Ok(());
        };
        let told = |error: &dyn std::fmt::Display| Failure::Internal(error.to_string());
        let plain = serde_json::to_vec(&answer).map_err(|error| told(&error))?;
        let sealed = place.seal.seal(&plain, &place.id).map_err(|error| told(&error))?;
        let sql = "UPDATE idempotency_keys SET answer = $3 WHERE id = $1 AND owner = $2 AND answer IS NULL";
        database.query(sql).bind(place.id.clone()).bind(owner).bind(sealed).execute().await?;
        Ok::<(), Failure>(())
    };
    if let Err(failure) = stored.await {
        tracing::error!(request_id = %arrival.request_id, %failure, "an answer could not be kept for its idempotency key");
    }
}

/// Forgets answers that were kept long enough.
pub(crate) async fn forget_expired(
    database: &Database,
    now: DateTime<Utc>,
) -> Result<u64, callboard_supervisors::db::Error> {
    database.query("DELETE FROM idempotency_keys WHERE expires_at <= $1").bind(now).execute().await
}
