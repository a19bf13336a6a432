//! The table: written by who runs instances, read by every request.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use super::{AppRoute, Endpoint, Route, elsewhere::Others, metrics::Families};

type Routes = HashMap<Box<str>, Arc<AppRoute>>;

/// The table of a node; clones share it.
#[derive(Clone)]
pub struct RoutingTable {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) routes: ArcSwap<Routes>,
    /// Instances that were taken out and may still be busy. Its lock orders the writers.
    retired: Mutex<HashMap<Uuid, Weak<Endpoint>>>,
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
                routes: ArcSwap::default(),
                retired: Mutex::default(),
                changes: watch::Sender::new(0),
                metrics: Families::new(),
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
    pub(super) fn forget_unlisted(&self, as_of: u64, is_listed: impl Fn(&str) -> bool) {
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

    pub(super) fn take_out(&self, instance_id: Uuid) {
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
            endpoint.set_retired(false);
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
            endpoint.set_retired(true);
            retired.insert(endpoint.instance_id(), Arc::downgrade(&endpoint));
        }
        drop(retired);
        self.shared.changes.send_modify(|version| *version += 1);
    }
}
