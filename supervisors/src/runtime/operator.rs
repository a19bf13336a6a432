//! The operator's view of the domains, and commands, from any bus.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    breaker::Force,
    call::bus::Bus,
    domain::core::DomainCore,
    health::condition::{Away, Part},
    runtime::tree::TreeView,
};

/// Whether a domain is ready: what a call would meet now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// The domain.
    pub domain: &'static str,
    /// Whether it takes calls.
    pub ready: bool,
    /// Whether it is hosted by other nodes.
    pub remote: bool,
    /// The part that is away, if it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// Why it is not ready: a sentence that names the part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Bus {
    /// The actor tree now.
    #[must_use]
    pub fn tree(&self) -> TreeView {
        TreeView::of_node(self.domains())
    }

    /// Whether each domain is ready.
    #[must_use]
    pub fn ready(&self) -> Vec<Readiness> {
        let readiness = |core: &Arc<DomainCore>| {
            let away = core.condition().map(|condition| condition.away);
            let part = away.as_ref().map(|away| away.part);
            let reason = away.map(|away| away.reason.into_owned());
            Readiness { domain: core.name, ready: part.is_none(), remote: core.transport.is_some(), part, reason }
        };
        self.domains().iter().map(readiness).collect()
    }

    /// Whether a part that a domain requires is known to be away: what needs it can be refused without a try.
    #[must_use]
    pub fn lacks(&self, domain: &str, part: Part) -> Option<Away> {
        self.domains().iter().find(|core| core.name == domain)?.lacks(part)
    }

    /// Restarts a domain that is `unavailable` after too many restarts; false when it is not, when its former children
    /// still stop, or when there is no such domain.
    #[must_use]
    pub fn revive(&self, domain: &str) -> bool {
        self.domains().iter().find(|core| core.name == domain).is_some_and(|core| core.revive())
    }

    /// Forces the breakers of a domain open or closed, `None` ends that; false when there is no such domain.
    pub fn force_breaker(&self, domain: &str, force: Option<Force>) -> bool {
        let core = self.domains().iter().find(|core| core.name == domain);
        core.is_some_and(|core| {
            core.force_breaker(force);
            true
        })
    }
}
