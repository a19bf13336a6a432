//! Events: published with a confirm of the broker that a queue has them, taken from the queue of each domain of this
//! node that reacts, and acknowledged when the domain has applied them.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use callboard_messages::CloudEvent;
use callboard_supervisors::{
    ChildContext, ChildSpec, Exit,
    events::{Catalogue, EventSink, EventTransport, PublishError},
};
use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture};
use lapin::{
    BasicProperties, Channel, Confirmation,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions,
        BasicRejectOptions, ConfirmSelectOptions,
    },
    types::AMQPValue,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::{
    inbound,
    link::{Link, answered},
    publisher::headers,
    shared::{Shared, keep},
    topology,
    wire::Kind,
};

/// Events that may wait for their confirms at the same time. Each has a channel to itself meanwhile, so that a confirm
/// and what the broker gives back can't be taken for those of another.
const IN_FLIGHT: usize = 32;
/// How long a confirm may take.
const CONFIRM_WITHIN: Duration = Duration::from_secs(5);
/// Events of one domain on their way to this node.
const PREFETCH: u16 = 64;
/// How often a node that drains looks whether the events it had begun are applied.
const LOOK: Duration = Duration::from_millis(20);
/// The pause before an event that could neither be applied nor buried is delivered again.
const PAUSE: Duration = Duration::from_secs(1);

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
        is_unheard: bool,
    ) -> LocalBoxFuture<'static, Result<(), PublishError>> {
        let (shared, channels) = (self.shared.clone(), self.channels.clone());
        let (exchange, id) = (exchange.to_owned(), event.id);
        let body = serde_json::to_vec(event);
        async move {
            let body = body.map_err(|error| PublishError::Unconfirmed(error.to_string()))?;
            let publish = publish(&shared, &channels, &exchange, &key, id, &body);
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
    exchange: &str,
    key: &str,
    id: Uuid,
    body: &[u8],
) -> Result<(), PublishError> {
    let unconfirmed = PublishError::Unconfirmed;
    let _place = channels.places.acquire().await.map_err(|error| unconfirmed(error.to_string()))?;
    let link = shared.link().ok_or_else(|| unconfirmed("the broker is away".to_owned()))?;
    if link.is_blocked() {
        return Err(unconfirmed("the broker takes no messages for now".to_owned()));
    }
    let channel = channels.take(shared, &link).await.map_err(unconfirmed)?;
    let signature = shared.settings.key.sign(Kind::Event as u8, "", body);
    let properties = BasicProperties::default()
        .with_headers(headers(&signature))
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
        let is_unheard = self.shared.catalogue.lock().is_unheard(&event.kind);
        self.send(&self.shared.names.events, event.kind.clone(), &event, is_unheard)
    }

    fn redeliver(&self, domain: &str, event: CloudEvent) -> LocalBoxFuture<'static, Result<(), PublishError>> {
        self.send("", self.shared.names.events_of(domain), &event, false)
    }
}

