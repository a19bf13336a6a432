//! Which instances answer for an app: what the deploy domain writes and the router reads, on one node. For apps that other
//! nodes run, the router learns the node ([`elsewhere`]).
//!
//! A reader takes a snapshot without a lock and leaves a mark on the instance it chose ([`InFlight`]) for as long as
//! the request, stream or WebSocket lasts. Taking an instance out is two steps that cannot miss each other: the writer
//! publishes the new table, then retires the endpoint; the reader counts itself in, then looks whether the endpoint
//! was retired. So either the reader backs off and reads the new table, or [`RoutingTable::drain`] sees it and waits.
//! A rollout is therefore: [`RoutingTable::set`] without the instance, `drain`, stop the process; nothing is dropped.
//!
//! A backend that refuses a connection is passed over for a moment ([`Endpoint::suspect`]); health proper is the deploy
//! domain's to judge, and what it does not list gets no traffic.

mod elsewhere;
mod metrics;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::SocketAddr,
    ops::Deref,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

pub use callboard_messages::deploy::RouteState;
pub use elsewhere::{Elsewhere, Neighbour};
pub use metrics::AppMetrics;

use elsewhere::Others;

/// An instance that accepts requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The instance; a new process is a new instance, even at an address that was used before.
    pub instance_id: Uuid,
    /// Where it listens.
    pub address: SocketAddr,
}

/// How an app is reached now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The healthy instances. While there is one, the app is served, whatever the state says.
    pub backends: Vec<Backend>,
    /// What to tell a visitor when there is none.
    pub state: RouteState,
}

/// Where connections are made to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An instance of this node.
    Instance(SocketAddr),
    /// Another node's listener: `host:port`.
    Node(Arc<str>),
}

/// One instance, or another node, as every request shares it.
#[derive(Debug)]
pub struct Endpoint {
    id: Uuid,
    address: Address,
    in_flight: AtomicUsize,
    retired: AtomicBool,
    epoch: Instant,
    /// Milliseconds since `epoch`.
    suspect_until: AtomicU64,
    emptied: Notify,
}

impl Endpoint {
    fn new(id: Uuid, address: Address) -> Self {
        Self {
            id,
            address,
            in_flight: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            epoch: Instant::now(),
            suspect_until: AtomicU64::new(0),
            emptied: Notify::new(),
        }
    }

    fn of(backend: Backend) -> Self {
        Self::new(backend.instance_id, Address::Instance(backend.address))
    }

