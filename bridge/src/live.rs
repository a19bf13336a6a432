//! Live updates between the nodes: lossy, never waited for.

use std::{sync::Arc, time::Duration};

use callboard_supervisors::{ChildContext, Exit, Live, LiveEvent, LiveTransport};
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};

use crate::{
    inbound,
    link::{Link, answered},
    metrics::Refusal,
    outgoing::{self, Destination},
    shared::{Shared, keep},
    topology,
    wire::{self, Kind},
};

/// What an update is worth to a node that was away: it resumes from the store.
const WORTH: Duration = Duration::from_secs(30);
/// Messages on their way to this node at the same time.
const PREFETCH: u16 = 1000;
/// The largest update, in bytes: a reader does without.
const LARGEST: usize = 256 * 1024;

/// Tells the hubs of other nodes.
pub(crate) struct Teller(pub(crate) Arc<Shared>);

impl LiveTransport for Teller {
    fn tell(&self, topic: &str, event: &LiveEvent) {
        let shared = &self.0;
        let Ok(event) = serde_json::to_vec(event) else { return };
        let takes = shared.is_connected() && !shared.publisher.is_clogged();
        if !takes || event.len() > LARGEST || topic.len() > usize::from(u16::MAX) {
            shared.metrics.dropped.with_label_values(&[Kind::Live.as_str()]).inc();
            return;
        }
        let to = Destination { kind: Kind::Live, queue: "".into() };
        outgoing::put(shared, &to, None, WORTH, |message| wire::write_live(message, topic, &event));
    }
}

/// The actor that hears what other nodes publish.
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
    while let Some(delivery) = heard.next().await {
        let mut delivery = delivery.map_err(|error| error.to_string())?;
        let tag = delivery.delivery_tag;
        match inbound::open(shared, Kind::Live, "", &mut delivery) {
            // What this node published it knows.
            Ok(message) if message.opening.node == shared.node() => {}
            Ok(message) => receive(shared, live, &queue, &message),
            Err(refusal) => shared.refusals.note(shared, &queue, refusal),
        }
        if let Some(Err(error)) = channel.basic_ack(tag, BasicAckOptions::default()).now_or_never() {
            return Err(error.to_string());
        }
    }
    Err("the broker ended the consumer of live updates".to_owned())
}

fn receive(shared: &Shared, live: &Live, queue: &str, message: &inbound::Message) {
    for entry in &message.entries {
        let told = message.body.get(entry.clone()).and_then(wire::read_live);
        let told = told.and_then(|(topic, event)| Some((topic, serde_json::from_slice::<LiveEvent>(event).ok()?)));
        match told {
            Some((topic, event)) => live.receive(topic, event),
            None => shared.refusals.note(shared, queue, Refusal::Malformed),
        }
    }
}
