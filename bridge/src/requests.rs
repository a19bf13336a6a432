//! The actor that consumes requests of other nodes, one on each worker thread: the shards of that thread handle them. A
//! queue is shared by all nodes that host its domain; each prefetches as many messages as its domain may run calls.
//!
//! A message is acknowledged when all of its requests are answered. If this node ends before, the broker redelivers it
//! to another: only idempotent requests are carried out then, and the others fail as unknown.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use callboard_messages::Caller;
use callboard_supervisors::{Bus, ChildContext, Exit, HostedDomain, trace};
use futures_util::{
    FutureExt, StreamExt,
    stream::{self, select_all},
};
use lapin::{
    Channel,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions},
};
use tracing::{Instrument, Span};

use crate::{
    inbound::{self, Message},
    link::{Link, answered},
    metrics::Refusal,
    outgoing::{self, Destination},
    shared::{Shared, keep},
    topology,
    wire::{self, Kind, RequestEntry, Status},
};

/// Interval of checking whether replies can leave again.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) async fn run(context: ChildContext, shared: Arc<Shared>) -> Exit {
    let host = Rc::new(Host { shared: shared.clone(), bus: context.bus.clone(), at_once: Cell::new(1) });
    keep(&context, &shared, async |link| host.take(&link).await.err().unwrap_or_default()).await
}

struct Host {
    shared: Arc<Shared>,
    bus: Bus,
    /// As many pending acknowledgements are sent at once: a part of the prefetch.
    at_once: Cell<usize>,
}

/// A message with unanswered requests.
struct Open {
    shared: Arc<Shared>,
    channel: Channel,
    tag: u64,
    at_once: usize,
    left: Cell<usize>,
}

