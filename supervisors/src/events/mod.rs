//! Events: facts of one domain that others react to, each at least once, with an effect exactly once.
//!
//! [`emit`] writes an event into the domain's **outbox** in the transaction that makes it true. The domain's **relay**
//! publishes it over an [`EventTransport`] and marks it afterwards; an event that nobody takes keeps its row and raises
//! an alert. A subscriber [`React`]s within a transaction that also writes the event's id into its **inbox**, so that a
//! second delivery finds the effect already there. Events of one aggregate travel one at a time, in the order in which
//! they were committed. What a subscriber cannot apply, however often it is delivered, becomes a dead letter.
//!
//! A node alone uses [`InProcess`]: the same outbox, inbox, attempts and dead letters, and no broker.

mod catalogue;
mod emit;
mod in_process;
mod inbox;
mod outbox;
mod react;
mod relay;
mod sink;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use chrono::TimeDelta;
use futures_util::future::LocalBoxFuture;

pub use callboard_messages::{CloudEvent, Event, cluster::DeadLetter};

pub use self::{
    catalogue::{Catalogue, Subscription},
    emit::emit,
    in_process::InProcess,
    react::{Inapplicable, Occurred, React, Stored},
    sink::{Attempt, EventSink, Untaken},
};
use crate::telemetry::background::BackgroundStats;

pub(crate) use self::{
    inbox::prune as prune_inbox,
    outbox::prune as prune_outbox,
    react::{Deliver, Reaction, deliver, local_reaction},
    relay::relay,
};

/// How often an event is delivered to a subscriber before it is a dead letter.
pub const DELIVERIES: u32 = 5;

/// For how long a subscriber remembers that it has applied an event: longer than any broker or operator may take to
/// deliver it again.
pub(crate) const REMEMBERED: TimeDelta = TimeDelta::days(30);
/// How old an event may be when it comes: a day less than what is remembered, for the time it waits for its turn. Whoever
/// recorded an event could have it applied a second time otherwise.
pub const ACCEPTED_FOR: TimeDelta = TimeDelta::days(29);

/// Why an event was not published. Its row stays in the outbox, and it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Nothing takes it: no domain of any version reacts to it, or a queue or a binding is missing, or nobody hosts the
    /// domain.
    #[error("nobody takes it: {0}")]
    Unroutable(String),
    /// It was not sent, or nobody confirmed it in time: it may or may not arrive.
    #[error("not confirmed: {0}")]
    Unconfirmed(String),
    /// It was not sent, because the transport has nowhere to send anything now. The transport itself says so, once.
    #[error("not sent: {0}")]
    Away(String),
}

/// What brings events to the domains that react to them.
pub trait EventTransport: Send + Sync {
    /// Which domains there are and what each reacts to, on this node or others. Told once, before anything is published;
    /// the transport sets its topology up by it, each time it has to.
    fn declare(&self, catalogue: Catalogue);

    /// A domain of this node takes the events it reacts to. Told once for each, before anything is published.
    fn subscribe(&self, sink: EventSink);

    /// Takes an event for every domain that reacts to it, also those of which only a node of another version knows. `Ok`
    /// means that it is safe: it reaches each of them, or their dead letters, whatever crashes. The relay has at most one
    /// event of an aggregate under way.
    fn publish(&self, event: CloudEvent) -> LocalBoxFuture<'static, Result<(), PublishError>>;

    /// Takes an event for this one domain, as an operator asks for with a dead letter.
    fn redeliver(&self, domain: &str, event: CloudEvent) -> LocalBoxFuture<'static, Result<(), PublishError>>;
}

/// The events of a node: where they go, who reacts, and what is counted. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    transport: Arc<dyn EventTransport>,
    catalogue: Catalogue,
    pub(crate) stats: BackgroundStats,
}

impl Events {
    pub(crate) const fn new(transport: Arc<dyn EventTransport>, catalogue: Catalogue, stats: BackgroundStats) -> Self {
        Self { transport, catalogue, stats }
    }

    /// Of no node: nobody reacts to anything.
    #[must_use]
    pub fn detached() -> Self {
        Self::new(Arc::new(InProcess::default()), Catalogue::default(), BackgroundStats::default())
    }

    /// Who reacts to what.
    #[must_use]
    pub const fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Delivers an event again to one domain that could not apply it; its inbox still keeps it from being applied twice.
    ///
    /// # Errors
    /// When it could not be handed over; nothing was lost then.
    pub async fn redeliver(&self, domain: &str, event: CloudEvent) -> Result<(), PublishError> {
        self.transport.redeliver(domain, event).await
    }

    pub(crate) fn publish(&self, event: CloudEvent) -> LocalBoxFuture<'static, Result<(), PublishError>> {
        self.transport.publish(event)
    }
}
