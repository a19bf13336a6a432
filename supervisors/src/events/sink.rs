//! Where a transport hands in the events for a domain of this node.

use std::{sync::Arc, time::Duration};

use callboard_messages::{
    CallError, Caller, Failure,
    cluster::{Bury, DeadLetter},
};
use serde_json::Value;
use uuid::Uuid;

use super::{CloudEvent, DELIVERIES, Subscription, UNKNOWN_FOR};
use crate::{
    actor_ref::ActorRef, background::BackgroundStats, bus::Bus, clock::Clock, domain_core::DomainCore,
    supervise::Backoff,
};

/// The pauses between the deliveries of an event that could not be applied.
const PAUSE: Backoff =
    Backoff { first: Duration::from_millis(100), at_most: Duration::from_secs(1), factor: 3.0, jitter: 0.2 };
/// The pauses of a domain that cannot take anything now.
const UNAVAILABLE: Duration = Duration::from_secs(1);

/// What one delivery came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// It is applied.
    Applied,
    /// It was applied before.
    Duplicate,
    /// The domain could not take it: overloaded, or without its database. That is not the event's fault and does not
    /// count as a delivery.
    Later {
        /// When to try again.
        after: Duration,
        /// Why, for the log.
        reason: String,
    },
    /// This version of the domain does not react to such events, as the sentence says: a newer one has bound them to its
    /// queue.
    Unknown(String),
    /// It could not be applied, for this reason.
    Failed(String),
}

/// A domain of this node as a transport sees it. Cheap to clone, and may be used on any thread with an actix arbiter:
/// the shard of that thread, if it has one, does the work.
#[derive(Clone)]
pub struct EventSink {
    core: Arc<DomainCore>,
    bus: Bus,
    clock: Clock,
    stats: BackgroundStats,
}

impl EventSink {
    pub(crate) const fn new(core: Arc<DomainCore>, bus: Bus, clock: Clock, stats: BackgroundStats) -> Self {
        Self { core, bus, clock, stats }
    }

    /// The domain, and what it reacts to.
    #[must_use]
    pub fn subscription(&self) -> Subscription {
        self.core.subscription()
    }

    /// Delivers an event once.
    pub async fn attempt(&self, event: CloudEvent) -> Attempt {
        let Some(deliver) = self.core.reaction(&event.kind) else {
            return Attempt::Unknown(format!("this version of {} does not react to {}", self.core.name, event.kind));
        };
        let kind = event.kind.clone();
        let attempt = match deliver(ActorRef::new(self.core.clone()), event).await {
            Ok(true) => Attempt::Applied,
            Ok(false) => Attempt::Duplicate,
            Err(CallError::Failed(
                failure @ (Failure::Overloaded { retry_after } | Failure::Unavailable { retry_after }),
            )) => Attempt::Later { after: retry_after.max(UNAVAILABLE), reason: failure.to_string() },
            Err(CallError::Failed(Failure::Expired)) => {
                Attempt::Later { after: UNAVAILABLE, reason: Failure::Expired.to_string() }
            }
            Err(error) => Attempt::Failed(error.to_string()),
        };
        self.stats.delivered(self.core.name, &kind, attempt.as_str());
        attempt
    }

    /// Delivers an event until it is applied. One that fails too often is buried, as is one that this version does not
    /// know and that is older than [`UNKNOWN_FOR`]; the error is what kept it from being buried. `delivered` says how
    /// often it was delivered before, if the transport knows.
    ///
    /// # Errors
    /// When the dead letter could not be kept: the event must be delivered again.
    pub async fn deliver(&self, event: CloudEvent, delivered: u32) -> Result<(), Failure> {
        let mut attempts = delivered;
        loop {
            match self.attempt(event.clone()).await {
                Attempt::Applied | Attempt::Duplicate => return Ok(()),
                Attempt::Later { after, reason } => {
                    tracing::warn!(domain = self.core.name, event = %event.kind, id = %event.id, %reason, "an event waits");
                    self.clock.sleep(after).await;
                }
                Attempt::Unknown(reason) => {
                    tracing::warn!(domain = self.core.name, event = %event.kind, id = %event.id, %reason, "an event waits");
                    let age = (self.clock.now() - event.time).to_std().unwrap_or_default();
                    self.clock.sleep(UNKNOWN_FOR.saturating_sub(age)).await;
                    return self.bury(written(&event), reason, attempts + 1).await;
                }
                Attempt::Failed(error) => {
                    attempts += 1;
                    tracing::warn!(
                        domain = self.core.name, event = %event.kind, id = %event.id, attempts, %error,
                        "an event could not be applied"
                    );
                    if attempts >= DELIVERIES {
                        return self.bury(written(&event), error, attempts).await;
                    }
                    self.clock.sleep(PAUSE.delay(attempts - 1)).await;
                }
            }
        }
    }

    /// Keeps what this domain could not apply among the dead letters: the event, or the text of what was no event.
    ///
    /// # Errors
    /// When it could not be kept.
    pub async fn bury(&self, event: Value, error: String, attempts: u32) -> Result<(), Failure> {
        // The same event buried again, after a crash, is the same dead letter.
        let id = event.get("id").and_then(Value::as_str).and_then(|id| id.parse::<Uuid>().ok());
        let letter = DeadLetter {
            id: id.map_or_else(Uuid::now_v7, |id| Uuid::from_u128(id.as_u128() ^ fingerprint(self.core.name))),
            domain: self.core.name.to_owned(),
            event,
            error,
            attempts,
            died_at: self.clock.now(),
        };
        let (letter_id, reason) = (letter.id, letter.error.clone());
        match self.bus.ask(&Caller::system(), Bury { letter }).await {
            Ok(()) => {
                self.stats.buried(self.core.name);
                tracing::error!(domain = self.core.name, dead_letter = %letter_id, %reason, "an event was buried");
                Ok(())
            }
            Err(CallError::Failed(failure)) => Err(failure),
            Err(CallError::Refused(error)) => Err(Failure::Internal(format!("a dead letter was refused: {error}"))),
        }
    }
}

impl Attempt {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::Later { .. } => "later",
            Self::Unknown(_) => "unknown",
            Self::Failed(_) => "failed",
        }
    }
}

fn written(event: &CloudEvent) -> Value {
    serde_json::to_value(event).unwrap_or(Value::Null)
}

/// FNV-1a of a domain's name, in the part of a UUIDv7 that is random: what two subscribers bury of one event are two
/// dead letters, both of the event's time.
fn fingerprint(name: &str) -> u128 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    u128::from(hash >> 2)
}
