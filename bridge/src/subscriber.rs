//! The actor that consumes the events of one domain of this node, and acknowledges each when the domain has applied it.
//!
//! One node of the cluster is the active consumer of a domain's queue; the others wait behind it. It hands over to
//! another, and waits behind that, when the domain takes nothing here for long, and when an event comes that this
//! version does not react to. Each handover makes the broker count one more delivery of whatever goes back, and it
//! gives up what was delivered too often: so handovers are few, with growing pauses.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use callboard_messages::CloudEvent;
use callboard_supervisors::{
    ChildContext, Exit,
    events::{EventSink, Untaken},
};
use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions},
    types::AMQPValue,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    events, inbound,
    link::{Link, answered},
    shared::{Shared, keep},
    topology,
    wire::Kind,
};

/// Unacknowledged events of one domain on this node.
const PREFETCH: u16 = 64;
/// Interval of checking, before a handover, whether the events in progress are applied.
const LOOK: Duration = Duration::from_millis(20);
/// Pause before this node consumes again after a handover.
const PAUSE: Duration = Duration::from_millis(500);
/// No handover from this many deliveries of an event on: half of what the broker allows.
const LEFT_AT_MOST: u32 = topology::DELIVERY_LIMIT / 2;

pub(crate) async fn run(context: ChildContext, shared: Arc<Shared>, sink: EventSink) -> Exit {
    let unknown_types = Rc::new(UnknownTypes::default());
    keep(&context, &shared, async |link| {
        while !shared.draining.is_cancelled() {
            if let Err(reason) = take(&shared, &sink, &unknown_types, &link).await {
                return reason;
            }
            sleep(PAUSE).await;
            // A domain that takes nothing would only hand over again.
            while !sink.is_open() {
                sleep(PAUSE).await;
            }
        }
        std::future::pending().await
    })
    .await
}

/// Types of events that this version does not react to.
#[derive(Default)]
struct UnknownTypes(RefCell<HashMap<String, Seen>>);

#[derive(Clone, Copy)]
struct Seen {
    first: Instant,
    last: Instant,
}

impl UnknownTypes {
    /// How long such events have come here without being taken elsewhere.
    fn seen_for(&self, kind: &str, forgotten_after: Duration) -> Duration {
        let now = Instant::now();
        let mut unknown_types = self.0.borrow_mut();
        unknown_types.retain(|_, seen| now.duration_since(seen.last) < forgotten_after);
        let seen = unknown_types.entry(kind.to_owned()).or_insert(Seen { first: now, last: now });
        seen.last = now;
        now.duration_since(seen.first)
    }
}

/// The consumer of one domain's events over one channel.
struct Subscriber {
    shared: Arc<Shared>,
    sink: EventSink,
    unknown_types: Rc<UnknownTypes>,
    channel: Channel,
    /// The events in progress by aggregate, with those that wait behind them.
    aggregates: RefCell<HashMap<Uuid, VecDeque<Taken>>>,
    /// Most earlier deliveries among the events so far.
    deliveries: Cell<u32>,
    /// Cancelled to hand over to another node.
    leaving: CancellationToken,
    /// Cancelled when the channel is lost.
    over: CancellationToken,
}

/// A delivered event.
struct Taken {
    tag: u64,
    /// Number of earlier deliveries.
    deliveries: u32,
    event: CloudEvent,
}

