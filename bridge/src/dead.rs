//! The actor that keeps what the broker gave up: messages that were no events, and events over the delivery limit.

use std::{sync::Arc, time::Duration};

use callboard_messages::{
    CallError, Caller, Failure, Operation,
    cluster::{Bury, DeadLetter},
};
use callboard_supervisors::{ChildContext, Exit};
use futures_util::{FutureExt, StreamExt};
use lapin::{
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    events, inbound,
    link::{Link, answered},
    metrics::Refusal,
    shared::{Shared, keep},
    topology,
};

/// Largest kept part of a message that was no event of the cluster, in bytes: anybody who reaches the broker can send
/// one.
const LONGEST: usize = 4 * 1024;
/// Pause before a dead letter that could not be kept is retried.
const PAUSE: Duration = Duration::from_secs(1);
/// Failures of the store, other than outages, after which a message that is no event is kept in a form that no store
/// refuses: the letters behind it wait for it. An event waits until the store works.
const FAILURES: u32 = 5;

pub(crate) async fn run(context: ChildContext, shared: Arc<Shared>) -> Exit {
    if context.bus.actor(Bury::domain()).is_none() {
        // Other nodes can keep them.
        context.stopping().await;
        return Exit::Shutdown;
    }
    keep(&context, &shared, async |link| bury(&context, &shared, &link).await.err().unwrap_or_default()).await
}

async fn bury(context: &ChildContext, shared: &Shared, link: &Link) -> Result<(), String> {
    let queue = &shared.names.dead;
    let channel = link.incoming().await?;
    shared.metrics.channels.with_label_values(&["dead letters"]).inc();
    topology::events(&channel, &shared.names).await?;
    answered(channel.basic_qos(16, BasicQosOptions::default())).await?;
    let options = BasicConsumeOptions::default();
    let consume = channel.basic_consume(queue.as_str().into(), "".into(), options, topology::none());
    let mut dead = answered(consume).await?;
    while let Some(delivery) = dead.next().await {
        let delivery = delivery.map_err(|error| error.to_string())?;
        let mut letter = letter(context, shared, &delivery);
        // The domain has its own message with the same event, which is buried instead.
        let is_copy = events::is_for_others(&delivery, &letter.domain);
        let mut failures = 0;
        // Without end: a dead letter has nowhere else to go.
        while !is_copy && channel.status().connected() {
            match context.bus.ask(&Caller::system(), Bury { letter: letter.clone() }).await {
                Ok(()) => {
                    tracing::error!(domain = letter.domain, dead_letter = %letter.id, reason = letter.error, "an event was buried");
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "storing a dead letter failed; retrying");
                    failures += u32::from(matches!(
                        error,
                        CallError::Refused(_) | CallError::Failed(Failure::Internal(_) | Failure::Invalid)
                    ));
                    if failures == FAILURES && !letter.event.is_object() {
                        letter.event = Value::String(plain(&delivery.data));
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        let acknowledged = channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).now_or_never();
        acknowledged.unwrap_or(Ok(())).map_err(|error| error.to_string())?;
    }
    Err("the broker ended the consumer of dead letters".to_owned())
}

fn letter(context: &ChildContext, shared: &Shared, delivery: &Delivery) -> DeadLetter {
    let death = delivery.properties.headers().as_ref().and_then(last_death);
    let domain = death.and_then(|death| text(death, "queue")).and_then(|queue| subscriber(shared, &queue));
    let domain = domain.unwrap_or("unknown").to_owned();
    // The broker keeps the signature with the message. A message without one is no event, whatever it looks like: a
    // replay would sign it.
    let opened = inbound::event(shared, delivery);
    let is_ours = matches!(opened, Ok(_) | Err(Refusal::Outdated));
    let reason = match death.and_then(|death| text(death, "reason")).as_deref() {
        Some("rejected") if is_ours => "it is so old that nobody remembers whether it was applied",
        Some("rejected") => "this was no event of the cluster",
        Some("delivery_limit") => "it was delivered too often without an end",
        _ => "the broker gave it up",
    };
    DeadLetter {
        id: identity(&domain, is_ours, &delivery.data),
        domain,
        event: kept(&delivery.data, if is_ours { shared.settings.message_bytes } else { 0 }),
        error: reason.to_owned(),
        attempts: 1,
        died_at: context.clock.now(),
    }
}

/// The domain whose events a queue holds, if it exists: anybody may have written the queue's name.
fn subscriber(shared: &Shared, queue: &str) -> Option<&'static str> {
    let named = shared.names.subscriber(queue)?;
    let catalogue = shared.catalogue.lock();
    catalogue.subscriptions().iter().map(|subscription| subscription.domain).find(|domain| *domain == named)
}

/// An event as it is, or the beginning of a body that is none.
fn kept(body: &[u8], largest: usize) -> Value {
    let event = if body.len() <= largest { serde_json::from_slice(body).ok() } else { None };
    event.unwrap_or_else(|| Value::String(String::from_utf8_lossy(beginning(body)).into_owned()))
}

/// The beginning of a body in printable ASCII.
fn plain(body: &[u8]) -> String {
    beginning(body).escape_ascii().to_string()
}

fn beginning(body: &[u8]) -> &[u8] {
    body.get(..LONGEST).unwrap_or(body)
}

/// An id by domain and body, so that a letter delivered twice is kept once. What is not ours gets another id than an
/// event with the same body, which it would replace.
fn identity(domain: &str, is_ours: bool, body: &[u8]) -> Uuid {
    let digest = Sha256::new().chain_update(domain).chain_update([u8::from(!is_ours)]).chain_update(body).finalize();
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// The last death of a message in its headers.
fn last_death(headers: &FieldTable) -> Option<&FieldTable> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else { return None };
    match deaths.as_slice().first()? {
        AMQPValue::FieldTable(death) => Some(death),
        _ => None,
    }
}

fn text(death: &FieldTable, name: &str) -> Option<String> {
    match death.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_kept_whole_and_what_can_be_none_in_part() {
        let event = serde_json::to_vec(&vec![1; LONGEST]).unwrap();
        assert_eq!(kept(&event, event.len()).as_array().map(Vec::len), Some(LONGEST));
        for (body, largest) in [(event.as_slice(), event.len() - 1), (&[b'['; 2 * LONGEST], usize::MAX)] {
            assert_eq!(kept(body, largest).as_str().map(str::len), Some(LONGEST));
        }
        assert_eq!(kept(b"garbage", 100), "garbage");
        assert_ne!(identity("target", true, &event), identity("target", false, &event));
        assert_eq!(plain(b"{\"\xff\0"), r#"{\"\xff\x00"#);
    }
}
