//! The actor tree as operators see it.

use std::borrow::Cow;

use serde::Serialize;

use crate::{
    breaker::State,
    domain::core::DomainCore,
    shard::port::Port,
    supervise::{ChildState, ChildView},
};

/// A node of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TreeView {
    /// Its name.
    pub name: Cow<'static, str>,
    /// `node`, `domain`, `shard` or `child`.
    pub kind: &'static str,
    /// `ready`, `starting`, `restarting`, `unavailable`, `stopping`, `stopped`, `running`, `waiting`, `ended`,
    /// `blocked`, `away` when something that it depends on is, or `refusing` when its breaker is open.
    pub state: &'static str,
    /// Number of restarts.
    pub restarts: u64,
    /// Calls that wait.
    pub queue_depth: usize,
    /// Calls that run.
    pub in_flight: usize,
    /// Calls that may run.
    pub limit: usize,
    /// `closed`, `open`, `half_open`, `forced_open` or `forced_closed`, for what has a breaker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<&'static str>,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The nodes below it.
    pub children: Vec<TreeView>,
}

impl TreeView {
    pub(crate) fn of_node(domains: &[std::sync::Arc<DomainCore>]) -> Self {
        let children: Vec<Self> = domains.iter().map(|core| Self::of_domain(core)).collect();
        let ready = children.iter().all(|domain| domain.state == "ready");
        Self {
            name: "node".into(),
            kind: "node",
            state: if ready { "ready" } else { "unavailable" },
            breaker: None,
            reason: None,
            ..Self::sum(children)
        }
    }

    fn of_domain(core: &DomainCore) -> Self {
        let shards: Vec<Self> = core.ports().iter().map(|port| Self::of_shard(core, port)).collect();
        let condition = core.condition();
        let (state, reason) =
            condition.map_or(("ready", None), |condition| (condition.state, Some(condition.away.reason.into_owned())));
        let background = core.supervisor().map(|supervisor| supervisor.children()).unwrap_or_default();
        let children = shards.into_iter().chain(background.into_iter().map(Self::of_child)).collect();
        let breaker = core.breaker().map(State::as_str);
        Self { name: core.name.into(), kind: "domain", state, breaker, reason, ..Self::sum(children) }
    }

    fn of_shard(core: &DomainCore, port: &Port) -> Self {
        Self {
            name: format!("shard {}", port.index).into(),
            kind: "shard",
            state: if port.pulse.is_blocked() { "blocked" } else { port.state().as_str() },
            restarts: port.restarts(),
            queue_depth: port.queued(),
            in_flight: port.in_flight(),
            limit: port.in_flight_limit,
            breaker: Some(core.breaker_of(port).as_str()),
            reason: None,
            children: port.children().into_iter().map(Self::of_child).collect(),
        }
    }

    fn of_child(child: ChildView) -> Self {
        let ChildView { name, state, restarts, children } = child;
        Self {
            name,
            kind: "child",
            state: match state {
                ChildState::Running => "running",
                ChildState::Waiting => "waiting",
                ChildState::Ended => "ended",
            },
            restarts,
            queue_depth: 0,
            in_flight: 0,
            limit: 0,
            breaker: None,
            reason: None,
            children: children.into_iter().map(Self::of_child).collect(),
        }
    }

    /// The sums of all nodes below.
    fn sum(children: Vec<Self>) -> Self {
        Self {
            name: Cow::Borrowed(""),
            kind: "",
            state: "",
            restarts: children.iter().map(|child| child.restarts).sum(),
            queue_depth: children.iter().map(|child| child.queue_depth).sum(),
            in_flight: children.iter().map(|child| child.in_flight).sum(),
            limit: children.iter().map(|child| child.limit).sum(),
            breaker: None,
            reason: None,
            children,
        }
    }
}
