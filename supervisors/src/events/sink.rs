//! The entry of a domain of this node for events from a transport.

use std::{sync::Arc, time::Duration};

use callboard_messages::{
    CallError, Caller, Failure,
    cluster::{Bury, DeadLetter},
};
use serde_json::Value;
use uuid::Uuid;

use super::{CloudEvent, DELIVERIES, Subscription};
use crate::{
    call::{actor_ref::ActorRef, bus::Bus},
    domain::core::DomainCore,
    restart::Backoff,
    telemetry::background::BackgroundStats,
    time::{clock::Clock, retry::retry_forever},
    warn_unless_outage,
};

/// Pauses between deliveries of an event that could not be applied.
const PAUSE: Backoff =
    Backoff { first: Duration::from_millis(100), at_most: Duration::from_secs(1), factor: 3.0, jitter: 0.2 };
/// Pause of a domain that can't take anything now.
const UNAVAILABLE: Duration = Duration::from_secs(1);

/// The outcome of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// It is applied.
    Applied,
    /// It was applied before.
    Duplicate,
    /// The domain could not take it: overloaded, without its database, or its disk full. This does not count as a
    /// delivery.
    Later {
        /// When to retry.
        after: Duration,
        /// Why, for the log.
        reason: String,
    },
    /// This version of the domain does not react to such events: a newer one has bound them to its queue.
    Unknown(String),
    /// It could not be applied, for this reason.
    Failed(String),
}

/// Why an event is neither applied nor buried for now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untaken {
    /// The domain takes nothing on this node.
    #[error("{reason}")]
    Later {
        /// When to retry.
        after: Duration,
        /// Why.
        reason: String,
    },
    /// This version of the domain does not react to such events: a newer one may, on another node.
    #[error("{0}")]
    Unknown(String),
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

    /// The domain, and the events it reacts to.
    #[must_use]
    pub fn subscription(&self) -> Subscription {
        self.core.subscription()
    }

    pub(super) async fn pause(&self, pause: Duration) {
        self.clock.sleep(pause).await;
    }

    /// Whether the domain takes events on this node now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.core.condition().is_none()
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
                failure @ (Failure::Overloaded { retry_after }
                | Failure::Unavailable { retry_after }
                | Failure::DiskFull { retry_after }),
            )) => Attempt::Later { after: retry_after.max(UNAVAILABLE), reason: failure.to_string() },
            Err(CallError::Failed(Failure::Expired)) => {
                Attempt::Later { after: UNAVAILABLE, reason: Failure::Expired.to_string() }
            }
            Err(error) => Attempt::Failed(error.to_string()),
        };
        self.stats.delivered(self.core.name, &kind, attempt.as_str());
        attempt
    }

    /// Delivers an event until it is applied, or has failed too often and is buried. `attempts` is the number of
    /// failures so far, and is updated. Dropping the future ends the attempts.
    ///
    /// # Errors
    /// When this node can do neither for now, by no fault of the event.
    pub async fn deliver(&self, event: &CloudEvent, attempts: &mut u32) -> Result<(), Untaken> {
        loop {
            match self.attempt(event.clone()).await {
                Attempt::Applied | Attempt::Duplicate => return Ok(()),
                Attempt::Later { after, reason } => {
                    let is_outage = self.core.condition().is_some_and(|condition| condition.state == "away");
                    let (domain, kind, id) = (self.core.name, &event.kind, event.id);
                    warn_unless_outage!(is_outage, domain, event = %kind, %id, %reason, "an event can't be applied now; retrying");
                    return Err(Untaken::Later { after, reason });
                }
                Attempt::Unknown(reason) => {
                    tracing::warn!(domain = self.core.name, event = %event.kind, id = %event.id, %reason, "an event can't be applied now; retrying");
                    return Err(Untaken::Unknown(reason));
                }
                Attempt::Failed(error) => {
                    *attempts += 1;
                    tracing::warn!(
                        domain = self.core.name, event = %event.kind, id = %event.id, attempts, %error,
                        "an event could not be applied"
                    );
                    if *attempts >= DELIVERIES {
                        self.bury(event, error, *attempts).await;
                        return Ok(());
                    }
                    self.clock.sleep(PAUSE.delay(*attempts - 1)).await;
                }
            }
        }
    }

    /// Keeps an event that this domain could not apply among the dead letters, retrying without end: it has nowhere
    /// else to go, and the events behind it wait, so that the order holds.
    pub async fn bury(&self, event: &CloudEvent, error: String, attempts: u32) {
        let letter = DeadLetter {
            // The same event buried again, after a crash, is the same dead letter.
            id: Uuid::from_u128(event.id.as_u128() ^ fingerprint(self.core.name)),
            domain: self.core.name.to_owned(),
            event: serde_json::to_value(event).unwrap_or(Value::Null),
            error,
            attempts,
            died_at: self.clock.now(),
        };
        let caller = Caller::system();
        let bury = async || self.bus.ask(&caller, Bury { letter: letter.clone() }).await;
        retry_forever(&self.clock, Backoff::constant(UNAVAILABLE), bury, |error, _| {
            tracing::warn!(domain = self.core.name, dead_letter = %letter.id, %error, "storing a dead letter failed; retrying");
        })
        .await;
        self.stats.buried(self.core.name);
        tracing::error!(domain = self.core.name, dead_letter = %letter.id, reason = letter.error, "an event was buried");
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

/// FNV-1a of a domain's name, in the random part of a UUIDv7: what two subscribers bury of one event are two dead
/// letters, both of the event's time.
fn fingerprint(name: &str) -> u128 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    u128::from(hash >> 2)
}
