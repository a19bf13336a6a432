//! Routes of apps, and the choice of an instance.

use std::sync::Arc;

use uuid::Uuid;

use super::{AppMetrics, Backend, Endpoint, InFlight, RouteState};

/// The route of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The healthy instances. While there is one, the app is served, whatever the state says.
    pub backends: Vec<Backend>,
    /// The state for the page when there is none.
    pub state: RouteState,
}

/// A snapshot of an app's route.
#[derive(Debug)]
pub struct AppRoute {
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) state: RouteState,
    pub(super) metrics: AppMetrics,
    /// The table's version when it was set.
    pub(super) since: u64,
}

impl AppRoute {
    /// The state, for the page when nobody answers.
    pub fn state(&self) -> RouteState {
        self.state
    }

    /// The instances to choose from.
    pub fn backends(&self) -> Vec<Backend> {
        self.endpoints.iter().filter_map(|endpoint| endpoint.backend()).collect()
    }

    /// Requests, streams and WebSockets in flight at all of them.
    pub fn in_flight(&self) -> usize {
        self.endpoints.iter().map(|endpoint| endpoint.in_flight()).sum()
    }

    /// The app's counters.
    pub fn metrics(&self) -> &AppMetrics {
        &self.metrics
    }

    /// Whether an instance of this snapshot was retired since: read the table again before giving up.
    pub fn is_outdated(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.is_retired())
    }

    /// Counts a request in at one of the instances: the less busy of two chosen at random, suspects last, `skip` never.
    pub fn acquire(&self, skip: &[Uuid]) -> Option<InFlight> {
        let usable = |endpoint: &Endpoint| !endpoint.is_retired() && !skip.contains(&endpoint.instance_id());
        loop {
            let chosen =
                self.choose(|endpoint| usable(endpoint) && !endpoint.is_suspect()).or_else(|| self.choose(usable))?;
            let place = Arc::clone(chosen).enter();
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
        // An endpoint may be retired since it was counted: then the other one, or the next round.
        let (first, second) = (fitting().nth(first), fitting().nth(second));
        match (first, second) {
            (Some(first), Some(second)) if second.in_flight() < first.in_flight() => Some(second),
            (first, second) => first.or(second).or_else(|| fitting().next()),
        }
    }
}
