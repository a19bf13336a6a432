//! What the actors of a bridge have in common.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use callboard_supervisors::{
    ChildContext,
    events::{Catalogue, EventSink},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    calls::Calls, inbound::Refusals, link::Link, live::Updates, metrics::Metrics, names::Names, peers::Peers,
    presence::Presence, publisher::Publisher, settings::BridgeSettings,
};

/// What a caller is told to wait while the broker, or whoever hosts a domain, is away.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A call may wait so long for a connection that was just lost.
const GRACE: Duration = Duration::from_secs(2);

static NEXT: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Shared {
    /// Unique within the process.
    pub(crate) number: u64,
    pub(crate) settings: BridgeSettings,
    pub(crate) names: Names,
    /// Tells the lives of one node apart.
    pub(crate) life: u64,
    messages: AtomicU64,
    pub(crate) peers: Peers,
    pub(crate) calls: Arc<Calls>,
    pub(crate) presence: Presence,
    pub(crate) metrics: Metrics,
    pub(crate) refusals: Refusals,
    pub(crate) publisher: Publisher,
    pub(crate) updates: Updates,
    link: watch::Sender<Option<Arc<Link>>>,
    /// When the connection was lost, unless there is one.
    lost: Mutex<Option<Instant>>,
    pub(crate) blocked: AtomicBool,
    pub(crate) draining: CancellationToken,
    /// Requests of other nodes that are carried out.
    pub(crate) serving: AtomicUsize,
    pub(crate) catalogue: Mutex<Catalogue>,
    pub(crate) sinks: Mutex<Vec<EventSink>>,
    /// Told when an event found no queue.
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
            metrics,
            refusals: Refusals::default(),
            publisher: Publisher::default(),
            updates: Updates::default(),
            link: watch::Sender::new(None),
            lost: Mutex::new(Some(Instant::now())),
            blocked: AtomicBool::new(false),
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
        *self.lost.lock() = if link.is_some() { None } else { Some(Instant::now()) };
        self.metrics.connected.set(i64::from(link.is_some()));
        self.link.send_replace(link);
    }

    /// Whether messages can be sent now.
    pub(crate) fn is_connected(&self) -> bool {
        self.publisher.is_up() && !self.blocked.load(Ordering::Relaxed)
    }

    /// Waits for a connection that was just lost; false when there is none by then.
    pub(crate) async fn wait_connected(&self, deadline: Instant) -> bool {
        let lost = *self.lost.lock();
        let until = lost.map_or_else(|| Instant::now() + GRACE, |lost| lost + GRACE).min(deadline);
        while !self.is_connected() {
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

/// The first and the longest pause of an actor that could not do its work.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// Work that went on for so long was no crash loop.
const LIVED: Duration = Duration::from_secs(10);

/// Does an actor's work over one connection after the other, until it is asked to stop. The work ends with the reason
/// why it can't go on; it is ended when the connection is.
pub(crate) async fn keep(
    context: &ChildContext,
    shared: &Shared,
    work: impl AsyncFn(Arc<Link>) -> String,
) -> callboard_supervisors::Exit {
    let mut pause = PAUSES.0;
    let rounds = async {
        loop {
            let link = shared.next_link(None).await;
            let began = Instant::now();
            let ended = tokio::select! {
                reason = work(link.clone()) => Some(reason),
                () = shared.gone(&link) => None,
            };
            pause = if began.elapsed() >= LIVED { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
            if let Some(reason) = ended {
                tracing::warn!(actor = %context.name, %reason, again_in = ?pause, "a part of the bridge begins anew");
                tokio::time::sleep(pause).await;
            } else {
                pause = PAUSES.0;
            }
        }
    };
    tokio::select! {
        () = context.stopping() => callboard_supervisors::Exit::Shutdown,
        () = rounds => callboard_supervisors::Exit::Normal,
    }
}
