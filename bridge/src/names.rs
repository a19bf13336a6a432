//! What exchanges and queues are called.

use uuid::Uuid;

/// The names of one cluster.
pub(crate) struct Names {
    prefix: String,
    pub(crate) operations: String,
    pub(crate) live: String,
    pub(crate) events: String,
    /// The exchange of dead letters, and its queue.
    pub(crate) dead: String,
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            operations: format!("{prefix}.operations"),
            live: format!("{prefix}.live"),
            events: format!("{prefix}.events"),
            dead: format!("{prefix}.dead"),
        }
    }

    /// Requests for a domain, whichever node hosts it.
    pub(crate) fn domain(&self, domain: &str) -> String {
        format!("{}.operations.{domain}", self.prefix)
    }

    /// Requests for one node.
    pub(crate) fn node(&self, node: Uuid) -> String {
        format!("{}.node.{node}", self.prefix)
    }

    /// Replies to the calls of a node.
    pub(crate) fn replies(&self, node: Uuid) -> String {
        format!("{}.replies.{node}", self.prefix)
    }

    /// What a node hears of live updates.
    pub(crate) fn live_of(&self, node: Uuid) -> String {
        format!("{}.live.{node}", self.prefix)
    }

    /// Events that a domain reacts to.
    pub(crate) fn events_of(&self, domain: &str) -> String {
        format!("{}.events.{domain}", self.prefix)
    }

    /// The domain whose events a queue holds.
    pub(crate) fn subscriber<'a>(&self, queue: &'a str) -> Option<&'a str> {
        queue.strip_prefix(&self.prefix)?.strip_prefix(".events.")
    }
}
