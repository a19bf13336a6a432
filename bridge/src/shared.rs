//! State that the actors of a bridge share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use callboard_supervisors::{
    Away, Backoff, ChildContext, Outage, Part,
    events::{Catalogue, EventSink},
    remote::Target,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    calls::Calls,
    events::Channels,
    hosts::Hosts,
    inbound::Refusals,
    link::Link,
    live::Updates,
    metrics::Metrics,
    names::Names,
    peers::Peers,
    presence::{Presence, RequestQueue},
    publisher::Publisher,
    settings::BridgeSettings,
};

/// Retry delay for callers while the broker, or every host of a domain, is away.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a broker that answers takes nothing.
const BLOCKED: &str = "it takes no messages for now, because it is short of memory or disk";

/// How long a call waits for a connection that was just lost or blocked.
const GRACE: Duration = Duration::from_secs(2);

/// How much later than this node the hosts may reconnect.
const COMING_BACK: Duration = Duration::from_secs(3);

static NEXT: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Shared {
    /// Unique within the process.
    pub(crate) number: u64,
    pub(crate) settings: BridgeSettings,
    pub(crate) names: Names,
    /// Distinguishes the runs of one node.
    pub(crate) life: u64,
    messages: AtomicU64,
    pub(crate) peers: Peers,
    pub(crate) calls: Arc<Calls>,
    pub(crate) presence: Presence,
    pub(crate) hosts: Hosts,
    /// The outage of the broker: unreachable, or blocking publishers.
    pub(crate) outage: Outage,
    pub(crate) metrics: Metrics,
    pub(crate) refusals: Refusals,
    pub(crate) publisher: Publisher,
    pub(crate) confirms: Channels,
    pub(crate) updates: Updates,
    link: watch::Sender<Option<Arc<Link>>>,
    /// Whether messages can be sent, and since when.
    sending: Mutex<(bool, Instant)>,
    blocked: AtomicBool,
    /// Number of times that calls became possible again.
    begun: AtomicU64,
    pub(crate) draining: CancellationToken,
    /// Requests of other nodes in progress.
    pub(crate) serving: AtomicUsize,
    pub(crate) catalogue: Mutex<Catalogue>,
    pub(crate) sinks: Mutex<Vec<EventSink>>,
    /// Notified when an event found no queue.
    pub(crate) missing: Notify,
}

