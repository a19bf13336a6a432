//! Names of exchanges and queues.

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

    /// The queue of requests for a domain, whichever node hosts it.
    pub(crate) fn domain(&self, domain: &str) -> String {
        format!("{}.operations.{domain}", self.prefix)
    }

    /// The queue of requests for one node.
    pub(crate) fn node(&self, node: Uuid) -> String {
        format!("{}.node.{node}", self.prefix)
    }

    /// The queue of replies to the calls of a node.
    pub(crate) fn replies(&self, node: Uuid) -> String {
        format!("{}.replies.{node}", self.prefix)
    }

    /// The queue of live updates for a node.
    pub(crate) fn live_of(&self, node: Uuid) -> String {
        format!("{}.live.{node}", self.prefix)
    }

    /// The queue of events that a domain reacts to.
    pub(crate) fn events_of(&self, domain: &str) -> String {
        format!("{}.events.{domain}", self.prefix)
    }

    /// The domain whose events a queue holds.
    pub(crate) fn subscriber<'a>(&self, queue: &'a str) -> Option<&'a str> {
        queue.strip_prefix(&self.prefix)?.strip_prefix(".events.")
    }
}
