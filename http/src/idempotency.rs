//! `Idempotency-Key`: the same request, sent again, has no second effect and gets the same bytes.
//!
//! A key belongs to a principal and an operation. Before the work begins its reservation is taken in the gateway's database,
//! under a lease; what the work answers is stored before the client reads it, and kept for a day, also over a restart.
//! The work goes on when the client goes away, so that the client's next try finds the answer.
//!
//! A reservation whose node died is taken over by a node that has itself seen it in the same hands for the whole of its lease,
//! by its own monotonic clock, because the clocks of two nodes may differ: the lease begins with the first try that finds
//! the reservation taken. One that was given back is free at once.
//!
//! Only what may have had an effect is kept: a refusal changed nothing, so the key may be used again. When the outcome is
//! unknown but the operation finds what an earlier try made, the reservation is free for the next try, which the domain is told
//! to be the same request. The database holds neither the key nor, in the clear, the answer (an answer may show an API
//! key): the answer is sealed under a key that derives from the client's.

use std::{
    collections::HashMap,
    rc::Rc,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{HeaderName, HeaderValue},
    },
};
use callboard_messages::{Code, Failure};
use callboard_supervisors::{
    Backoff, Part,
    db::{Database, Error},
    retry,
    schedule::{Schedule, Slot},
    seal::DataKey,
};
use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    answer::Answer,
    problem::Problem,
    worker::{Arrival, Request, Worker},
};

const KEPT: TimeDelta = TimeDelta::hours(24);
/// Beyond the operation's own deadline, until another may take a lost reservation.
const LEASE_GRACE: Duration = Duration::from_secs(30);
/// How long it is tried to store an answer, well within that.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// The pauses between the attempts to store it.
const SETTLE_AGAIN: Backoff =
    Backoff { first: Duration::from_millis(50), at_most: SETTLED_WITHIN, factor: 2.0, jitter: 0.2 };
/// What a client is told to wait while the database is away.
const AWAY_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Answers forgotten by one statement, so that none holds the database for long.
const AT_ONCE: i64 = 1_000;
/// Sightings above which those that nobody asked about for so long are forgotten.
const SIGHTINGS: (usize, Duration) = (1_024, Duration::from_secs(600));
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The request's key, if it has one.
pub(crate) fn key_of(request: &Request) -> Result<Option<&str>, Problem> {
    let Some(value) = request.http.headers().get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > 255 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Problem::invalid("Idempotency-Key must be 1 to 255 visible ASCII characters"));
    }
    Ok(Some(key))
}

/// The operation that a request asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    pub(crate) operation: &'static str,
    pub(crate) timeout: Duration,
    pub(crate) idempotent: bool,
}

/// An idempotency key that a request reserves, under which its answer is kept.
pub(crate) struct Reservation {
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
    owner: Uuid,
    lease_until: DateTime<Utc>,
    answer: Option<Vec<u8>>,
    expires_at: DateTime<Utc>,
}

impl Reservation {
    pub(crate) fn of(request: &Request, about: About, key: &str, body: &[u8]) -> Self {
        let caller = &request.caller;
        let principal = caller.api_key_id.map(|id| id.0).or(caller.user_id.map(|id| id.0)).unwrap_or_default();
        let organization = caller.organization_id.map(|id| id.0).unwrap_or_default();
        let scope = [principal.as_bytes().as_slice(), organization.as_bytes(), about.operation.as_bytes()];
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
            lease: about.timeout + LEASE_GRACE,
            repeatable: about.idempotent,
        }
    }

    /// The same for every try while the reservation is kept, and another for each reservation: a key that is used again after that
    /// finds nothing of what it once made.
    fn request(&self, expires_at: DateTime<Utc>) -> Uuid {
        let mut hash = Sha256::new();
        hash.update(&self.id);
        // What both databases keep of a time.
        hash.update(expires_at.timestamp_millis().to_be_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        uuid::Builder::from_custom_bytes(hash.first_chunk().copied().unwrap_or_default()).into_uuid()
    }
}

