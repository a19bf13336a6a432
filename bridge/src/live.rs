//! Live updates between nodes: lossy, and no loss is unnoticed.
//!
//! A node that begins to listen does not know what it missed, so it cuts its readers: they resume from the store. A
//! node that could not send an update, or whose channel was lost with updates in flight, announces that before anything
//! else, and the others cut their readers. The messages of a node are numbered in order: a node that finds a number
//! missing, because its queue overflowed, cuts its readers too.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use callboard_supervisors::{ChildContext, Exit, Live, LiveEvent, LiveTransport};
use futures_util::{FutureExt, StreamExt};
use lapin::{
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions},
};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{
    inbound,
    link::{Link, answered},
    metrics::Refusal,
    outgoing::{self, Destination},
    shared::{Shared, keep},
    topology,
    wire::{self, Kind},
};

/// Expiry of an update: a node that was away resumes from the store.
const WORTH: Duration = Duration::from_secs(30);
/// Unacknowledged messages to this node.
const PREFETCH: u16 = 1000;
/// Largest update, in bytes: larger ones are read from the store.
const LARGEST: usize = 256 * 1024;
/// Interval of trying to announce losses.
const LOOK: Duration = Duration::from_millis(500);
/// Topics of which losses are remembered; beyond it, a loss is announced for all.
const UNTOLD: usize = 256;
/// The name for all topics.
const EVERY_TOPIC: &str = "";

/// Senders whose last number is remembered.
const SENDERS: usize = 1024;

/// The state of live updates across connections.
#[derive(Default)]
pub(crate) struct Updates {
    untold: Mutex<Untold>,
    /// The number of the last message. Locked while one is sent, so that numbers leave in order.
    pub(crate) number: Mutex<u64>,
}

#[derive(Default)]
struct Untold {
    /// The publisher's channel that was used last.
    channel: u64,
    topics: BTreeSet<String>,
}

impl Untold {
    fn add(&mut self, topic: &str) {
        if topic == EVERY_TOPIC || topic.len() > usize::from(u16::MAX) || self.topics.len() >= UNTOLD {
            self.topics = [EVERY_TOPIC.to_owned()].into();
        } else if !self.topics.contains(EVERY_TOPIC) {
            self.topics.insert(topic.to_owned());
        }
    }
}

impl Updates {
    /// Announces losses to other nodes, if there are any; false when that can't be done now.
    fn announce_losses(&self, shared: &Shared) -> bool {
        let mut untold = self.untold.lock();
        let channel = shared.publisher.channels();
        // Updates in flight over another channel may be lost.
        if untold.channel != channel && std::mem::replace(&mut untold.channel, channel) != 0 {
            untold.add(EVERY_TOPIC);
        }
        if !shared.is_connected() || shared.publisher.is_clogged() {
            return false;
        }
        while let Some(topic) = untold.topics.first() {
            if !outgoing::send_alone(shared, &everybody(), WORTH, |message| wire::write_live(message, topic, &[])) {
                return false;
            }
            untold.topics.pop_first();
        }
        true
    }
}

fn everybody() -> Destination {
    Destination { kind: Kind::Live, queue: "".into() }
}

/// Sends updates to the hubs of other nodes.
pub(crate) struct UpdateSender(pub(crate) Arc<Shared>);

impl LiveTransport for UpdateSender {
    fn tell(&self, topic: &str, event: &LiveEvent) {
        let shared = &self.0;
        let Ok(event) = serde_json::to_vec(event) else { return };
        let fits = event.len() <= LARGEST && topic.len() <= usize::from(u16::MAX);
        if !fits || !shared.updates.announce_losses(shared) {
            shared.metrics.dropped.with_label_values(&[Kind::Live.as_str()]).inc();
            shared.updates.untold.lock().add(topic);
            return;
        }
        outgoing::put(shared, &everybody(), None, WORTH, |message| wire::write_live(message, topic, &event));
    }
}

/// The actor that receives updates of other nodes.
pub(crate) async fn run(context: ChildContext, shared: Arc<Shared>) -> Exit {
    let live = context.live.clone();
    keep(&context, &shared, async |link| hear(&shared, &live, &link).await.err().unwrap_or_default()).await
}

