//! How a node ends: readiness off, finish or hand over, stop. Together less than the 25 s a node promises.

use std::time::Duration;

use callboard_bridge::Bridge;
use callboard_http::Stop;
use callboard_supervisors::{Runtime, cluster::Members};

use crate::config::Mode;

/// How long apps may take to begin on other nodes before they end on this one.
const HAND_OVER: Duration = Duration::from_secs(9);
/// How long requests of other nodes may take.
const REQUESTS_OF_NODES: Duration = Duration::from_secs(3);

/// How long requests that are open at the gateway may take.
pub const fn requests(mode: Mode) -> Duration {
    match mode {
        Mode::Dev => Duration::from_secs(10),
        Mode::Serve => Duration::from_secs(4),
    }
}

/// How long the domains, and with them the apps, may take after that.
const fn domains(mode: Mode) -> Duration {
    match mode {
        Mode::Dev => Duration::from_secs(13),
        Mode::Serve => Duration::from_secs(7),
    }
}

/// Ends what serves. `others` are the nodes that what is under way is handed over to.
pub async fn run(gateway: &Stop, runtime: &Runtime, others: Option<(&Members, &Bridge)>) {
    gateway.drain();
    let mode = if others.is_some() { Mode::Serve } else { Mode::Dev };
    if let Some((members, bridge)) = others {
        members.drain();
        // Until they run elsewhere, this node serves its apps and all else.
        if tokio::time::timeout(HAND_OVER, members.released()).await.is_err() {
            tracing::warn!("not everything could be handed over in time; the other nodes take over what is left");
        }
        if !bridge.drain(REQUESTS_OF_NODES).await {
            tracing::warn!("requests of other nodes were not finished in time; they are told so");
        }
    }
    gateway.stop().await;
    runtime.stop(domains(mode)).await;
}
