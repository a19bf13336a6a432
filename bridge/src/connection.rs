//! The actor that owns the connection: it connects, watches the connection, and connects again when it is lost, for as
//! long as the node lives. An absent broker is no failure of the actor: it retries with growing pauses.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use callboard_supervisors::{Backoff, ChildContext, Exit};
use lapin::{Channel, options::QueueDeclareOptions};
use tokio::time::timeout;

use crate::{
    link::{ANSWER_WITHIN, Link, answered},
    presence::{RequestQueue, Whom},
    shared::Shared,
    topology,
};

/// Pauses between attempts to connect.
const PAUSE: Backoff =
    Backoff { first: Duration::from_millis(50), at_most: Duration::from_secs(2), factor: 2.0, jitter: 0.2 };
/// A connection that lasted this long resets the pauses.
const LIVED: Duration = Duration::from_secs(1);
/// Interval of checking the connection.
const LOOK: Duration = Duration::from_millis(100);
/// Interval of probing the broker.
const PROBE: Duration = Duration::from_secs(1);
/// Intervals of counting consumers of request queues: while one has none, and otherwise.
const CENSUS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

pub(crate) async fn run(context: ChildContext, shared: Arc<Shared>) -> Exit {
    let living = async {
        let mut failures = 0;
        loop {
            match Link::open(&shared.settings).await {
                Ok(link) => {
                    let began = Instant::now();
                    let reason = live_with(&shared, Arc::new(link)).await;
                    // A connection that was lost at once counts as a failure.
                    failures = if began.elapsed() >= LIVED { 0 } else { failures + 1 };
                    shared.outage.failed(&reason);
                }
                Err(error) => {
                    shared.outage.failed(&error);
                    failures += 1;
                }
            }
            tokio::time::sleep(PAUSE.delay(failures)).await;
        }
    };
    tokio::select! {
        () = context.stopping() => {}
        () = living => {}
    }
    let link = shared.link();
    shared.publisher.switch(None);
    shared.set_link(None);
    if let Some(link) = link {
        link.close().await;
    }
    Exit::Shutdown
}

/// Uses a connection until it is lost. Returns why.
async fn live_with(shared: &Shared, link: Arc<Link>) -> String {
    shared.presence.forget();
    if let Err(reason) = open_publisher(shared, &link).await {
        return reason;
    }
    shared.metrics.connections.inc();
    shared.set_link(Some(link.clone()));
    tracing::info!("connected to the broker");
    let reason = tokio::select! {
        reason = watch(shared, &link) => reason,
        reason = probe(&link, shared.settings.silence) => reason,
        reason = census(shared, &link) => reason,
    };
    shared.publisher.switch(None);
    shared.set_link(None);
    link.cut();
    reason
}

/// Declares the exchanges, and opens a channel for the publisher.
async fn open_publisher(shared: &Shared, link: &Link) -> Result<(), String> {
    let control = link.incoming().await?;
    topology::exchanges(&control, &shared.names).await?;
    // Before anything is sent: a reply must find its queue, even before the actor that takes it has started.
    let replies = shared.names.replies(shared.node());
    let options = QueueDeclareOptions::default();
    answered(control.queue_declare(replies.as_str().into(), options, topology::transient())).await?;
    let channel = link.outgoing().await?;
    shared.metrics.channels.with_label_values(&["sending"]).inc();
    shared.publisher.switch(Some(channel));
    shared.calls.give_up_before(shared.publisher.channels());
    Ok(())
}

/// Watches the connection, and gives the publisher another channel when it has lost its own.
async fn watch(shared: &Shared, link: &Link) -> String {
    loop {
        let _ = timeout(LOOK, shared.publisher.broken.notified()).await;
        if !link.is_up() {
            return "it was closed".to_owned();
        }
        shared.set_blocked(link.is_blocked());
        if !shared.publisher.is_up() {
            tracing::warn!("the publisher's channel was closed; opening another");
            if let Err(reason) = open_publisher(shared, link).await {
                return reason;
            }
        }
    }
}

/// Gives a broker up that is silent, whatever the socket says.
async fn probe(link: &Link, silence: Duration) -> String {
    loop {
        tokio::time::sleep(PROBE.min(silence)).await;
        match timeout(silence, link.probe()).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => return reason,
            Err(_) => return format!("the broker was silent for {silence:?}"),
        }
    }
}

/// Counts the consumers of the queues that this node sends requests to.
async fn census(shared: &Shared, link: &Link) -> String {
    // Reused until the broker closes it, which it does when a queue does not exist.
    let mut channel = None;
    loop {
        let began = Instant::now();
        for requests in shared.presence.looked_at() {
            let is_absent = match count(shared, link, &mut channel, &requests).await {
                Ok(consumers) => consumers == 0,
                Err(reason) if !link.is_up() => return reason,
                Err(reason) => {
                    tracing::warn!(queue = %requests.to.queue, %reason, "counting the consumers of a queue failed");
                    false
                }
            };
            if requests.set_absent(is_absent) {
                shared.begin_again();
            }
        }
        shared.metrics.waiting.set(i64::try_from(shared.calls.len()).unwrap_or(i64::MAX));
        shared.metrics.serving.set(i64::try_from(shared.serving.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
        let every = if shared.presence.any_absent() { CENSUS.0 } else { CENSUS.1 };
        let pause = every.saturating_sub(began.elapsed()).max(LOOK);
        let _ = timeout(pause, shared.presence.unseen.notified()).await;
    }
}

/// The number of consumers of a queue. A domain's queue is declared if it does not exist; that of a lost node is not.
async fn count(
    shared: &Shared,
    link: &Link,
    kept: &mut Option<Channel>,
    requests: &RequestQueue,
) -> Result<u32, String> {
    let channel = match kept.take().filter(|channel| channel.status().connected()) {
        Some(channel) => channel,
        None => link.incoming().await?,
    };
    let queue = &requests.to.queue;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let counted =
        match timeout(ANSWER_WITHIN, channel.queue_declare(queue.as_ref().into(), passive, topology::none())).await {
            Ok(Ok(declared)) => {
                if matches!(requests.whom, Whom::Domain(_)) {
                    topology::bind(&channel, queue, &shared.names.operations, queue).await?;
                }
                declared.consumer_count()
            }
            // Not found: the broker has closed the channel.
            Ok(Err(_)) if link.is_up() => {
                if matches!(requests.whom, Whom::Domain(_)) {
                    let channel = link.incoming().await?;
                    topology::requests(&channel, &shared.names, queue).await?;
                    *kept = Some(channel);
                }
                return Ok(0);
            }
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the broker did not answer".to_owned()),
        };
    *kept = Some(channel);
    Ok(counted)
}