impl Shared {
    pub(crate) fn new(settings: BridgeSettings, metrics: Metrics) -> Self {
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            names: Names::new(&settings.prefix),
            life: rand::random(),
            messages: AtomicU64::new(1),
            peers: Peers::new(),
            calls: Arc::new(Calls::new(settings.calls)),
            presence: Presence::default(),
            hosts: Hosts::default(),
            outage: Outage::new("RabbitMQ"),
            metrics,
            refusals: Refusals::default(),
            publisher: Publisher::default(),
            confirms: Channels::default(),
            updates: Updates::default(),
            link: watch::Sender::new(None),
            sending: Mutex::new((false, Instant::now())),
            blocked: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            draining: CancellationToken::new(),
            serving: AtomicUsize::new(0),
            catalogue: Mutex::default(),
            sinks: Mutex::default(),
            missing: Notify::new(),
            settings,
        }
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.messages.fetch_add(1, Ordering::Relaxed)
    }

    /// The connection, if there is one.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        self.link.borrow().clone()
    }

    pub(crate) fn set_link(&self, link: Option<Arc<Link>>) {
        // A new connection is not blocked.
        self.blocked.store(false, Ordering::Relaxed);
        self.metrics.blocked.set(0);
        self.set_sending(link.is_some());
        self.metrics.connected.set(i64::from(link.is_some()));
        if link.is_some() {
            self.outage.works();
        }
        self.link.send_replace(link);
    }

    /// Notes whether the broker blocks publishers.
    pub(crate) fn set_blocked(&self, blocked: bool) {
        if self.blocked.swap(blocked, Ordering::Relaxed) == blocked {
            return;
        }
        self.metrics.blocked.set(i64::from(blocked));
        self.set_sending(!blocked);
        if blocked {
            self.outage.failed(&BLOCKED);
        } else {
            self.outage.works();
        }
    }

    /// Why messages can't be sent now.
    pub(crate) fn away(&self) -> Option<Away> {
        if self.blocked.load(Ordering::Relaxed) {
            return Some(Away::new(Part::Broker, format!("RabbitMQ can't be used: {BLOCKED}")));
        }
        (!self.publisher.is_up()).then(|| Away::new(Part::Broker, "RabbitMQ can't be reached"))
    }

    /// The queue of requests to a domain or a node.
    pub(crate) fn request_queue(&self, domain: &'static str, target: Target) -> Arc<RequestQueue> {
        self.presence.request_queue(&self.names, domain, target)
    }

    fn set_sending(&self, sending: bool) {
        *self.sending.lock() = (sending, Instant::now());
        if sending {
            self.begin_again();
        }
    }

    /// Notes that calls are possible again.
    pub(crate) fn begin_again(&self) {
        self.begun.fetch_add(1, Ordering::AcqRel);
    }

    /// A number that changes each time that calls become possible again.
    pub(crate) fn times_begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether messages can be sent now.
    pub(crate) fn is_connected(&self) -> bool {
        self.publisher.is_up() && !self.blocked.load(Ordering::Relaxed)
    }

    /// Waits for a connection that was just lost; false when there is none by then.
    pub(crate) async fn wait_connected(&self, deadline: Instant) -> bool {
        let (sending, since) = *self.sending.lock();
        // With a connection, only a channel was lost, just now.
        let lost = if sending { Instant::now() } else { since };
        let until = deadline.min(lost + GRACE);
        while !self.is_connected() {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// Waits for a consumer, which lost the connection when this node did; false when there is none by then.
    pub(crate) async fn wait_present(&self, requests: &RequestQueue, deadline: Instant) -> bool {
        let (_, since) = *self.sending.lock();
        let until = deadline.min(since + COMING_BACK);
        while requests.is_absent() {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// Waits for a connection other than the one with the number `seen`, or for any.
    pub(crate) async fn next_link(&self, seen: Option<u64>) -> Arc<Link> {
        let mut links = self.link.subscribe();
        loop {
            let link = links.borrow_and_update().clone();
            if let Some(link) = link.filter(|link| Some(link.number) != seen && link.is_up()) {
                return link;
            }
            if links.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until `link` is no longer the connection.
    pub(crate) async fn gone(&self, link: &Link) {
        let mut links = self.link.subscribe();
        let is_other = |now: &Option<Arc<Link>>| now.as_ref().is_none_or(|now| now.number != link.number);
        if links.wait_for(is_other).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn node(&self) -> Uuid {
        self.settings.node
    }
}

/// Pauses of an actor that failed.
const PAUSES: Backoff =
    Backoff { first: Duration::from_millis(100), at_most: Duration::from_secs(3), factor: 2.0, jitter: 0.2 };
/// A run of this length resets the pauses.
const LIVED: Duration = Duration::from_secs(10);

/// Runs an actor's work over one connection after the other, until it is asked to stop. The work returns the reason why
/// it can't go on; it is dropped when the connection is lost.
pub(crate) async fn keep(
    context: &ChildContext,
    shared: &Shared,
    work: impl AsyncFn(Arc<Link>) -> String,
) -> callboard_supervisors::Exit {
    let mut failures = 0;
    let rounds = async {
        loop {
            let link = shared.next_link(None).await;
            let began = Instant::now();
            let ended = tokio::select! {
                reason = work(link.clone()) => Some(reason),
                () = shared.gone(&link) => None,
            };
            failures = if began.elapsed() >= LIVED { 0 } else { failures + 1 };
            if let Some(reason) = ended.filter(|_| link.is_up()) {
                let pause = PAUSES.delay(failures);
                tracing::warn!(actor = %context.name, %reason, again_in = ?pause, "a part of the bridge failed; restarting it");
                tokio::time::sleep(pause).await;
            } else {
                // The connection is lost, which is logged once.
                shared.gone(&link).await;
                failures = 0;
            }
        }
    };
    tokio::select! {
        () = context.stopping() => callboard_supervisors::Exit::Shutdown,
        () = rounds => callboard_supervisors::Exit::Normal,
    }
}