/// Places under way as this node has seen them.
#[derive(Default)]
pub(crate) struct Sightings(Mutex<HashMap<Vec<u8>, Sighting>>);

struct Sighting {
    owner: Uuid,
    first: Instant,
    last: Instant,
}

impl Sightings {
    /// Whether this owner has had the reservation for the whole of its lease since it was seen there first.
    fn has_lapsed(&self, reservation: &Reservation, owner: Uuid, now: Instant) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (many, remembered) = SIGHTINGS;
        if seen.len() >= many {
            seen.retain(|_, sighting| now.saturating_duration_since(sighting.last) < remembered);
        }
        let sighting = seen.entry(reservation.id.clone()).or_insert(Sighting { owner, first: now, last: now });
        if sighting.owner != owner {
            *sighting = Sighting { owner, first: now, last: now };
        }
        sighting.last = now;
        now.saturating_duration_since(sighting.first) >= reservation.lease
    }

    fn forget(&self, reservation: &Reservation) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&reservation.id);
    }
}

/// A reservation that is ours.
#[derive(Clone, Copy)]
struct Claim {
    /// Under this name.
    owner: Uuid,
    /// What this try and those before it are for the domain.
    request: Uuid,
    /// Whether nobody has tried before.
    is_first: bool,
}

enum Taken {
    Ours(Claim),
    /// It was answered before.
    Answered(Answer),
}

/// Does `work` at most once for its reservation, and answers as it did. `work` gets what the request is for the domain.
pub(crate) async fn once<W>(
    worker: Rc<Worker>,
    arrival: Rc<Arrival>,
    reservation: Reservation,
    work: impl FnOnce(Uuid) -> W + 'static,
) -> Result<HttpResponse, Problem>
where
    W: Future<Output = Result<Answer, Problem>> + 'static,
{
    // On its own from its first statement on, so that a client who goes away leaves neither a reservation without its work
    // nor the work half told.
    let task = actix_rt::spawn(async move {
        let claim = match take(&worker, &reservation).await? {
            Taken::Ours(claim) => claim,
            Taken::Answered(answer) => return Ok((answer, true)),
        };
        let outcome = work(claim.request).await;
        let is_settled = settle(&worker, &arrival, &reservation, claim, &outcome).await;
        // The next try would not find this answer: what it makes may take the place of what was told in it.
        if !is_settled && outcome.is_ok() {
            return Err(Failure::Unknown.into());
        }
        outcome.map(|answer| (answer, false))
    });
    let (answer, is_replayed) = match task.await {
        Ok(outcome) => outcome?,
        Err(error) => {
            return Err(Problem::internal(format!("the work under an idempotency key ended early: {error}")));
        }
    };
    let mut response = answer.into_response();
    if is_replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

async fn take(worker: &Worker, reservation: &Reservation) -> Result<Taken, Problem> {
    // Nothing was begun, and it is not waited until the server has not answered once more.
    if worker.bus().lacks(crate::DOMAIN, Part::Database).is_some() {
        return Err(Failure::Unavailable { retry_after: AWAY_RETRY_AFTER }.into());
    }
    let database = worker.database().await?;
    let failed = |error| Problem::from(Failure::from(error));
    let sightings = &worker.shared.sightings;
    let owner = Uuid::now_v7();
    let mut is_first = true;
    // Each round ends here unless another request changes the row between two statements, or nobody knows whether this
    // one has: then the row tells.
    for _ in 0..5 {
        let now = worker.clock().now();
        let lease_until = now + TimeDelta::from_std(reservation.lease).unwrap_or(TimeDelta::minutes(5));
        let expires_at = now + KEPT;
        let inserted = database
            .query(
                "INSERT INTO idempotency_keys (id, fingerprint, owner, lease_until, expires_at)
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING",
            )
            .bind(reservation.id.clone())
            .bind(reservation.fingerprint.clone())
            .bind(owner)
            .bind(lease_until)
            .bind(expires_at)
            .execute()
            .await;
        match inserted {
            Ok(1) => return Ok(Taken::Ours(Claim { owner, request: reservation.request(expires_at), is_first })),
            Err(error) if !error.is_unknown() => return Err(failed(error)),
            _ => {}
        }
        let row: Option<Row> = database
            .query("SELECT fingerprint, owner, lease_until, answer, expires_at FROM idempotency_keys WHERE id = $1")
            .bind(reservation.id.clone())
            .fetch_optional()
            .await
            .map_err(failed)?;
        let Some(row) = row else { continue };
        if row.expires_at <= now && row.lease_until <= now {
            let sql = "DELETE FROM idempotency_keys WHERE id = $1 AND expires_at <= $2 AND lease_until <= $2";
            database.query(sql).bind(reservation.id.clone()).bind(now).execute().await.map_err(failed)?;
            continue;
        }
        if row.fingerprint != reservation.fingerprint {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "this Idempotency-Key came with another request before",
            ));
        }
        if let Some(sealed) = row.answer {
            let opened = reservation
                .seal
                .open(&sealed, &reservation.id)
                .map_err(|error| Problem::internal(error.to_string()))?;
            let answer = serde_json::from_slice(&opened).map_err(|error| Problem::internal(error.to_string()))?;
            return Ok(Taken::Answered(answer));
        }
        if row.owner == owner {
            return Ok(Taken::Ours(Claim { owner, request: reservation.request(row.expires_at), is_first }));
        }
        let is_free = row.lease_until <= DateTime::UNIX_EPOCH;
        if !is_free && !sightings.has_lapsed(reservation, row.owner, worker.clock().instant()) {
            return Err(in_flight());
        }
        is_first = false;
        let taken_over = database
            .query(
                "UPDATE idempotency_keys SET owner = $2, lease_until = $3
                 WHERE id = $1 AND answer IS NULL AND owner = $4",
            )
            .bind(reservation.id.clone())
            .bind(owner)
            .bind(lease_until)
            .bind(row.owner)
            .execute()
            .await;
        match taken_over {
            Ok(1) => {
                sightings.forget(reservation);
                return Ok(Taken::Ours(Claim { owner, request: reservation.request(row.expires_at), is_first }));
            }
            Err(error) if !error.is_unknown() => return Err(failed(error)),
            _ => {}
        }
    }
    Err(in_flight())
}

