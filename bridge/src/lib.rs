//! The bridge: domains of other nodes, events and live updates, over RabbitMQ.
//!
//! ```no_run
//! # use callboard_bridge::{Bridge, BridgeSettings, ClusterKey};
//! # use callboard_supervisors::{Domain, Runtime};
//! # use callboard_messages::Secret;
//! # async fn node(mut domains: Vec<Domain>, remote: fn(std::sync::Arc<dyn callboard_supervisors::remote::Transport>) -> Domain) -> Result<(), Box<dyn std::error::Error>> {
//! let node = uuid::Uuid::now_v7();
//! let key = ClusterKey::new("a text of at least 32 bytes, the same on every node")?;
//! let bridge = Bridge::start(BridgeSettings::new(Secret::new("amqp://localhost/%2f"), node, key)).await?;
//! domains.insert(0, bridge.domain());        // first, so that it stops last
//! domains.push(remote(bridge.transport()));  // one for every domain that this node does not host
//! let runtime = Runtime::builder()
//!     .node(node)
//!     .transport(bridge.transport())
//!     .events(bridge.events())
//!     .build(domains)
//!     .map_err(|wrong| wrong.join("; "))?;
//! bridge.connect_live(runtime.live());
//! bridge.register_metrics(runtime.metrics())?;
//! runtime.attach().await;                    // on every worker thread
//! // … and at the end:
//! bridge.drain(std::time::Duration::from_secs(10)).await;
//! runtime.stop(std::time::Duration::from_secs(5)).await;
//! # Ok(()) }
//! ```
//!
//! **Operations.** A request goes through the exchange `<prefix>.operations` to the queue of its domain, which all nodes
//! that host the domain share, or to that of one node; its reply goes to the queue of the node that asked. What is ready
//! together on a thread travels in one message, in order; limits, deadlines and refusals stay those of each request. A
//! message expires with the deadline of its requests, and what has expired never runs. A message that was delivered
//! before is only carried out if that can do no harm; otherwise the caller is told that the outcome is unknown.
//!
//! **Events** go to a durable queue of each domain that reacts, directly to those that are known and through
//! `<prefix>.events` to those that only a newer version knows, and what nobody could take to
//! `<prefix>.dead`. One node at a time takes the events of a domain, and leaves them to another when it can't apply them.
//! **Live updates** go to every node, and are lost when a node does not keep up; after any loss the readers of the nodes
//! that missed something are cut, and resume from the store.
//!
//! Every message has a version and a signature of the cluster's key: what has neither is refused and counted, and its
//! sender's word for who the caller is counts for nothing. It also says its sender's time of day. The clocks of the nodes
//! may be 30 s apart; what they differ by beyond that is taken off a request's deadline, so that a request that somebody
//! recorded is not carried out later by a node that never saw it.
//!
//! The connection belongs to an actor that makes another when it is lost; every other actor opens a channel of its own,
//! declares what it uses, and begins anew when the broker closes the channel. Nothing of a lost connection is used
//! again, and nothing waits for the broker without a deadline. A broker that is short of memory blocks who sends: calls
//! are refused and events keep their rows until it is not, and what arrives is still taken, as long as the replies find
//! room here. With each connection the breakers of remote domains begin anew, and calls wait a moment for the hosts, who
//! lost theirs too.
//!
//! A node that freezes keeps its place at the broker for a while. When the cluster declares it gone, calls to it are given
//! up, and its domains are asked at the queues of the hosts that are left until the broker has missed it as well.

mod calls;
mod connection;
mod dead;
mod domain;
mod events;
mod hosts;
mod inbound;
mod key;
mod link;
mod live;
mod metrics;
mod names;
mod outgoing;
mod peers;
mod presence;
mod publisher;
mod replies;
mod requests;
mod settings;
mod shared;
mod subscriber;
mod topology;
mod transport;
mod wire;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use callboard_platform::cluster::Members;
use callboard_supervisors::{Domain, Live, LiveTransport, events::EventTransport, remote::Transport};
use prometheus::Registry;

pub use key::ClusterKey;
pub use settings::BridgeSettings;

use crate::{
    events::Publishing,
    link::{Link, LinkError},
    live::UpdateSender,
    metrics::Metrics,
    shared::Shared,
    transport::Outbound,
};

/// Why a bridge was not started.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// A sentence for each invalid setting.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    /// The broker refuses this node.
    #[error("{0}")]
    Refused(String),
    /// A failure of this machine.
    #[error("the bridge can't be started: {0}")]
    Broken(String),
}

/// The bridge of a node to the others. Cheap to clone.
#[derive(Clone)]
pub struct Bridge(Arc<Shared>);

impl Bridge {
    /// Checks the settings, and asks the broker whether it admits this node. An absent broker is no error: the bridge
    /// connects when it comes back.
    ///
    /// # Errors
    /// [`BridgeError`]. No message shows the URL's password.
    pub async fn start(settings: BridgeSettings) -> Result<Self, BridgeError> {
        settings.validate().map_err(BridgeError::Invalid)?;
        install_tls();
        let broken = |error: &dyn std::fmt::Display| BridgeError::Broken(error.to_string());
        let metrics = Metrics::new().map_err(|error| broken(&error))?;
        let shared = Shared::new(settings, metrics);
        match Link::open(&shared.settings).await {
            Ok(link) => link.close().await,
            Err(LinkError::Refused(reason)) => return Err(BridgeError::Refused(reason)),
            // The actor that owns the connection logs it.
            Err(away @ LinkError::Away(_)) => tracing::debug!(%away, "the node starts without the broker"),
        }
        Ok(Self(Arc::new(shared)))
    }

    /// The transport of operations, for domains that this node does not host and for
    /// [`Bus::ask_at`](callboard_supervisors::Bus::ask_at).
    #[must_use]
    pub fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(Outbound(self.0.clone()))
    }

    /// The transport of events.
    #[must_use]
    pub fn events(&self) -> Arc<dyn EventTransport> {
        Arc::new(Publishing::new(self.0.clone()))
    }

    /// The actors of the bridge, as a domain without operations: the connection, the consumers of replies, events, dead
    /// letters and live updates, and on every worker thread the flusher and the consumer of requests for the hosted
    /// domains. It comes before all other domains, so that it stops after them.
    #[must_use]
    pub fn domain(&self) -> Domain {
        domain::domain(&self.0)
    }

    /// Sets the members of the cluster: calls to one that is declared gone are failed, and idempotent ones go to
    /// another. Once, before the runtime is attached.
    pub fn connect_members(&self, members: Members) {
        self.0.hosts.know(members);
    }

    /// Sends live updates of this node to the others.
    pub fn connect_live(&self, live: &Live) {
        let sender: Arc<dyn LiveTransport> = Arc::new(UpdateSender(self.0.clone()));
        live.connect(sender);
    }

    /// Registers the metrics of the bridge.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register_metrics(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        self.0.metrics.register(registry)
    }

    /// Whether the broker is reachable.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.is_connected()
    }

    /// Takes no more requests and events of other nodes, finishes those it has, and sends their replies. Calls of this
    /// node go on. False when the time `within` was too short; the rest is delivered to other nodes.
    pub async fn drain(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        self.0.draining.cancel();
        let mut quiet = 0;
        // Replies are collected on their threads for a moment before they are sent.
        while quiet < 3 {
            if Instant::now() >= deadline {
                return false;
            }
            let is_quiet = self.0.serving.load(Ordering::Acquire) == 0 && self.0.publisher.is_flushed();
            quiet = if is_quiet { quiet + 1 } else { 0 };
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }
}

/// The cryptography of `amqps`, unless the process has chosen already.
fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
