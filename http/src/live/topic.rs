//! What can be followed, by whom, and what its store still knows: each domain declares its topics in its contract.

use callboard_messages::{CallError, Caller, Code, DomainError};
use callboard_supervisors::{Bus, LiveTopic};
use serde_json::Value;
use uuid::Uuid;

use crate::problem::Problem;

/// Lines asked for at once when a log is caught up with.
pub(super) const LINES: u32 = 1_000;

/// One thing to follow.
#[derive(Clone, Copy)]
pub(super) struct Topic {
    of: LiveTopic,
    id: Uuid,
}

impl Topic {
    /// `<kind>:<id>`, of a kind that a domain has.
    pub(super) fn parse(bus: &Bus, text: &str) -> Result<Self, Problem> {
        let parsed = || {
            let (kind, id) = text.trim().split_once(':')?;
            let of = bus.topics().find(|topic| topic.kind() == kind)?;
            Some(Self { of, id: id.parse().ok()? })
        };
        parsed().ok_or_else(|| {
            let known: Vec<String> = bus.topics().map(|topic| format!("{}:<id>", topic.kind())).collect();
            Problem::invalid(format!("{text:?} is no topic: they are {}", known.join(", ")))
        })
    }

    /// As the hub knows it.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.of.kind(), self.id)
    }

    /// Whether lines are kept in a store, under ids of their own.
    pub(super) const fn has_lines(&self) -> bool {
        self.of.has_lines()
    }

    /// Asks the domain, in the caller's name; the kind and the data of the event that the stream begins with.
    pub(super) async fn admit(&self, bus: &Bus, caller: &Caller) -> Result<Option<(&'static str, Value)>, Problem> {
        Ok(self.of.admit(bus, caller, self.id).await?)
    }

    /// The lines after `after` by their ids, oldest first. What has never written anything may not be known to its store.
    pub(super) async fn lines(&self, bus: &Bus, caller: &Caller, after: u64) -> Result<Vec<(u64, Value)>, Problem> {
        match self.of.lines(bus, caller, self.id, after, LINES).await {
            Err(CallError::Refused(refusal)) if refusal.code() == Code::NotFound => Ok(Vec::new()),
            lines => Ok(lines?),
        }
    }
}
