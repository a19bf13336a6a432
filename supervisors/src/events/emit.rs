//! Writes events to the outbox.

use callboard_messages::Caller;
use sqlx::types::Json;

use super::{CloudEvent, Event};
use crate::{
    db::{Error, Transaction},
    telemetry::trace,
    time::clock::Clock,
};

/// Most attempts to find the next position of an aggregate: more would mean that as many transactions emitted for one
/// aggregate at the same moment.
const TRIES: usize = 100;

/// Writes `event` to the outbox of the transaction's domain. It is published once the transaction has committed, after
/// the events of the same aggregate that were committed before: a transaction that emits for an aggregate waits for
/// another that has done so and not yet ended.
///
/// # Errors
/// When the statement fails; the transaction must be rolled back then.
pub async fn emit<E: Event>(transaction: &mut Transaction, caller: &Caller, event: &E) -> Result<(), Error> {
    let mut cloud = CloudEvent::new(transaction.domain(), Clock::system().now(), event)
        .map_err(|error| sqlx::Error::Encode(error.into()))?;
    cloud.correlationid = caller.correlation_id;
    cloud.traceparent = trace::current_traceparent();
    cloud.organizationid = cloud.organizationid.or(caller.organization_id);
    for _ in 0..TRIES {
        let written = transaction
            .query(
                "INSERT INTO outbox (id, aggregate, position, type, event, created_at)
                 SELECT $1, $2, COALESCE(MAX(position), 0) + 1, $3, $4, $5 FROM outbox WHERE aggregate = $2
                 ON CONFLICT (aggregate, position) DO NOTHING",
            )
            .bind(cloud.id)
            .bind(cloud.subject)
            .bind(E::NAME)
            .bind(Json(cloud.clone()))
            .bind(cloud.time)
            .execute()
            .await?;
        if written == 1 {
            transaction.fills_outbox();
            return Ok(());
        }
    }
    Err(sqlx::Error::Protocol(format!("no place in the outbox for an event of {}", cloud.subject)).into())
}