    /// The instance behind it, or the node.
    pub fn instance_id(&self) -> Uuid {
        self.id
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether it is another node.
    pub fn is_node(&self) -> bool {
        matches!(self.address, Address::Node(_))
    }

    fn backend(&self) -> Option<Backend> {
        match self.address {
            Address::Instance(address) => Some(Backend { instance_id: self.id, address }),
            Address::Node(_) => None,
        }
    }

    fn is(&self, backend: Backend) -> bool {
        self.backend() == Some(backend)
    }

    /// Requests, streams and WebSockets it is serving now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Whether it was taken out: finish what is under way, begin nothing.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// Passes it over for a while, as long as another one is left.
    pub fn suspect(&self, pause: Duration) {
        self.suspect_until.store(millis(self.epoch.elapsed() + pause), Ordering::Relaxed);
    }

    fn is_suspect(&self) -> bool {
        let until = self.suspect_until.load(Ordering::Relaxed);
        until != 0 && millis(self.epoch.elapsed()) < until
    }

    fn leave(&self) {
        if self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.is_retired() {
            self.emptied.notify_waiters();
        }
    }

    async fn empty(&self) {
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

/// One request's place at an instance; dropping it ends the request for [`RoutingTable::drain`].
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

/// An app's route as a request reads it.
#[derive(Debug)]
pub struct AppRoute {
    endpoints: Vec<Arc<Endpoint>>,
    state: RouteState,
    metrics: AppMetrics,
    /// The table's version when it was set.
    since: u64,
}

impl AppRoute {
    /// The state, for the page when nobody answers.
    pub fn state(&self) -> RouteState {
        self.state
    }

    /// The instances that may be chosen.
    pub fn backends(&self) -> Vec<Backend> {
        self.endpoints.iter().filter_map(|endpoint| endpoint.backend()).collect()
    }

    /// Where this app's requests are counted.
    pub fn metrics(&self) -> &AppMetrics {
        &self.metrics
    }

    /// Whether an instance of this snapshot was taken out since: read the table again before giving up.
    pub fn is_outdated(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.is_retired())
    }

    /// Takes a place at one of the instances: the less busy of two chosen at random, suspects last, `skip` never.
    pub fn acquire(&self, skip: &[Uuid]) -> Option<InFlight> {
        let usable = |endpoint: &Endpoint| !endpoint.is_retired() && !skip.contains(&endpoint.instance_id());
        loop {
            let chosen =
                self.choose(|endpoint| usable(endpoint) && !endpoint.is_suspect()).or_else(|| self.choose(usable))?;
            chosen.in_flight.fetch_add(1, Ordering::SeqCst);
            let place = InFlight(Arc::clone(chosen));
            if !place.is_retired() {
                return Some(place);
            }
        }
    }

    fn choose(&self, fits: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        let fitting = || self.endpoints.iter().filter(|endpoint| fits(endpoint));
        let count = match self.endpoints.as_slice() {
            [] => return None,
            [only] => return fits(only).then_some(only),
            _ => fitting().count(),
        };
        if count < 2 {
            return fitting().next();
        }
        let first = rand::random_range(0..count);
        let second = (first + rand::random_range(1..count)) % count;
        // An endpoint may have stopped fitting since it was counted: then the other one, or the next round.
        let (first, second) = (fitting().nth(first), fitting().nth(second));
        match (first, second) {
            (Some(first), Some(second)) if second.in_flight() < first.in_flight() => Some(second),
            (first, second) => first.or(second).or_else(|| fitting().next()),
        }
    }
}

type Routes = HashMap<Box<str>, Arc<AppRoute>>;

/// The table of a node; clones share it.
#[derive(Clone)]
pub struct RoutingTable {
    shared: Arc<Shared>,
}

struct Shared {
    routes: ArcSwap<Routes>,
    /// Instances that were taken out and may still be busy. Its lock orders the writers.
    retired: Mutex<HashMap<Uuid, Weak<Endpoint>>>,
    changes: watch::Sender<u64>,
    metrics: metrics::Families,
    others: Others,
}

impl Default for RoutingTable {
    fn default() -> Self {
        Self::new()
    }
}

impl RoutingTable {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                routes: ArcSwap::default(),
                retired: Mutex::default(),
                changes: watch::Sender::new(0),
                metrics: metrics::Families::new(),
                others: Others::default(),
            }),
        }
    }

    /// Replaces the app's route. Instances that stay keep their count of requests; those that left get no new one.
    pub fn set(&self, app: &str, route: Route) {
        self.write(|routes, retired| {
            let before = routes.get(app).map_or(&[][..], |route| &route.endpoints);
            let endpoints = route
                .backends
                .into_iter()
                .map(|backend| {
                    let kept = before.iter().find(|endpoint| endpoint.is(backend)).cloned();
                    let returned = || retired.get(&backend.instance_id)?.upgrade().filter(|e| e.is(backend));
                    kept.or_else(returned).unwrap_or_else(|| Arc::new(Endpoint::of(backend)))
                })
                .collect();
            let metrics = self.shared.metrics.of(app);
            let since = self.version() + 1;
            routes.insert(app.into(), Arc::new(AppRoute { endpoints, state: route.state, metrics, since }));
        });
    }

    /// Forgets the app: its address is unknown from now on.
    pub fn remove(&self, app: &str) {
        self.write(|routes, _| {
            routes.remove(app);
        });
        self.shared.metrics.forget(app);
    }

    /// Forgets the apps of which nothing runs here, that were known before `as_of` and that are listed nowhere.
    fn forget_unlisted(&self, as_of: u64, is_listed: impl Fn(&str) -> bool) {
        let stale = |app: &str, route: &AppRoute| route.endpoints.is_empty() && route.since <= as_of && !is_listed(app);
        let stale: Vec<Box<str>> = {
            let routes = self.shared.routes.load();
            routes.iter().filter(|(app, route)| stale(app, route)).map(|(app, _)| app.clone()).collect()
        };
        for app in stale {
            self.remove(&app);
        }
    }

    /// How often the table was changed.
    pub fn version(&self) -> u64 {
        *self.shared.changes.borrow()
    }

    /// The app's route now.
    pub fn get(&self, app: &str) -> Option<Arc<AppRoute>> {
        self.shared.routes.load().get(app).cloned()
    }

    /// Takes the instance out, if it still is in, and waits until its last request has ended. Answers how many are
    /// still in flight after `within`: 0, unless long streams or WebSockets outlasted it.
    pub async fn drain(&self, instance_id: Uuid, within: Duration) -> usize {
        self.take_out(instance_id);
        let endpoint = self.shared.retired.lock().get(&instance_id).and_then(Weak::upgrade);
        let Some(endpoint) = endpoint else { return 0 };
        match tokio::time::timeout(within, endpoint.empty()).await {
            Ok(()) => 0,
            Err(_) => endpoint.in_flight(),
        }
    }

    /// Resolves whenever the table has changed: whoever keeps connections can let those to retired instances go.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    fn take_out(&self, instance_id: Uuid) {
        let holds = |route: &AppRoute| route.endpoints.iter().any(|e| e.instance_id() == instance_id);
        if !self.shared.routes.load().values().any(|route| holds(route)) {
            return;
        }
        self.write(|routes, _| {
            for route in routes.values_mut().filter(|route| holds(route)) {
                *route = Arc::new(AppRoute {
                    endpoints: route.endpoints.iter().filter(|e| e.instance_id() != instance_id).cloned().collect(),
                    state: route.state,
                    metrics: route.metrics.clone(),
                    since: route.since,
                });
            }
        });
    }

    /// Publishes a changed copy, then retires what it no longer lists: in this order, see the module.
    fn write(&self, change: impl FnOnce(&mut Routes, &HashMap<Uuid, Weak<Endpoint>>)) {
        let mut retired = self.shared.retired.lock();
        let before = self.shared.routes.load_full();
        let mut after = Routes::clone(&before);
        change(&mut after, &retired);
        let listed: HashMap<Uuid, &Arc<Endpoint>> =
            after.values().flat_map(|route| &route.endpoints).map(|e| (e.instance_id(), e)).collect();
        for endpoint in listed.values() {
            endpoint.retired.store(false, Ordering::SeqCst);
        }
        let left: Vec<Arc<Endpoint>> = before
            .values()
            .flat_map(|route| &route.endpoints)
            .filter(|e| listed.get(&e.instance_id()).is_none_or(|now| !Arc::ptr_eq(now, e)))
            .cloned()
            .collect();
        retired.retain(|instance_id, endpoint| endpoint.strong_count() > 0 && !listed.contains_key(instance_id));
        drop(listed);
        self.shared.routes.store(Arc::new(after));
        for endpoint in left {
            endpoint.retired.store(true, Ordering::SeqCst);
            retired.insert(endpoint.instance_id(), Arc::downgrade(&endpoint));
        }
        drop(retired);
        self.shared.changes.send_modify(|version| *version += 1);
    }
}
