//! Endpoints: an instance or another node that answers for an app, with the requests in flight there.

use std::{
    net::SocketAddr,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// An instance that accepts requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The instance; a new process is a new instance, even at an address that was used before.
    pub instance_id: Uuid,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An instance of this node.
    Instance(SocketAddr),
    /// Another node's listener: `host:port`.
    Node(Arc<str>),
}

/// An instance, or another node, shared by all requests.
#[derive(Debug)]
pub struct Endpoint {
    id: Uuid,
    address: Address,
    in_flight: AtomicUsize,
    retired: AtomicBool,
    lost: CancellationToken,
    epoch: Instant,
    /// Milliseconds since `epoch`.
    suspect_until: AtomicU64,
    emptied: Notify,
}

impl Endpoint {
    pub(super) fn new(id: Uuid, address: Address) -> Self {
        Self {
            id,
            address,
            in_flight: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            lost: CancellationToken::new(),
            epoch: Instant::now(),
            suspect_until: AtomicU64::new(0),
            emptied: Notify::new(),
        }
    }

    pub(super) fn of(backend: Backend) -> Self {
        Self::new(backend.instance_id, Address::Instance(backend.address))
    }

    /// The id of the instance or node.
    pub fn instance_id(&self) -> Uuid {
        self.id
    }

    /// Where to connect.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether it is another node.
    pub fn is_node(&self) -> bool {
        matches!(self.address, Address::Node(_))
    }

    pub(super) fn backend(&self) -> Option<Backend> {
        match self.address {
            Address::Instance(address) => Some(Backend { instance_id: self.id, address }),
            Address::Node(_) => None,
        }
    }

    pub(super) fn is(&self, backend: Backend) -> bool {
        self.backend() == Some(backend)
    }

    /// Requests, streams and WebSockets in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Whether it was taken out of the route: it finishes what is in flight, and gets nothing new.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    pub(super) fn set_retired(&self, is_retired: bool) {
        self.retired.store(is_retired, Ordering::SeqCst);
    }

    /// Fails everything in flight: the cluster has declared the node gone.
    pub(super) fn lose(&self) {
        self.set_retired(true);
        self.lost.cancel();
    }

    /// Whether everything in flight was failed.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Waits until everything in flight is failed.
    pub fn lost(&self) -> impl Future<Output = ()> + use<> {
        self.lost.clone().cancelled_owned()
    }

    /// Avoids it for a while, as long as there is another.
    pub fn suspect(&self, pause: Duration) {
        self.suspect_until.store(millis(self.epoch.elapsed() + pause), Ordering::Relaxed);
    }

    pub(super) fn is_suspect(&self) -> bool {
        let until = self.suspect_until.load(Ordering::Relaxed);
        until != 0 && millis(self.epoch.elapsed()) < until
    }

    /// Counts a request in. Whether the endpoint was retired must be checked afterwards: see the module.
    pub(super) fn enter(self: Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(self)
    }

    fn leave(&self) {
        if self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.is_retired() {
            self.emptied.notify_waiters();
        }
    }

    /// Waits until its last request has ended.
    pub(super) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A request in flight; dropping it ends the request for [`RoutingTable::drain`].
#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    /// The endpoint, to keep beyond the request.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Deref for InFlight {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.leave();
    }
}