async fn hear(shared: &Shared, live: &Live, link: &Link) -> Result<(), String> {
    let queue = shared.names.live_of(shared.node());
    let channel = link.incoming().await?;
    shared.metrics.channels.with_label_values(&["live"]).inc();
    topology::exchanges(&channel, &shared.names).await?;
    let declare = channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::default(), topology::lossy());
    answered(declare).await?;
    topology::bind(&channel, &queue, &shared.names.live, "").await?;
    answered(channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
    let options = BasicConsumeOptions::default();
    let consume = channel.basic_consume(queue.as_str().into(), "live".into(), options, topology::none());
    let mut heard = answered(consume).await?;
    live.interrupt(None);
    let mut numbers = Numbers::default();
    let mut look = tokio::time::interval(LOOK);
    loop {
        let delivery = tokio::select! {
            delivery = heard.next() => delivery,
            _ = look.tick() => {
                shared.updates.announce_losses(shared);
                continue;
            }
        };
        let Some(delivery) = delivery else { break };
        let delivery = delivery.map_err(|error| error.to_string())?;
        let tag = delivery.delivery_tag;
        open(shared, live, &mut numbers, &queue, delivery);
        if let Some(Err(error)) = channel.basic_ack(tag, BasicAckOptions::default()).now_or_never() {
            return Err(error.to_string());
        }
    }
    Err("the broker ended the consumer of live updates".to_owned())
}

/// The number of the last message of each run of a node.
#[derive(Default)]
struct Numbers(HashMap<(Uuid, u64), u64>);

impl Numbers {
    /// Whether a message is missing between this one and the last of its sender. A late one does not count: it was
    /// missed before.
    fn is_one_missing(&mut self, sender: (Uuid, u64), number: u64) -> bool {
        if self.0.len() >= SENDERS && !self.0.contains_key(&sender) {
            self.0.clear();
        }
        let last = self.0.entry(sender).or_insert(number);
        let is_missing = number > last.saturating_add(1);
        *last = number.max(*last);
        is_missing
    }
}

fn open(shared: &Shared, live: &Live, numbers: &mut Numbers, queue: &str, mut delivery: Delivery) {
    match inbound::open(shared, Kind::Live, "", &mut delivery) {
        // Published by this node.
        Ok(message) if message.opening.node == shared.node() => {}
        Ok(message) => {
            // An older version sends no number.
            let number = message.entries.first().and_then(|entry| message.body.get(entry.clone()));
            let number = number.and_then(wire::read_live_number);
            let sender = (message.opening.node, message.opening.life);
            if number.is_some_and(|number| numbers.is_one_missing(sender, number)) {
                tracing::warn!(node = %sender.0, "live updates were lost; cutting their readers");
                live.interrupt(None);
            }
            let entries = message.entries.iter().skip(usize::from(number.is_some()));
            receive(shared, live, queue, &message.body, entries);
        }
        Err(refusal) => shared.refusals.note(shared, queue, refusal),
    }
}

fn receive<'a>(
    shared: &Shared,
    live: &Live,
    queue: &str,
    body: &[u8],
    entries: impl Iterator<Item = &'a Range<usize>>,
) {
    for entry in entries {
        let told = body.get(entry.clone()).and_then(wire::read_live);
        let malformed = || shared.refusals.note(shared, queue, Refusal::Malformed);
        let Some((topic, event)) = told else {
            malformed();
            continue;
        };
        if event.is_empty() {
            live.interrupt(Some(topic).filter(|topic| *topic != EVERY_TOPIC));
            continue;
        }
        match serde_json::from_slice::<LiveEvent>(event) {
            Ok(event) => live.receive(topic, event),
            Err(_) => malformed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_was_passed_over_is_missed_once_and_each_sender_has_its_own() {
        let (mut numbers, one, other) = (Numbers::default(), (Uuid::nil(), 1), (Uuid::nil(), 2));
        assert!(!numbers.is_one_missing(one, 7), "what was before is not known");
        assert!(!numbers.is_one_missing(one, 8) && !numbers.is_one_missing(other, 1));
        assert!(numbers.is_one_missing(one, 10));
        assert!(
            !numbers.is_one_missing(one, 9) && !numbers.is_one_missing(one, 11) && !numbers.is_one_missing(other, 2)
        );
    }
}
