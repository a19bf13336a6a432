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

/// Deliveries of an event to a subscriber before it is a dead letter.
pub const DELIVERIES: u32 = 5;

/// How long the inbox keeps an event: longer than any broker or operator may take to deliver it again.
pub(crate) const REMEMBERED: TimeDelta = TimeDelta::days(30);
/// Oldest age of an accepted event: a day less than the inbox keeps it, for the time it waits. A recorded event could
/// be replayed otherwise.
pub const ACCEPTED_FOR: TimeDelta = TimeDelta::days(29);

/// Why an event was not published. Its row stays in the outbox, and it is retried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It has no subscriber: no domain of any version reacts to it, or a queue, a binding or the domain's host is
    /// missing.
    #[error("nobody takes it: {0}")]
    Unroutable(String),
    /// It was not sent, or not confirmed in time: it may or may not arrive.
    #[error("not confirmed: {0}")]
    Unconfirmed(String),
    /// It was not sent, because the transport is disconnected, which it logs itself, once.
    #[error("not sent: {0}")]
    Away(String),
}

/// Brings events to the domains that react to them.
pub trait EventTransport: Send + Sync {
    /// Declares all domains and what each reacts to, on this node or others. Called once, before anything is published;
    /// the transport sets up its topology by it, at each connect.
    fn declare(&self, catalogue: Catalogue);

    /// Subscribes a domain of this node. Called once for each, before anything is published.
    fn subscribe(&self, sink: EventSink);

    /// Takes an event for every domain that reacts to it, also those of which only a node of another version knows.
    /// `Ok` means that it is safe: it reaches each of them, or their dead letters, whatever crashes. The relay has at
    /// most one event of an aggregate in flight.
    fn publish(&self, event: CloudEvent) -> LocalBoxFuture<'static, Result<(), PublishError>>;

    /// Takes an event for this one domain, when an operator replays a dead letter.
    fn redeliver(&self, domain: &str, event: CloudEvent) -> LocalBoxFuture<'static, Result<(), PublishError>>;
}

/// The events of a node: transport, subscriptions and counters. Cheap to clone.
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

    /// Events without a node and without subscribers.
    #[must_use]
    pub fn detached() -> Self {
        Self::new(Arc::new(InProcess::default()), Catalogue::default(), BackgroundStats::default())
    }

    /// All subscriptions.
    #[must_use]
    pub const fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Redelivers a dead letter to its domain; the inbox still keeps it from being applied twice.
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
