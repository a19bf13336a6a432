//! The routing table: written by the deploy domain, read by every request.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use super::{AppMetrics, AppRoute, Endpoint, Route, RouteState, elsewhere::Others, metrics::Families};

/// Retired endpoints that may still have requests in flight.
type Retired = HashMap<Uuid, Weak<Endpoint>>;

/// The table of a node; clones share it.
#[derive(Clone)]
pub struct RoutingTable {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    /// Sharded, so that a change costs the same however many apps there are.
    pub(super) routes: DashMap<Box<str>, Arc<AppRoute>>,
    /// Its lock serializes the writers.
    retired: Mutex<Retired>,
    pub(super) changes: watch::Sender<u64>,
    pub(super) metrics: Families,
    pub(super) others: Others,
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
                routes: DashMap::new(),
                retired: Mutex::default(),
                changes: watch::Sender::new(0),
                metrics: Families::new(),
                others: Others::default(),
            }),
        }
    }

    /// Replaces the app's route. Instances that stay keep their count of requests; those that leave get no new one.
    pub fn set(&self, app: &str, route: Route) {
        let mut retired = self.shared.retired.lock();
        let before = self.get(app);
        let before = before.as_ref().map_or(&[][..], |route| &route.endpoints);
        let endpoints = route
            .backends
            .into_iter()
            .map(|backend| {
                let kept = before.iter().find(|endpoint| endpoint.is(backend)).cloned();
                let returned = || retired.get(&backend.instance_id)?.upgrade().filter(|e| e.is(backend));
                kept.or_else(returned).unwrap_or_else(|| Arc::new(Endpoint::of(backend)))
            })
            .collect();
        self.put(&mut retired, app, before, endpoints, route.state);
    }

    /// Removes the app: its address is unknown from now on.
    pub fn remove(&self, app: &str) {
        let mut retired = self.shared.retired.lock();
        if let Some((_, route)) = self.shared.routes.remove(app) {
            retire(&mut retired, &route.endpoints);
        }
        // Before the next writer, which may set the app again and count anew.
        self.shared.metrics.forget(app);
        drop(retired);
        self.has_changed();
    }

    /// Removes unlisted apps without instances here that were added before `as_of`.
    pub(super) fn forget_unlisted(&self, as_of: u64, is_listed: impl Fn(&str) -> bool) {
        let stale = |app: &str, route: &AppRoute| route.endpoints.is_empty() && route.since <= as_of && !is_listed(app);
        let stale: Vec<Box<str>> = {
            let stale = self.shared.routes.iter().filter(|entry| stale(entry.key(), entry.value()));
            stale.map(|entry| entry.key().clone()).collect()
        };
        for app in stale {
            self.remove(&app);
        }
    }

    /// Number of changes so far.
    pub fn version(&self) -> u64 {
        *self.shared.changes.borrow()
    }

    /// The app's route now.
    pub fn get(&self, app: &str) -> Option<Arc<AppRoute>> {
        self.shared.routes.get(app).map(|route| route.clone())
    }

    /// Takes the instance out, if it still is in, and waits until its last request has ended. Returns how many are
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

    /// Watches changes of the table, so that pools can drop connections to retired instances.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    pub(super) fn take_out(&self, instance_id: Uuid) {
        let holds = |route: &AppRoute| route.endpoints.iter().any(|e| e.instance_id() == instance_id);
        let mut retired = self.shared.retired.lock();
        let found = self.shared.routes.iter().find(|entry| holds(entry.value()));
        let Some((app, route)) = found.map(|entry| (entry.key().clone(), entry.value().clone())) else { return };
        let left = route.endpoints.iter().filter(|e| e.instance_id() != instance_id).cloned().collect();
        self.put(&mut retired, &app, &route.endpoints, left, route.state);
    }

    /// Publishes the app's route, then retires what it no longer lists: in this order, see the module.
    fn put(
        &self,
        retired: &mut Retired,
        app: &str,
        before: &[Arc<Endpoint>],
        endpoints: Vec<Arc<Endpoint>>,
        state: RouteState,
    ) {
        for endpoint in &endpoints {
            endpoint.set_retired(false);
            retired.remove(&endpoint.instance_id());
        }
        let is_listed = |before: &&Arc<Endpoint>| endpoints.iter().any(|now| Arc::ptr_eq(now, before));
        let left: Vec<Arc<Endpoint>> = before.iter().filter(|before| !is_listed(before)).cloned().collect();
        let metrics = match self.get(app) {
            Some(route) if route.metrics.exist() => route.metrics.clone(),
            _ if endpoints.is_empty() => AppMetrics::default(),
            _ => self.shared.metrics.of(app),
        };
        let since = self.version() + 1;
        self.shared.routes.insert(app.into(), Arc::new(AppRoute { endpoints, state, metrics, since }));
        retire(retired, &left);
        self.has_changed();
    }

    fn has_changed(&self) {
        self.shared.changes.send_modify(|version| *version += 1);
    }
}

/// Retires these endpoints.
fn retire(retired: &mut Retired, endpoints: &[Arc<Endpoint>]) {
    retired.retain(|_, endpoint| endpoint.strong_count() > 0);
    for endpoint in endpoints {
        endpoint.set_retired(true);
        retired.insert(endpoint.instance_id(), Arc::downgrade(endpoint));
    }
}
