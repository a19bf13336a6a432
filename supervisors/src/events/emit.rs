//! Writes events to the outbox.

use callboard_messages::Caller;
use futures_util::future::BoxFuture;
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
pub fn emit<'a, E: Event>(
    transaction: &'a mut Transaction,
    caller: &Caller,
    event: &E,
) -> BoxFuture<'a, Result<(), Error>> {
    let event = CloudEvent::new(transaction.domain(), Clock::system().now(), event);
    write(transaction, caller, event)
}

/// Boxed, and without the type of the event: it is compiled once.
fn write<'a>(
    transaction: &'a mut Transaction,
    caller: &Caller,
    event: serde_json::Result<CloudEvent>,
) -> BoxFuture<'a, Result<(), Error>> {
    let (correlation_id, organization_id) = (caller.correlation_id, caller.organization_id);
    Box::pin(async move {
        let mut event = event.map_err(|error| sqlx::Error::Encode(error.into()))?;
        event.correlationid = correlation_id;
        event.traceparent = trace::current_traceparent();
        event.organizationid = event.organizationid.or(organization_id);
        for _ in 0..TRIES {
            let written = transaction
                .query(
                    "INSERT INTO outbox (id, aggregate, position, type, event, created_at)
                     SELECT $1, $2, COALESCE(MAX(position), 0) + 1, $3, $4, $5 FROM outbox WHERE aggregate = $2
                     ON CONFLICT (aggregate, position) DO NOTHING",
                )
                .bind(event.id)
                .bind(event.subject)
                .bind(event.kind.clone())
                .bind(Json(event.clone()))
                .bind(event.time)
                .execute()
                .await?;
            if written == 1 {
                transaction.fills_outbox();
                return Ok(());
            }
        }
        Err(sqlx::Error::Protocol(format!("no place in the outbox for an event of {}", event.subject)).into())
    })
}