/// Consumes events until it hands over, or this node drains.
async fn take(
    shared: &Arc<Shared>,
    sink: &EventSink,
    unknown_types: &Rc<UnknownTypes>,
    link: &Link,
) -> Result<(), String> {
    let subscription = sink.subscription();
    let queue = shared.names.events_of(subscription.domain);
    let channel = link.incoming().await?;
    shared.metrics.channels.with_label_values(&["events"]).inc();
    topology::events(&channel, &shared.names).await?;
    topology::subscription(&channel, &shared.names, subscription.domain, &subscription.types).await?;
    answered(channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
    let options = BasicConsumeOptions::default();
    let consume = channel.basic_consume(queue.as_str().into(), "".into(), options, topology::none());
    let mut events = answered(consume).await?;
    let subscriber = Rc::new(Subscriber {
        shared: shared.clone(),
        sink: sink.clone(),
        unknown_types: unknown_types.clone(),
        channel: channel.clone(),
        aggregates: RefCell::default(),
        deliveries: Cell::new(0),
        leaving: CancellationToken::new(),
        over: CancellationToken::new(),
    });
    let _over = subscriber.over.clone().drop_guard();
    loop {
        let delivery = tokio::select! {
            biased;
            () = subscriber.left() => break,
            delivery = events.next() => delivery,
        };
        let Some(delivery) = delivery else { return Err("the broker ended the consumer of events".to_owned()) };
        subscriber.receive(&queue, delivery.map_err(|error| error.to_string())?)?;
    }
    // A handover. The next node is given nothing as long as this consumer exists, so that the order holds: events in
    // progress are finished first, and the rest goes back with the channel.
    while !subscriber.aggregates.borrow().is_empty() {
        if !channel.status().connected() {
            return Err("the broker closed the channel of events".to_owned());
        }
        sleep(LOOK).await;
    }
    answered(channel.close(200, "the node takes no more events for now".into())).await
}

impl Subscriber {
    /// Waits until nothing more is to be started here.
    async fn left(&self) {
        tokio::select! {
            () = self.leaving.cancelled() => {}
            () = self.shared.draining.cancelled() => {}
        }
    }

    fn is_left(&self) -> bool {
        self.leaving.is_cancelled() || self.shared.draining.is_cancelled()
    }

    fn receive(self: &Rc<Self>, queue: &str, delivery: Delivery) -> Result<(), String> {
        let tag = delivery.delivery_tag;
        if events::is_for_others(&delivery, self.sink.subscription().domain) {
            let passed_over = self.channel.basic_ack(tag, BasicAckOptions::default()).now_or_never();
            return passed_over.unwrap_or(Ok(())).map_err(|error| error.to_string());
        }
        self.shared.metrics.received.with_label_values(&[Kind::Event.as_str()]).inc();
        let event = match inbound::event(&self.shared, &delivery) {
            Ok(event) => event,
            Err(refusal) => {
                self.shared.refusals.note(&self.shared, queue, refusal);
                // To the dead letters.
                let rejected = self.channel.basic_reject(tag, BasicRejectOptions { requeue: false }).now_or_never();
                return rejected.unwrap_or(Ok(())).map_err(|error| error.to_string());
            }
        };
        let (aggregate, deliveries) = (event.subject, deliveries(&delivery));
        self.deliveries.set(self.deliveries.get().max(deliveries));
        let taken = Taken { tag, deliveries, event };
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

    /// Applies the events of one aggregate in order. Unsettled ones go back with the channel.
    async fn apply(&self, aggregate: Uuid, first: Taken) {
        let mut next = Some(first);
        while let Some(taken) = next {
            let is_settled = tokio::select! {
                biased;
                // The event was given to another consumer.
                () = self.over.cancelled() => false,
                settled = self.settle(&taken) => settled,
            };
            if is_settled {
                let settled = self.channel.basic_ack(taken.tag, BasicAckOptions::default()).now_or_never();
                if let Some(Err(error)) = settled {
                    tracing::debug!(%error, "settling an event failed; the broker redelivers it and the inbox drops it");
                }
            }
            let mut aggregates = self.aggregates.borrow_mut();
            // After a handover began, no further event is started.
            let behind = aggregates.get_mut(&aggregate).filter(|_| is_settled && !self.is_left());
            next = behind.and_then(VecDeque::pop_front);
            if next.is_none() {
                aggregates.remove(&aggregate);
            }
        }
    }

    /// Delivers an event until it is applied or buried; false to hand it over to another node.
    async fn settle(&self, Taken { deliveries, event, .. }: &Taken) -> bool {
        // A delivery that ended with its node says nothing about the event, so only a fifth of them counts: the
        // domain's own attempts decide, and the queue's limit is for events that end the process each time.
        let mut attempts = deliveries / 5;
        let settings = &self.shared.settings;
        let mut untaken = None;
        loop {
            let (again_in, leave_after) = match self.sink.deliver(event, &mut attempts).await {
                Ok(()) => return true,
                Err(Untaken::Later { after, .. }) => (after, settings.patience),
                Err(Untaken::Unknown(reason)) => {
                    let seen_for = self.unknown_types.seen_for(&event.kind, 2 * settings.unknown_for);
                    // Nodes that know such events have had time to take it.
                    if seen_for >= settings.unknown_for && *deliveries > 0 {
                        self.sink.bury(event, reason, attempts + 1).await;
                        return true;
                    }
                    (settings.unknown_for.saturating_sub(seen_for).max(PAUSE), settings.unknown_for / 64)
                }
            };
            let since = *untaken.get_or_insert_with(Instant::now);
            let leave_in = self.leave_after(leave_after).map(|after| after.saturating_sub(since.elapsed()));
            tokio::select! {
                () = sleep(leave_in.map_or(again_in, |leave_in| again_in.min(leave_in))) => {}
                () = self.left() => return false,
            }
            if leave_in.is_some_and(|leave_in| leave_in <= again_in) {
                tracing::warn!(
                    domain = self.sink.subscription().domain, event = %event.kind, id = %event.id,
                    "handing an event over to another node"
                );
                self.leaving.cancel();
                return false;
            }
        }
    }

    /// How long until a handover, if one is allowed at all.
    fn leave_after(&self, first: Duration) -> Option<Duration> {
        let deliveries = self.deliveries.get();
        (deliveries < LEFT_AT_MOST).then(|| first * 2_u32.pow(deliveries))
    }
}

/// Number of earlier deliveries, as a quorum queue counts them.
fn deliveries(delivery: &Delivery) -> u32 {
    let headers = delivery.properties.headers().as_ref();
    match headers.and_then(|headers| headers.inner().get("x-delivery-count")) {
        Some(AMQPValue::LongLongInt(count)) => u32::try_from(*count).unwrap_or(0),
        Some(AMQPValue::LongInt(count)) => u32::try_from(*count).unwrap_or(0),
        _ => 0,
    }
}
