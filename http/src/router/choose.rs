//! The choice of an endpoint: an instance of this node, or the node that runs the app.

use std::time::Duration;

use callboard_platform::routing::{AppMetrics, Elsewhere, InFlight, RouteState};
use uuid::Uuid;

use super::{Worker, failure::Failure};

/// How long a request waits for a newer list of routes when the one it met is wrong.
const RENEWED_WITHIN: Duration = Duration::from_secs(1);

/// The chosen endpoint, and the counters of the app on the node that runs it.
pub(super) struct Chosen {
    pub place: InFlight,
    pub metrics: Option<AppMetrics>,
}

/// What was tried for one request.
#[derive(Default)]
pub(super) struct Tried {
    pub ids: Vec<Uuid>,
    pub failed: Option<Failure>,
    renewed: bool,
}

impl Worker {
    /// Chooses for a request that has not been sent yet. A `forwarded` request stays on this node.
    pub(super) async fn choose(&self, app: &str, forwarded: bool, tried: &mut Tried) -> Result<Chosen, Failure> {
        loop {
            let here = self.router.table.get(app);
            if let Some(route) = &here {
                let limit = self.router.settings.app_requests;
                if route.in_flight() >= limit {
                    return Err(Failure::Busy(limit));
                }
                if let Some(place) = route.acquire(&tried.ids) {
                    return Ok(Chosen { place, metrics: Some(route.metrics().clone()) });
                }
                if route.is_outdated() {
                    continue;
                }
            }
            let state = here.map(|route| route.state());
            let (there, is_ours) = self.elsewhere(app);
            // An app of ours without a route here went to another node, which the list may not know yet.
            let is_here = is_ours && state.is_some();
            let failure = match there.as_ref().and_then(|there| there.node.map(|node| (there, node))) {
                Some(_) if forwarded => Failure::Misdirected,
                None if forwarded => state.map_or(Failure::Misdirected, Failure::NoInstance),
                Some((there, node)) if !tried.ids.contains(&node) => match there.acquire() {
                    Some(place) => return Ok(Chosen { place, metrics: None }),
                    None => Failure::NodeGone(self.name_of(node)),
                },
                Some((_, node)) => tried.failed.take().unwrap_or_else(|| Failure::NodeGone(self.name_of(node))),
                None => {
                    let state = state.or(there.map(|there| there.state));
                    tried.failed.take().unwrap_or_else(|| state.map_or(Failure::UnknownApp, Failure::NoInstance))
                }
            };
            let may_be_wrong = matches!(
                failure,
                Failure::UnknownApp
                    | Failure::NodeGone(_)
                    | Failure::NodeRefused(..)
                    // Each of these states ends, maybe just before the request came.
                    | Failure::NoInstance(
                        RouteState::NoRelease | RouteState::Deploying | RouteState::Moving | RouteState::Serving
                    )
            );
            if forwarded || is_here || !may_be_wrong || !self.renew(tried).await {
                return Err(failure);
            }
        }
    }

    /// Waits for a newer list, once per request, and then forgets what was tried.
    pub(super) async fn renew(&self, tried: &mut Tried) -> bool {
        if self.router.hops.is_none() || std::mem::replace(&mut tried.renewed, true) {
            return false;
        }
        let renewed = self.router.table.renew(RENEWED_WITHIN).await;
        if renewed {
            tried.ids.clear();
            tried.failed = None;
        }
        renewed
    }

    /// The app's entry in the list, and whether that is this node: then it names no other.
    fn elsewhere(&self, app: &str) -> (Option<Elsewhere>, bool) {
        let Some(hops) = &self.router.hops else { return (None, false) };
        let Some(mut elsewhere) = self.router.table.elsewhere(app) else { return (None, false) };
        let is_ours = elsewhere.node == Some(hops.members.me().0);
        elsewhere.node = elsewhere.node.filter(|_| !is_ours);
        (Some(elsewhere), is_ours)
    }

    /// The name of a node for people.
    pub(super) fn name_of(&self, node: Uuid) -> String {
        let all = self.router.hops.as_ref().map(|hops| hops.members.all());
        let member = all.as_ref().and_then(|all| all.members.iter().find(|member| member.id.0 == node));
        member.map_or_else(|| node.to_string(), |member| member.name.clone())
    }
}
