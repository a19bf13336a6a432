//! Declarations of exchanges and queues. Every actor declares what it uses at each start, so that what an operator or a
//! restart of the broker removed comes back.

use lapin::{
    Channel, ExchangeKind, Queue,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use crate::{link::answered, names::Names};

/// Expiry of an unused queue of one node, or of operations, in milliseconds.
const UNUSED: i32 = 60_000;
/// Deliveries of an event before the broker gives it up: subscribers count their own attempts, so only an event that
/// ends the process each time gets there.
pub(crate) const DELIVERY_LIMIT: u32 = 20;

/// No arguments.
pub(crate) fn none() -> FieldTable {
    FieldTable::default()
}

fn arguments(pairs: impl IntoIterator<Item = (&'static str, AMQPValue)>) -> FieldTable {
    let mut arguments = FieldTable::default();
    for (name, value) in pairs {
        arguments.insert(name.into(), value);
    }
    arguments
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Arguments of a queue whose messages are worthless after a restart of the broker.
pub(crate) fn transient() -> FieldTable {
    arguments([("x-expires", AMQPValue::LongInt(UNUSED))])
}

/// Arguments of the queue of live updates: the oldest are dropped when a node does not keep up.
pub(crate) fn lossy() -> FieldTable {
    arguments([
        ("x-expires", AMQPValue::LongInt(UNUSED)),
        ("x-max-length", AMQPValue::LongInt(10_000)),
        ("x-overflow", text("drop-head")),
    ])
}

pub(crate) async fn exchange(channel: &Channel, name: &str, kind: ExchangeKind, durable: bool) -> Result<(), String> {
    let options = ExchangeDeclareOptions { durable, ..ExchangeDeclareOptions::default() };
    answered(channel.exchange_declare(name.into(), kind, options, none())).await
}

pub(crate) async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<(), String> {
    let bind = channel.queue_bind(queue.into(), exchange.into(), key.into(), QueueBindOptions::default(), none());
    answered(bind).await
}

/// A queue for requests, bound to the exchange of operations by its own name.
pub(crate) async fn requests(channel: &Channel, names: &Names, queue: &str) -> Result<Queue, String> {
    let declare = channel.queue_declare(queue.into(), QueueDeclareOptions::default(), transient());
    let declared = answered(declare).await?;
    bind(channel, queue, &names.operations, queue).await?;
    Ok(declared)
}

/// The exchanges that requests and live updates are sent to.
pub(crate) async fn exchanges(channel: &Channel, names: &Names) -> Result<(), String> {
    exchange(channel, &names.operations, ExchangeKind::Direct, true).await?;
    exchange(channel, &names.live, ExchangeKind::Fanout, false).await
}

/// The exchange of events, and the queue of dead letters.
pub(crate) async fn events(channel: &Channel, names: &Names) -> Result<(), String> {
    exchange(channel, &names.events, ExchangeKind::Topic, true).await?;
    exchange(channel, &names.dead, ExchangeKind::Fanout, true).await?;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let quorum = arguments([("x-queue-type", text("quorum"))]);
    answered(channel.queue_declare(names.dead.as_str().into(), durable, quorum)).await?;
    bind(channel, &names.dead, &names.dead, "").await
}

/// The queue of the events that a domain reacts to. It has a single active consumer, so that the order of an
/// aggregate's events holds; dead letters are moved at least once.
pub(crate) async fn subscription(channel: &Channel, names: &Names, domain: &str, types: &[&str]) -> Result<(), String> {
    let queue = names.events_of(domain);
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let quorum = arguments([
        ("x-queue-type", text("quorum")),
        ("x-single-active-consumer", AMQPValue::Boolean(true)),
        ("x-delivery-limit", AMQPValue::LongInt(DELIVERY_LIMIT.cast_signed())),
        ("x-dead-letter-exchange", text(&names.dead)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ]);
    answered(channel.queue_declare(queue.as_str().into(), durable, quorum)).await?;
    for kind in types {
        bind(channel, &queue, &names.events, kind).await?;
    }
    Ok(())
}
