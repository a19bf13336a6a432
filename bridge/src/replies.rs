//! The actor that consumes the replies to this node's calls.

use std::sync::Arc;

use callboard_supervisors::{ChildContext, Exit, remote::CallFailure};
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};

use crate::{
    inbound,
    link::{Link, answered},
    metrics::Refusal,
    shared::{Shared, keep},
    topology,
    wire::{self, Kind, Status},
};

pub(crate) async fn run(context: ChildContext, shared: Arc<Shared>) -> Exit {
    let queue = shared.names.replies(shared.node());
    keep(&context, &shared, async |link| take(&shared, &queue, &link).await.err().unwrap_or_default()).await
}

async fn take(shared: &Shared, queue: &str, link: &Link) -> Result<(), String> {
    let channel = link.incoming().await?;
    shared.metrics.channels.with_label_values(&["replies"]).inc();
    let declare = channel.queue_declare(queue.into(), QueueDeclareOptions::default(), topology::transient());
    answered(declare).await?;
    // A lost reply is an unknown outcome in any case, which an acknowledgement would not prevent.
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consume = channel.basic_consume(queue.into(), "replies".into(), options, topology::none());
    let mut replies = answered(consume).await?;
    while let Some(delivery) = replies.next().await {
        let mut delivery = delivery.map_err(|error| error.to_string())?;
        match inbound::open(shared, Kind::Replies, queue, &mut delivery) {
            Ok(message) => deliver(shared, queue, &message),
            Err(refusal) => shared.refusals.note(shared, queue, refusal),
        }
    }
    Err("the broker ended the consumer of replies".to_owned())
}

fn deliver(shared: &Shared, queue: &str, message: &inbound::Message) {
    for entry in &message.entries {
        let Some(reply) = wire::read_reply(&message.body, entry.clone()) else {
            shared.refusals.note(shared, queue, Refusal::Malformed);
            continue;
        };
        let answer = match reply.status {
            Status::Answered => Ok(message.body.slice(reply.body)),
            Status::Unknown => Err(CallFailure::Unknown),
            Status::Expired => Err(CallFailure::Expired),
        };
        shared.metrics.requests.with_label_values(&["in"]).inc();
        // The caller may have gone, which is no failure.
        if !shared.calls.answer(reply.call, answer) {
            shared.metrics.refuse(Refusal::Unexpected);
        }
    }
}
