//! Events: published with the broker's confirm that every queue which is to have them has them.
//!
//! An exchange that leads to one queue of several confirms, and reports no missing queue or binding. So an event is put
//! into the queue of each domain that is known to react to it, one message each, and is published when the broker has
//! confirmed all of them. One more goes through the exchange, for domains of which only a newer version knows that they
//! react: it names those that the others have reached, which drop it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use callboard_messages::CloudEvent;
use callboard_supervisors::{
    ChildContext, ChildSpec, Clock, Exit,
    events::{ACCEPTED_FOR, Catalogue, EventSink, EventTransport, PublishError},
};
use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, join, join_all},
};
use lapin::{
    BasicProperties, Channel, Confirmation,
    message::Delivery,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::AMQPValue,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{
    link::{Link, answered},
    publisher::{AGAIN_HEADER, REACHED_HEADER, headers},
    shared::{Shared, keep},
    subscriber, topology,
    wire::Kind,
};

/// Messages with events whose confirms may be pending at the same time. Each has a channel to itself meanwhile, so that
/// its confirm or return can't be taken for that of another.
const IN_FLIGHT: usize = 64;
/// Time limit of a confirm.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);
/// How long a missing queue is left before it is declared again. RabbitMQ ends the consumers of a deleted quorum queue;
/// when another queue of its name exists by then, it takes them for that one's, and gives them nothing.
const DECLARED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// An idle channel is closed after this.
const IDLE: Duration = Duration::from_secs(3);

/// Publishes events.
pub(crate) struct Publishing {
    shared: Arc<Shared>,
}

/// Channels for publishing events.
pub(crate) struct Channels {
    places: Semaphore,
    /// The last used last.
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    link: u64,
    channel: Channel,
    since: Instant,
}

impl Default for Channels {
    fn default() -> Self {
        Self { places: Semaphore::new(IN_FLIGHT), idle: Mutex::default() }
    }
}

/// The addressee of one message with an event.
struct Letter<'a> {
    exchange: &'a str,
    key: &'a str,
    /// When an operator replayed it.
    again: Option<String>,
    /// The domains that other messages with the same event reach.
    reached: Option<String>,
}

impl<'a> Letter<'a> {
    const fn to_queue(queue: &'a str, again: Option<String>) -> Self {
        Self { exchange: "", key: queue, again, reached: None }
    }
}