/// The actor that declares what events need, for every domain of the platform, and starts one beside it for each domain
/// of this node that reacts.
pub(crate) async fn run(context: ChildContext, shared: Arc<Shared>) -> Exit {
    let sinks = shared.sinks.lock().clone();
    for sink in sinks {
        let (domain, shared) = (sink.subscription().domain, shared.clone());
        let child = ChildSpec::new(format!("events of {domain}"), move |context| {
            subscriber(context, shared.clone(), sink.clone())
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

async fn subscriber(context: ChildContext, shared: Arc<Shared>, sink: EventSink) -> Exit {
    keep(&context, &shared, async |link| {
        let subscriber =
            Rc::new(Subscriber { shared: shared.clone(), sink: sink.clone(), aggregates: RefCell::default() });
        subscriber.take(&link).await.err().unwrap_or_default()
    })
    .await
}

/// Who takes the events of one domain over one connection.
struct Subscriber {
    shared: Arc<Shared>,
    sink: EventSink,
    /// Behind each aggregate whose event is being applied, the events that wait for it.
    aggregates: RefCell<HashMap<Uuid, VecDeque<Taken>>>,
}

/// An event and how to settle its delivery.
struct Taken {
    channel: Channel,
    tag: u64,
    delivered: u32,
    event: CloudEvent,
}

impl Subscriber {
    async fn take(self: &Rc<Self>, link: &Link) -> Result<(), String> {
        if self.shared.draining.is_cancelled() {
            return std::future::pending().await;
        }
        let subscription = self.sink.subscription();
        let queue = self.shared.names.events_of(subscription.domain);
        let channel = link.incoming().await?;
        self.shared.metrics.channels.with_label_values(&["events"]).inc();
        topology::events(&channel, &self.shared.names).await?;
        topology::subscription(&channel, &self.shared.names, subscription.domain, &subscription.types).await?;
        answered(channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        let options = BasicConsumeOptions::default();
        let consume = channel.basic_consume(queue.as_str().into(), "".into(), options, topology::none());
        let mut events = answered(consume).await?;
        loop {
            let delivery = tokio::select! {
                biased;
                () = self.shared.draining.cancelled() => break,
                delivery = events.next() => delivery,
            };
            let Some(delivery) = delivery else { return Err("the broker ended the consumer of events".to_owned()) };
            self.receive(&channel, &queue, delivery.map_err(|error| error.to_string())?)?;
        }
        // Another node is to take over from here. It is given nothing as long as this consumer is there, so that the
        // order holds: what was begun is finished first, and the rest goes back with the channel.
        while !self.aggregates.borrow().is_empty() {
            tokio::time::sleep(LOOK).await;
        }
        answered(channel.close(200, "the node takes no more events".into())).await?;
        std::future::pending().await
    }

    fn receive(self: &Rc<Self>, channel: &Channel, queue: &str, delivery: Delivery) -> Result<(), String> {
        self.shared.metrics.received.with_label_values(&[Kind::Event.as_str()]).inc();
        let tag = delivery.delivery_tag;
        let refused = inbound::check(&self.shared, Kind::Event, "", &delivery).err();
        let event = refused.map_or_else(
            || serde_json::from_slice(&delivery.data).map_err(|_| crate::metrics::Refusal::Malformed),
            Err,
        );
        let event: CloudEvent = match event {
            Ok(event) => event,
            Err(refusal) => {
                self.shared.refusals.note(&self.shared, queue, refusal);
                // To the dead letters.
                let rejected = channel.basic_reject(tag, BasicRejectOptions { requeue: false }).now_or_never();
                return rejected.unwrap_or(Ok(())).map_err(|error| error.to_string());
            }
        };
        let (aggregate, delivered) = (event.subject, deliveries(&delivery));
        let taken = Taken { channel: channel.clone(), tag, delivered, event };
        let mut aggregates = self.aggregates.borrow_mut();
        if let Some(before) = aggregates.get_mut(&aggregate) {
            before.push_back(taken);
            return Ok(());
        }
        aggregates.insert(aggregate, VecDeque::new());
        drop(aggregates);
        let subscriber = self.clone();
        actix_rt::spawn(async move { subscriber.apply(aggregate, taken).await });
        Ok(())
    }

    /// Applies the events of one aggregate, one after the other. One that could neither be applied nor buried goes back,
    /// and those behind it with it.
    async fn apply(&self, aggregate: Uuid, first: Taken) {
        let mut next = Some(first);
        let mut failed = false;
        while let Some(Taken { channel, tag, delivered, event }) = next {
            // On another channel somebody else has been given it.
            if !failed && channel.status().connected() {
                if let Err(failure) = self.sink.deliver(event, delivered).await {
                    tracing::warn!(domain = self.sink.subscription().domain, %failure, "an event goes back");
                    tokio::time::sleep(PAUSE).await;
                    failed = true;
                }
            } else {
                failed = true;
            }
            let settled = if failed {
                channel.basic_nack(tag, BasicNackOptions { requeue: true, multiple: false }).now_or_never()
            } else {
                channel.basic_ack(tag, BasicAckOptions::default()).now_or_never()
            };
            if let Some(Err(error)) = settled {
                tracing::debug!(%error, "a settlement was too late: the event comes again, and is known");
            }
            let mut aggregates = self.aggregates.borrow_mut();
            // A node that drains begins nothing.
            let behind = aggregates.get_mut(&aggregate).filter(|_| !self.shared.draining.is_cancelled());
            next = behind.and_then(VecDeque::pop_front);
            if next.is_none() {
                aggregates.remove(&aggregate);
            }
        }
    }
}

/// How often a quorum queue delivered this before.
fn deliveries(delivery: &Delivery) -> u32 {
    let headers = delivery.properties.headers().as_ref();
    let count = headers.and_then(|headers| headers.inner().get("x-delivery-count"));
    // A delivery that ended with its node says nothing about the event, so only a part of them counts: the domain's own
    // attempts decide, and the queue's limit is for what ends the process each time.
    match count {
        Some(AMQPValue::LongLongInt(count)) => u32::try_from(*count).unwrap_or(0) / 5,
        Some(AMQPValue::LongInt(count)) => u32::try_from(*count).unwrap_or(0) / 5,
        _ => 0,
    }
}
