//! Events: published with a confirm of the broker that a queue has them.

use std::{sync::Arc, time::Duration};

use callboard_messages::CloudEvent;
use callboard_supervisors::{
    ChildContext, ChildSpec, Clock, Exit,
    events::{ACCEPTED_FOR, Catalogue, EventSink, EventTransport, PublishError},
};
use futures_util::{FutureExt, future::LocalBoxFuture};
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::AMQPValue,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::{
    link::{Link, answered},
    publisher::{AGAIN_HEADER, headers},
    shared::{Shared, keep},
    subscriber, topology,
    wire::Kind,
};

/// Events that may wait for their confirms at the same time. Each has a channel to itself meanwhile, so that a confirm
/// and what the broker gives back can't be taken for those of another.
const IN_FLIGHT: usize = 32;
/// How long a confirm may take.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);

/// Publishes events.
pub(crate) struct Publishing {
    shared: Arc<Shared>,
    channels: Arc<Channels>,
}

struct Channels {
    places: Semaphore,
    idle: Mutex<Vec<(u64, Channel)>>,
}

impl Publishing {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let channels = Channels { places: Semaphore::new(IN_FLIGHT), idle: Mutex::default() };
        Self { shared, channels: Arc::new(channels) }
    }

    fn send(
        &self,
        exchange: &str,
        key: String,
        event: &CloudEvent,
        again: Option<String>,
    ) -> LocalBoxFuture<'static, Result<(), PublishError>> {
        let (shared, channels) = (self.shared.clone(), self.channels.clone());
        let (exchange, id) = (exchange.to_owned(), event.id);
        let is_unheard = !exchange.is_empty() && shared.catalogue.lock().is_unheard(&event.kind);
        let body = serde_json::to_vec(event);
        async move {
            let body = body.map_err(|error| PublishError::Unconfirmed(error.to_string()))?;
            let publish = publish(&shared, &channels, (&exchange, &key), id, &body, again);
            let published = tokio::time::timeout(CONFIRM_WITHIN, publish).await;
            let published = published
                .unwrap_or_else(|_| Err(PublishError::Unconfirmed(format!("no confirm within {CONFIRM_WITHIN:?}"))));
            if matches!(&published, Err(PublishError::Unroutable(_))) && !is_unheard {
                shared.metrics.unroutable.inc();
                // Whatever is missing is declared again, for the next attempt.
                shared.missing.notify_one();
            }
            published
        }
        .boxed_local()
    }
}

async fn publish(
    shared: &Shared,
    channels: &Channels,
    (exchange, key): (&str, &str),
    id: Uuid,
    body: &[u8],
    again: Option<String>,
) -> Result<(), PublishError> {
    let unconfirmed = PublishError::Unconfirmed;
    let _place = channels.places.acquire().await.map_err(|error| unconfirmed(error.to_string()))?;
    let link = shared.link().ok_or_else(|| unconfirmed("the broker is away".to_owned()))?;
    if link.is_blocked() {
        return Err(unconfirmed("the broker takes no messages for now".to_owned()));
    }
    let channel = channels.take(shared, &link).await.map_err(unconfirmed)?;
    let signature = shared.settings.key.sign(Kind::Event as u8, again.as_deref().unwrap_or_default(), body);
    let mut headers = headers(&signature);
    if let Some(again) = again {
        headers.insert(AGAIN_HEADER.into(), AMQPValue::LongString(again.into()));
    }
    let properties = BasicProperties::default()
        .with_headers(headers)
        .with_content_type("application/cloudevents+json".into())
        .with_message_id(id.to_string().into())
        .with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sent = channel.basic_publish(exchange.into(), key.into(), options, body, properties).await;
    let confirm = sent.map_err(|error| unconfirmed(error.to_string()))?;
    let confirmed = confirm.await.map_err(|error| {
        if link.is_up() {
            // Only the channel was closed: the exchange is not there.
            shared.missing.notify_one();
        }
        unconfirmed(error.to_string())
    })?;
    // Only a channel whose confirm came is used again: one that was not waited for may still get it.
    channels.idle.lock().push((link.number, channel));
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

impl Channels {
    async fn take(&self, shared: &Shared, link: &Link) -> Result<Channel, String> {
        let idle = {
            let mut idle = self.idle.lock();
            idle.retain(|(of, channel)| *of == link.number && channel.status().connected());
            idle.pop()
        };
        if let Some((_, channel)) = idle {
            return Ok(channel);
        }
        let channel = link.outgoing().await?;
        shared.metrics.channels.with_label_values(&["confirms"]).inc();
        answered(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
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
        self.send(&self.shared.names.events, event.kind.clone(), &event, None)
    }

    fn redeliver(&self, domain: &str, event: CloudEvent) -> LocalBoxFuture<'static, Result<(), PublishError>> {
        // An older node knows no such mark, so only those events have it that may be too old by the time they come.
        let now = Clock::system().now();
        let again = (now - event.time > ACCEPTED_FOR / 2).then(|| now.to_rfc3339());
        self.send("", self.shared.names.events_of(domain), &event, again)
    }
}

/// The actor that declares what events need, for every domain of the platform, and starts one beside it for each domain
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

/// Declares everything, again each time that something is missing.
async fn declare(shared: &Shared, link: &Link) -> Result<(), String> {
    let channel = link.incoming().await?;
    shared.metrics.channels.with_label_values(&["topology"]).inc();
    loop {
        topology::events(&channel, &shared.names).await?;
        let catalogue = shared.catalogue.lock().clone();
        for subscription in catalogue.subscriptions() {
            topology::subscription(&channel, &shared.names, subscription.domain, &subscription.types).await?;
        }
        shared.missing.notified().await;
        tracing::warn!("an event found no way; exchanges and queues are declared again");
    }
}