fn in_flight() -> Problem {
    let detail = "a request with this Idempotency-Key is still being carried out";
    Problem { retry_after: Some(Duration::from_secs(1)), ..Problem::of(Code::Conflict, detail) }
}

/// What becomes of a reservation after its work.
enum End {
    /// It answers for as long as it is kept.
    Answered(Answer),
    /// The next try takes it over: its lease ended before all clocks.
    Free,
    /// Nothing happened under it, ever.
    Unused,
}

impl End {
    fn of(reservation: &Reservation, claim: Claim, outcome: &Result<Answer, Problem>, request_id: Uuid) -> Self {
        match outcome {
            Ok(answer) => Self::Answered(answer.clone()),
            // Nobody knows what happened, nor would the next try: the same words until someone looks.
            Err(problem) if !problem.certain && !reservation.repeatable => Self::Answered(problem.answer(request_id)),
            Err(problem) if problem.certain && claim.is_first => Self::Unused,
            // An earlier try may have made something.
            Err(_) => Self::Free,
        }
    }
}

/// Stores the answer, or gives the reservation back; whether it could. A database that has just restarted is asked again.
async fn settle(
    worker: &Worker,
    arrival: &Arrival,
    reservation: &Reservation,
    claim: Claim,
    outcome: &Result<Answer, Problem>,
) -> bool {
    let clock = worker.clock();
    let deadline = clock.instant() + SETTLED_WITHIN;
    let attempt = async || settle_once(worker, arrival, reservation, claim, outcome).await;
    let settled = retry(clock, SETTLE_AGAIN, attempt, |failure, pause| {
        let is_late = clock.instant() + pause >= deadline;
        if is_late { Err(failure) } else { Ok(()) }
    })
    .await;
    settled
        .inspect_err(|failure| {
            let request_id = arrival.request_id;
            tracing::error!(%request_id, %failure, "an answer could not be kept for its idempotency key");
        })
        .is_ok()
}