impl Publishing {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

/// Puts an event into the queue of every known subscriber, and gives it to the exchange for the rest.
async fn publish(shared: &Shared, event: &CloudEvent) -> Result<(), PublishError> {
    let body = written(event)?;
    let catalogue = shared.catalogue.lock().clone();
    let subscribers: Vec<&str> = catalogue.subscribers(&event.kind).collect();
    let queues: Vec<String> = subscribers.iter().map(|domain| shared.names.events_of(domain)).collect();
    let direct = queues.iter().map(|queue| send(shared, event, &body, Letter::to_queue(queue, None)));
    let reached = (!subscribers.is_empty()).then(|| subscribers.join(","));
    let exchange = Letter { exchange: &shared.names.events, key: &event.kind, again: None, reached };
    let (direct, rest) = join(join_all(direct), send(shared, event, &body, exchange)).await;
    let direct: Result<(), PublishError> = direct.into_iter().collect();
    let unroutable = matches!(direct, Err(PublishError::Unroutable(_)));
    // The binding of a subscriber is missing, which an older version needs.
    let is_unbound = matches!(rest, Err(PublishError::Unroutable(_))) && !subscribers.is_empty();
    if unroutable {
        shared.metrics.unroutable.inc();
    }
    if unroutable || is_unbound {
        // Missing queues and bindings are declared again, for the next attempt.
        shared.missing.notify_one();
    }
    direct.and(if is_unbound { Ok(()) } else { rest })
}

fn written(event: &CloudEvent) -> Result<Vec<u8>, PublishError> {
    serde_json::to_vec(event).map_err(|error| PublishError::Unconfirmed(error.to_string()))
}

/// Sends one message, and awaits its confirm.
async fn send(shared: &Shared, event: &CloudEvent, body: &[u8], letter: Letter<'_>) -> Result<(), PublishError> {
    let sent = tokio::time::timeout(CONFIRM_WITHIN, send_in_time(shared, event, body, letter)).await;
    sent.unwrap_or_else(|_| Err(PublishError::Unconfirmed(format!("no confirm within {CONFIRM_WITHIN:?}"))))
}

async fn send_in_time(
    shared: &Shared,
    event: &CloudEvent,
    body: &[u8],
    Letter { exchange, key, again, reached }: Letter<'_>,
) -> Result<(), PublishError> {
    let unconfirmed = PublishError::Unconfirmed;
    let channels = &shared.confirms;
    let _place = channels.places.acquire().await.map_err(|error| unconfirmed(error.to_string()))?;
    let Some(link) = shared.link().filter(|link| !link.is_blocked()) else {
        shared.outage.count();
        let away = shared.away().map_or_else(|| "the broker is away".to_owned(), |away| away.to_string());
        return Err(PublishError::Away(away));
    };
    let channel = channels.take(shared, &link).await.map_err(unconfirmed)?;
    let signature = shared.settings.key.sign(Kind::Event as u8, again.as_deref().unwrap_or_default(), body);
    let mut headers = headers(&signature);
    for (name, value) in [(AGAIN_HEADER, again), (REACHED_HEADER, reached)] {
        if let Some(value) = value {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
    }
    let properties = BasicProperties::default()
        .with_headers(headers)
        .with_content_type("application/cloudevents+json".into())
        .with_message_id(event.id.to_string().into())
        .with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sent = channel.basic_publish(exchange.into(), key.into(), options, body, properties).await;
    let confirm = sent.map_err(|error| unconfirmed(error.to_string()))?;
    let confirmed = confirm.await.map_err(|error| {
        if link.is_up() {
            // The exchange does not exist, which closed only the channel.
            shared.missing.notify_one();
        }
        unconfirmed(error.to_string())
    })?;
    // Only a channel whose confirm came is reused: another may still get an earlier confirm.
    channels.idle.lock().push(Idle { link: link.number, channel, since: Instant::now() });
    shared.metrics.sent.with_label_values(&[Kind::Event.as_str()]).inc();
    match confirmed {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
            Err(PublishError::Unroutable(format!("{} ({key})", returned.reply_text)))
        }
        Confirmation::Nack(None) => Err(unconfirmed("the broker could not keep it".to_owned())),
        Confirmation::NotRequested => Err(unconfirmed("the channel has no confirms".to_owned())),
    }
}

/// Whether a message with an event was meant for other domains than this, which got its own.
pub(crate) fn is_for_others(delivery: &Delivery, domain: &str) -> bool {
    let headers = delivery.properties.headers().as_ref();
    match headers.and_then(|headers| headers.inner().get(REACHED_HEADER)) {
        Some(AMQPValue::LongString(reached)) => {
            String::from_utf8_lossy(reached.as_bytes()).split(',').any(|reached| reached == domain)
        }
        _ => false,
    }
}

impl Channels {
    async fn take(&self, shared: &Shared, link: &Link) -> Result<Channel, String> {
        let idle = {
            let mut idle = self.idle.lock();
            idle.retain(|idle| idle.link == link.number && idle.channel.status().connected());
            idle.pop()
        };
        if let Some(idle) = idle {
            return Ok(idle.channel);
        }
        let channel = link.outgoing().await?;
        shared.metrics.channels.with_label_values(&["confirms"]).inc();
        answered(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    /// Closes channels that a burst has left, by dropping them.
    fn close_idle(&self) {
        self.idle.lock().retain(|idle| idle.since.elapsed() < IDLE);
    }
}

impl EventTransport for Publishing {
    fn declare(&self, catalogue: Catalogue) {
        *self.shared.catalogue.lock() = catalogue;
    }

    fn subscribe(&self, sink: EventSink) {
        self.shared.sinks.lock().push(sink);
    }

    fn publish(&self, event: CloudEvent) -> LocalBoxFuture<'static, Result<(), PublishError>> {
        let shared = self.shared.clone();
        async move { publish(&shared, &event).await }.boxed_local()
    }

    fn redeliver(&self, domain: &str, event: CloudEvent) -> LocalBoxFuture<'static, Result<(), PublishError>> {
        // An older node does not know this header, so only events have it that may be too old on arrival.
        let now = Clock::system().now();
        let again = (now - event.time > ACCEPTED_FOR / 2).then(|| now.to_rfc3339());
        let (shared, queue) = (self.shared.clone(), self.shared.names.events_of(domain));
        async move {
            let body = written(&event)?;
            let sent = send(&shared, &event, &body, Letter::to_queue(&queue, again)).await;
            if matches!(sent, Err(PublishError::Unroutable(_))) {
                shared.metrics.unroutable.inc();
                shared.missing.notify_one();
            }
            sent
        }
        .boxed_local()
    }
}

/// The actor that declares what events need, for every domain of the platform, and starts a subscriber for each domain
/// of this node that reacts.
pub(crate) async fn run(context: ChildContext, shared: Arc<Shared>) -> Exit {
    let sinks = shared.sinks.lock().clone();
    for sink in sinks {
        let (domain, shared) = (sink.subscription().domain, shared.clone());
        let child = ChildSpec::new(format!("events of {domain}"), move |context| {
            subscriber::run(context, shared.clone(), sink.clone())
        });
        if let Err(reason) = context.supervisor.start_child(child).await {
            // After a restart of this actor they run already.
            tracing::debug!(domain, %reason, "the subscriber was not started");
        }
    }
    keep(&context, &shared, async |link| declare(&shared, &link).await.err().unwrap_or_default()).await
}

/// Declares everything, again whenever something is missing.
async fn declare(shared: &Shared, link: &Link) -> Result<(), String> {
    let channel = link.incoming().await?;
    shared.metrics.channels.with_label_values(&["topology"]).inc();
    loop {
        topology::events(&channel, &shared.names).await?;
        let catalogue = shared.catalogue.lock().clone();
        for subscription in catalogue.subscriptions() {
            topology::subscription(&channel, &shared.names, subscription.domain, &subscription.types).await?;
        }
        while tokio::time::timeout(IDLE, shared.missing.notified()).await.is_err() {
            shared.confirms.close_idle();
        }
        tracing::warn!("a queue or exchange for an event is missing; declaring it again");
        tokio::time::sleep(DECLARED_AGAIN_AFTER).await;
    }
}
