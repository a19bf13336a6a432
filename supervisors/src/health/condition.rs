//! What keeps a domain from taking calls: the domain itself, or a part of the platform that it depends on.
//!
//! A domain names its requirements as it is put together ([`Domain::requires`](crate::Domain::requires)). Each knows
//! without being asked whether it is there: it is watched, also while there are no calls, so that readiness is what the
//! next call would meet and not what the last one met.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

/// The part that is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The domain itself on this node: it starts, stops, is blocked or was given up.
    Domain,
    /// Its breaker lets no call through.
    Breaker,
    /// Its database.
    Database,
    /// The broker, over which other nodes are reached.
    Broker,
    /// A node that hosts it.
    Node,
    /// The store of sources and releases.
    Objects,
}

impl Part {
    pub(crate) const ALL: [Self; 6] =
        [Self::Domain, Self::Breaker, Self::Database, Self::Broker, Self::Node, Self::Objects];

    /// As written in metrics and views.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::Breaker => "breaker",
            Self::Database => "database",
            Self::Broker => "broker",
            Self::Node => "node",
            Self::Objects => "objects",
        }
    }
}

/// A part that is away, and a sentence that names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Away {
    /// The part.
    pub part: Part,
    /// The sentence, without a full stop.
    pub reason: Cow<'static, str>,
}

impl Away {
    /// `part` is away.
    #[must_use]
    pub fn new(part: Part, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { part, reason: reason.into() }
    }
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// A part without which a domain can't answer.
pub trait Requirement: Send + Sync {
    /// The part if it is away, as far as is known. Never waits.
    fn away(&self) -> Option<Away>;
}

impl<F: Fn() -> Option<Away> + Send + Sync> Requirement for F {
    fn away(&self) -> Option<Away> {
        self()
    }
}

/// Why a domain takes no calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    /// One word, for the actor tree.
    pub(crate) state: &'static str,
    pub(crate) away: Away,
}

impl Condition {
    pub(crate) fn new(state: &'static str, part: Part, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { state, away: Away::new(part, reason) }
    }
}
