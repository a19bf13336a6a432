//! The end of a node: readiness off, finish or hand over, stop, close.
//!
//! A node promises to be gone 25 s after it is told to stop. Each step has a deadline, counted from then; time that one
//! leaves is the later ones'. So an unresponsive server or client delays the end and does not add to it.

use std::{
    future::Future,
    thread,
    time::{Duration, Instant},
};

use callboard_bridge::Bridge;
use callboard_http::Stop;
use callboard_platform::cluster::Members;
use callboard_supervisors::{Runtime, db::Databases};

use crate::config::Mode;

/// Deadlines of the steps, counted from the begin of the drain.
struct DrainDeadlines {
    /// Of the handover of apps to other nodes, or their end on this one.
    hand_over: Duration,
    /// Of requests of other nodes.
    requests_of_nodes: Duration,
    /// Of open requests at the gateway.
    requests: Duration,
    /// Of the stop of the domains, and with them the apps.
    domains: Duration,
    /// Of closing the connections to databases. The rest is for the last traces.
    databases: Duration,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const DEV: DrainDeadlines = DrainDeadlines {
    hand_over: Duration::ZERO,
    requests_of_nodes: Duration::ZERO,
    requests: seconds(10),
    domains: seconds(19),
    databases: seconds(21),
};
const SERVE: DrainDeadlines = DrainDeadlines {
    hand_over: seconds(8),
    requests_of_nodes: seconds(11),
    requests: seconds(15),
    domains: seconds(19),
    databases: seconds(21),
};
/// When the process ends itself, whatever still holds it.
const END: Duration = seconds(24);

/// Time for open requests at the gateway.
pub const fn requests(mode: Mode) -> Duration {
    match mode {
        Mode::Dev => DEV.requests,
        Mode::Serve => SERVE.requests.saturating_sub(SERVE.requests_of_nodes),
    }
}

/// The time since the node was told to stop.
struct Since(Instant);

impl Since {
    /// The time left until this deadline.
    fn left(&self, until: Duration) -> Duration {
        until.saturating_sub(self.0.elapsed())
    }

    /// Awaits `what` until this deadline. Returns whether it was done.
    async fn until(&self, until: Duration, what: impl Future<Output = ()>) -> bool {
        tokio::time::timeout(self.left(until), what).await.is_ok()
    }
}

/// Drains and stops the node. `others` are the nodes that it hands over to.
pub async fn run(gateway: &Stop, runtime: &Runtime, databases: &Databases, others: Option<(&Members, &Bridge)>) {
    let since = Since(Instant::now());
    end_at_last();
    gateway.drain();
    let deadlines = if others.is_some() { SERVE } else { DEV };
    if let Some((members, bridge)) = others {
        members.drain();
        // Until they run elsewhere, this node serves its apps and everything else.
        if !since.until(deadlines.hand_over, members.released()).await {
            tracing::warn!("not everything could be handed over in time; the other nodes take over what is left");
        }
        if !bridge.drain(since.left(deadlines.requests_of_nodes)).await {
            tracing::warn!("requests of other nodes were not finished in time; they are told so");
        }
    }
    if !since.until(deadlines.requests, gateway.stop()).await {
        tracing::warn!("open requests were not finished in time");
    }
    runtime.stop(since.left(deadlines.domains)).await;
    databases.close_within(since.left(deadlines.databases)).await;
}

#[expect(clippy::disallowed_methods, reason = "on a thread that does nothing else")]
fn sleep(time: Duration) {
    thread::sleep(time);
}

/// Ends the process although a thread is blocked for good, or a server is silent.
fn end_at_last() {
    let ending = thread::Builder::new().name("end".to_owned()).spawn(|| {
        sleep(END);
        tracing::error!(after = ?END, "something could not be stopped; the node ends without it");
        std::process::exit(1);
    });
    if let Err(error) = ending {
        tracing::warn!(%error, "nothing watches over the end of this node");
    }
}