impl Host {
    async fn take(self: &Rc<Self>, link: &Link) -> Result<(), String> {
        let shared = &self.shared;
        if shared.draining.is_cancelled() {
            return std::future::pending().await;
        }
        let channel = link.incoming().await?;
        shared.metrics.channels.with_label_values(&["requests"]).inc();
        topology::exchanges(&channel, &shared.names).await?;
        let mut consumers = Vec::new();
        let mut tags = Vec::new();
        let hosted = self.bus.hosted();
        let narrowest = hosted.iter().map(|domain| domain.in_flight).min().unwrap_or(1);
        self.at_once.set((narrowest / 8).max(1));
        let widest = hosted.iter().map(|domain| domain.in_flight).max().unwrap_or(1);
        let own = (shared.names.node(shared.node()), widest);
        let queues = hosted.iter().map(|HostedDomain { name, in_flight, .. }| (shared.names.domain(name), *in_flight));
        for (queue, at_most) in queues.chain([own]) {
            topology::requests(&channel, &shared.names, &queue).await?;
            let prefetch = u16::try_from(at_most).unwrap_or(u16::MAX).max(1);
            answered(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
            let consume = channel.basic_consume(
                queue.as_str().into(),
                "".into(),
                BasicConsumeOptions::default(),
                topology::none(),
            );
            let consumer = answered(consume).await?;
            tags.push(consumer.tag());
            let queue: Arc<str> = queue.into();
            // A merged stream does not show the end of one of them, so each ends with a `None`.
            let deliveries = consumer.map(Some).chain(stream::iter([None]));
            consumers.push(deliveries.map(move |delivery| (queue.clone(), delivery)).boxed_local());
        }
        let mut deliveries = select_all(consumers);
        let mut draining = shared.draining.clone().cancelled_owned().boxed();
        loop {
            tokio::select! {
                biased;
                () = &mut draining => break,
                next = deliveries.next() => {
                    let Some((queue, Some(delivery))) = next else {
                        return Err("the broker ended a consumer: its queue was deleted".to_owned());
                    };
                    // Replies that can't leave pile up here: no new request is taken meanwhile.
                    while shared.publisher.is_clogged() && !shared.draining.is_cancelled() {
                        tokio::time::sleep(LOOK).await;
                    }
                    self.receive(&channel, &queue, delivery.map_err(|error| error.to_string())?);
                }
            }
        }
        for tag in tags {
            answered(channel.basic_cancel(tag, BasicCancelOptions::default())).await?;
        }
        // What the broker had sent already is still carried out.
        while let Some((queue, delivery)) = deliveries.next().await {
            if let Some(delivery) = delivery {
                self.receive(&channel, &queue, delivery.map_err(|error| error.to_string())?);
            }
        }
        std::future::pending().await
    }

    fn receive(self: &Rc<Self>, channel: &Channel, queue: &str, mut delivery: Delivery) {
        // The channel is closed, and its deliveries were given to others.
        if !channel.status().connected() {
            return;
        }
        let (tag, redelivered) = (delivery.delivery_tag, delivery.redelivered);
        match inbound::open(&self.shared, Kind::Requests, queue, &mut delivery) {
            Ok(message) if message.entries.is_empty() => {
                outgoing::acknowledge(&self.shared, channel, tag, self.at_once.get());
            }
            Ok(message) => self.begin(channel, tag, redelivered, &message),
            Err(refusal) => {
                self.shared.refusals.note(&self.shared, queue, refusal);
                reject(channel, tag);
            }
        }
    }

    fn begin(self: &Rc<Self>, channel: &Channel, tag: u64, redelivered: bool, message: &Message) {
        let left = Cell::new(message.entries.len());
        let open = Rc::new(Open {
            shared: self.shared.clone(),
            channel: channel.clone(),
            tag,
            at_once: self.at_once.get(),
            left,
        });
        let to = Destination { kind: Kind::Replies, queue: self.shared.names.replies(message.opening.node).into() };
        for entry in &message.entries {
            self.shared.metrics.requests.with_label_values(&["in"]).inc();
            let Some(request) = message.body.get(entry.clone()).and_then(wire::read_request) else {
                self.shared.refusals.note(&self.shared, &to.queue, Refusal::Malformed);
                open.answered();
                continue;
            };
            let left = Duration::from_millis(u64::from(request.left)).saturating_sub(message.waited);
            // The first receiver may have carried it out, however late it is now.
            if redelivered && (left.is_zero() || !request.idempotent) {
                self.shared.metrics.unknown.inc();
                self.reply(&to, request.call, Status::Unknown, &[]);
                open.answered();
            } else if left.is_zero() {
                self.shared.metrics.expired.inc();
                self.reply(&to, request.call, Status::Expired, &[]);
                open.answered();
            } else {
                self.carry_out(request, left, to.clone(), open.clone());
            }
        }
    }

    /// Handles each request as a call of its own: one that waits or is refused does not affect the others.
    fn carry_out(self: &Rc<Self>, request: RequestEntry<'_>, left: Duration, to: Destination, open: Rc<Open>) {
        let call = request.call;
        let deadline = Instant::now() + left;
        let caller = Caller { deadline: Some(deadline), ..request.caller };
        let span = Self::span(request.operation, request.traceparent);
        let served = self.bus.serve(request.operation, caller, request.body);
        let (host, serving) = (self.clone(), Serving::begin(&self.shared));
        let work = async move {
            let reply = served.await;
            if outgoing::fits(&host.shared, reply.len()) {
                host.reply(&to, call, Status::Answered, &reply);
            } else {
                let reason = format!("the reply of {} bytes is too large for the way to another node", reply.len());
                let failure = callboard_messages::Failure::Internal(reason);
                host.reply(&to, call, Status::Answered, &callboard_supervisors::remote::failed(failure));
            }
            open.answered();
            drop(serving);
        };
        actix_rt::spawn(work.instrument(span));
    }

    /// A child of the caller's span, if it has one.
    fn span(operation: &str, traceparent: Option<&str>) -> Span {
        let Some(traceparent) = traceparent else { return Span::none() };
        let span = tracing::debug_span!(
            target: "callboard::bridge",
            "bridge",
            otel.name = operation,
            otel.kind = "consumer",
            operation,
        );
        trace::set_parent(&span, traceparent);
        span
    }

    fn reply(&self, to: &Destination, call: u64, status: Status, body: &[u8]) {
        outgoing::put(&self.shared, to, None, Duration::ZERO, |message| wire::write_reply(message, call, status, body));
    }
}

impl Open {
    fn answered(&self) {
        let left = self.left.get().saturating_sub(1);
        self.left.set(left);
        if left == 0 {
            outgoing::acknowledge(&self.shared, &self.channel, self.tag, self.at_once);
        }
    }
}

/// Counts a running request, for the drain of the node.
struct Serving(Arc<Shared>);

impl Serving {
    fn begin(shared: &Arc<Shared>) -> Self {
        shared.serving.fetch_add(1, Ordering::AcqRel);
        Self(shared.clone())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving.fetch_sub(1, Ordering::AcqRel);
    }
}

fn reject(channel: &Channel, tag: u64) {
    let ended = channel.basic_reject(tag, BasicRejectOptions { requeue: false }).now_or_never();
    if let Some(Err(error)) = ended {
        tracing::debug!(%error, "rejecting a request failed; the broker redelivers it");
    }
}