async fn settle_once(
    worker: &Worker,
    arrival: &Arrival,
    reservation: &Reservation,
    claim: Claim,
    outcome: &Result<Answer, Problem>,
) -> Result<(), Failure> {
    let database = worker.database().await?;
    let told = |error: &dyn std::fmt::Display| Failure::Internal(error.to_string());
    let statement = match End::of(reservation, claim, outcome, arrival.request_id) {
        End::Answered(answer) => {
            let plain = serde_json::to_vec(&answer).map_err(|error| told(&error))?;
            let sealed = reservation.seal.seal(&plain, &reservation.id).map_err(|error| told(&error))?;
            database
                .query("UPDATE idempotency_keys SET answer = $1 WHERE id = $2 AND owner = $3 AND answer IS NULL")
                .bind(sealed)
        }
        End::Free => database
            .query("UPDATE idempotency_keys SET lease_until = $1 WHERE id = $2 AND owner = $3 AND answer IS NULL")
            .bind(DateTime::<Utc>::UNIX_EPOCH),
        End::Unused => {
            let sql = "DELETE FROM idempotency_keys WHERE id = $1 AND owner = $2 AND answer IS NULL";
            database.query(sql)
        }
    };
    // Taken over meanwhile, it is no longer ours to settle, and who has it finds what was made.
    statement.bind(reservation.id.clone()).bind(claim.owner).execute().await?;
    Ok(())
}

/// Forgets answers that were kept long enough, at one of the nodes.
pub(crate) fn housekeeping() -> Schedule {
    Schedule::cron("idempotency", "*/10 * * * *", |slot: Slot| async move {
        let now = slot.clock.now();
        forget_expired(&slot.database, now).await
    })
}

async fn forget_expired(database: &Database, now: DateTime<Utc>) -> Result<(), Error> {
    let sql = "DELETE FROM idempotency_keys WHERE id IN
                  (SELECT id FROM idempotency_keys WHERE expires_at <= $1 AND lease_until <= $1 LIMIT $2)";
    while database.query(sql).bind(now).bind(AT_ONCE).execute().await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use callboard_supervisors::testing::on_both_engines;

    use super::*;

    #[actix_rt::test]
    async fn what_was_kept_long_enough_is_forgotten_in_pieces() {
        on_both_engines(&[(crate::DOMAIN, &crate::MIGRATIONS)], async |databases| {
            let database = databases.open(crate::DOMAIN).await.unwrap();
            let now = Utc::now();
            let (over, kept) = (now - TimeDelta::seconds(1), now + TimeDelta::seconds(1));
            let several = usize::try_from(AT_ONCE).unwrap() + 1;
            let work = [(over, kept), (kept, over)];
            for (expires_at, lease_until) in std::iter::repeat_n((over, over), several).chain(work) {
                database
                    .query(
                        "INSERT INTO idempotency_keys (id, fingerprint, owner, lease_until, expires_at)
                         VALUES ($1, $1, $2, $3, $4)",
                    )
                    .bind(Uuid::now_v7().as_bytes().to_vec())
                    .bind(Uuid::nil())
                    .bind(lease_until)
                    .bind(expires_at)
                    .execute()
                    .await
                    .unwrap();
            }
            forget_expired(&database, now).await.unwrap();
            let left: i64 = database.query("SELECT COUNT(*) FROM idempotency_keys").fetch_scalar().await.unwrap();
            assert_eq!(left, 2, "one that is under way, and one that is not over");
        })
        .await;
    }
}
