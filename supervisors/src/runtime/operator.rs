//! What an operator sees of the domains, and does about them, from wherever a bus is.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    breaker::Force,
    call::bus::Bus,
    domain::core::DomainCore,
    health::condition::{Away, Part},
    runtime::tree::TreeView,
};

/// Whether a domain may take traffic: what a call would meet now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// The domain.
    pub domain: &'static str,
    /// Whether it may.
    pub ready: bool,
    /// Whether other nodes do its work.
    pub remote: bool,
    /// If it may not, which part is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// If it may not, why not: a sentence that names the part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Bus {
    /// The actor tree as it is.
    #[must_use]
    pub fn tree(&self) -> TreeView {
        TreeView::of_node(self.domains())
    }

    /// Which domains may take traffic.
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

    /// Whether this part, which a domain can't do without, is known to be away: what needs it can be refused without being
    /// tried.
    #[must_use]
    pub fn lacks(&self, domain: &str, part: Part) -> Option<Away> {
        self.domains().iter().find(|core| core.name == domain)?.lacks(part)
    }

    /// Gives a domain that is `unavailable` after too many restarts another chance; false when it is not, when what
    /// it had still stops, or when there is no such domain.
    #[must_use]
    pub fn revive(&self, domain: &str) -> bool {
        self.domains().iter().find(|core| core.name == domain).is_some_and(|core| core.revive())
    }

    /// Holds the breakers of a domain open or closed, or lets them judge again; false when there is no such domain.
    pub fn force_breaker(&self, domain: &str, force: Option<Force>) -> bool {
        let core = self.domains().iter().find(|core| core.name == domain);
        core.is_some_and(|core| {
            core.force_breaker(force);
            true
        })
    }
}
