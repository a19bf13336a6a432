//! The actor that has the connection: it makes one, watches over it, and when it is lost makes another, for as long as
//! the node lives. That the broker is away is no fault of the actor: it waits, a little longer each time.

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

/// The pauses between attempts to connect.
const PAUSE: Backoff =
    Backoff { first: Duration::from_millis(50), at_most: Duration::from_secs(2), factor: 2.0, jitter: 0.2 };
/// A connection that was lost sooner says nothing about the next.
const LIVED: Duration = Duration::from_secs(1);
/// How often the connection is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often the broker is asked whether it is still there.
const PROBE: Duration = Duration::from_secs(1);
/// How often it is asked who takes requests: while somebody is missed, and otherwise.
const CENSUS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

pub(crate) async fn run(context: ChildContext, shared: Arc<Shared>) -> Exit {
    let living = async {
        let mut failures = 0;
        loop {
            match Link::open(&shared.settings).await {
                Ok(link) => {
                    let began = Instant::now();
                    let reason = live_with(&shared, Arc::new(link)).await;
                    // One that could not be used counts as none.
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

/// Uses a connection until it is lost, and says why it is.
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

/// The exchanges, and a channel to send over.
async fn open_publisher(shared: &Shared, link: &Link) -> Result<(), String> {
    let control = link.incoming().await?;
    topology::exchanges(&control, &shared.names).await?;
    // Before anything is sent: a reply finds its queue also when it is quicker than the actor that takes it.
    let replies = shared.names.replies(shared.node());
    let options = QueueDeclareOptions::default();
    answered(control.queue_declare(replies.as_str().into(), options, topology::transient())).await?;
    let channel = link.outgoing().await?;
    shared.metrics.channels.with_label_values(&["sending"]).inc();
    shared.publisher.switch(Some(channel));
    shared.calls.give_up_before(shared.publisher.channels());
    Ok(())
}

/// Looks at the connection, and gives the publisher another channel when it has lost its own.
async fn watch(shared: &Shared, link: &Link) -> String {
    loop {
        let _ = timeout(LOOK, shared.publisher.broken.notified()).await;
        if !link.is_up() {
            return "it was closed".to_owned();
        }
        shared.set_blocked(link.is_blocked());
        if !shared.publisher.is_up() {
            tracing::warn!("the channel for sending was closed; another one takes its place");
            if let Err(reason) = open_publisher(shared, link).await {
                return reason;
            }
        }
    }
}

/// A broker that is silent is given up, whatever the socket says.
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

/// Looks who takes the requests that this node sends.
async fn census(shared: &Shared, link: &Link) -> String {
    // Asked as long as what is asked for is there: the broker closes it when it is not.
    let mut channel = None;
    loop {
        let began = Instant::now();
        for requests in shared.presence.looked_at() {
            let is_absent = match count(shared, link, &mut channel, &requests).await {
                Ok(consumers) => consumers == 0,
                Err(reason) if !link.is_up() => return reason,
                Err(reason) => {
                    tracing::warn!(queue = %requests.to.queue, %reason, "cannot tell who takes requests");
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

/// How many take from a queue. One of a domain is made if it is not there; one of a node that is gone is not.
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
            // Not found: the channel is closed with it.
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
