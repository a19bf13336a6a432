//! The relay: a child of every domain with a database, which publishes the domain's outbox.
//!
//! Each node that hosts the domain has one, and a lease lets one of them work: it is taken when events are pending and
//! released when none were for a while. The holder takes the first event of each aggregate, as many aggregates at a
//! time as it may, and the next of an aggregate only when the one before is confirmed and marked. A relay that was
//! paused and goes on after a takeover can at most repeat an event that is in an inbox.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    DELIVERIES, Events, PublishError,
    outbox::{self, Pending},
    react::ATTEMPT_WITHIN,
};
use crate::{
    db::{Database, Databases, Error},
    lease::{Lease, Leases, TTL},
    live::{LiveEvent, LiveStream},
    restart::{Backoff, Exit},
    supervise::{ChildContext, ChildSpec},
    tasks::TaskSet,
};

const LEASE: &str = "outbox";
/// Interval of looking without a nudge: for what a node left that is gone.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Interval of asking for the lease while another holds it.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Interval of measuring the backlog while it works.
const MEASURE_EVERY: Duration = Duration::from_secs(2);
/// How long the lease is kept when nothing is pending.
const LINGER: Duration = Duration::from_secs(1);
/// Events in flight at a time, each of another aggregate.
const AT_ONCE: usize = 64;
/// Aggregates read at a time: enough to find as many idle ones when as many are in flight.
const PAGE: i64 = 2 * AT_ONCE as i64;
/// Time limit of a publish: every attempt of a subscriber may take its whole time, and then the event is buried.
const CONFIRMED_WITHIN: Duration = ATTEMPT_WITHIN.saturating_mul(DELIVERIES + 1);
const PAUSE: Backoff =
    Backoff { first: Duration::from_millis(200), at_most: Duration::from_secs(5), factor: 2.0, jitter: 0.2 };

/// The relay of the domain that keeps its database among these.
pub(crate) fn relay(domain: &'static str, databases: Databases) -> ChildSpec {
    ChildSpec::with_database("relay", databases, domain, move |context, database| {
        Relay::new(domain, database, context).run()
    })
}

struct Relay {
    domain: &'static str,
    database: Database,
    context: ChildContext,
    events: Events,
    leases: Leases,
    lease: Option<Lease>,
    /// Nudges from other nodes with pending events, for the holder of the lease.
    nudges: Option<LiveStream>,
    topic: String,
    /// Changes whenever this process has committed events.
    fillings: watch::Receiver<u64>,
    /// Whether this process has committed events since it last had the lease, or nudged the holder.
    filled: bool,
    /// When the lease was last of use.
    used: Instant,
    measured: Instant,
    under_way: TaskSet<(Pending, Result<(), PublishError>)>,
    busy: HashSet<Uuid>,
    waiting: Waiting,
}

/// Aggregates whose first event could not be published: failures, and time of the next retry.
type Waiting = HashMap<Uuid, (u32, Instant)>;

impl Relay {
    fn new(domain: &'static str, database: Database, context: ChildContext) -> Self {
        let leases = Leases::new(database.clone(), context.clock.clone(), context.bus.node());
        Self {
            domain,
            leases,
            fillings: database.outbox_filled(),
            database,
            events: context.events.clone(),
            nudges: None,
            topic: format!("internal:outbox:{domain}"),
            filled: false,
            used: context.clock.instant(),
            measured: context.clock.instant(),
            context,
            lease: None,
            under_way: TaskSet::default(),
            busy: HashSet::new(),
            waiting: HashMap::new(),
        }
    }

    async fn run(mut self) -> Exit {
        loop {
            let pause = match self.pass().await {
                Ok(pause) => pause,
                Err(error) => {
                    if let Some(error) = error.outside_outage() {
                        tracing::warn!(domain = self.domain, %error, "relaying the outbox failed; retrying");
                    }
                    LOOK_EVERY
                }
            };
            let clock = self.context.clock.clone();
            let due = clock.instant() + pause;
            let lost = async {
                match &self.lease {
                    Some(lease) => lease.lost().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.context.stopping() => break,
                () = lost => {
                    tracing::warn!(domain = self.domain, "the lease on the outbox was lost");
                    self.drop_lease();
                }
                Some(ended) = self.under_way.next() => {
                    if let Err(error) = self.settle(ended).await {
                        if let Some(error) = error.outside_outage() {
                            tracing::warn!(domain = self.domain, %error, "marking events as published failed; they are published again");
                        }
                        // They are published again, and their subscribers' inboxes drop them.
                        self.drop_lease();
                    }
                }
                Ok(()) = self.fillings.changed() => self.filled = true,
                () = nudged(&mut self.nudges) => {}
                () = clock.sleep_until(due) => {}
            }
        }
        self.under_way.clear();
        if let Some(lease) = self.lease.take() {
            lease.release().await;
        }
        Exit::Shutdown
    }

    /// Starts all publishes that may start. Returns how long until something changes by itself.
    async fn pass(&mut self) -> Result<Duration, Error> {
        let now = self.context.clock.instant();
        let is_held = self.lease.as_ref().is_some_and(Lease::is_held);
        if !is_held {
            self.drop_lease();
            if self.measure(now).await? == 0 {
                return Ok(LOOK_EVERY);
            }
            self.lease = self.leases.acquire(LEASE, TTL).await?;
            if self.lease.is_none() {
                if std::mem::take(&mut self.filled) {
                    // The holder is on another node.
                    self.context.live.publish(&self.topic, LiveEvent::new("outbox.filled", serde_json::Value::Null));
                }
                return Ok(ASK_AGAIN);
            }
        } else if now.saturating_duration_since(self.measured) >= MEASURE_EVERY {
            self.measure(now).await?;
        }
        // The stream ends when nudges may have been lost; the pass then finds what they were about.
        self.nudges.get_or_insert_with(|| self.context.live.subscribe(&self.topic, None));
        self.filled = false;
        if self.under_way.len() >= AT_ONCE {
            return Ok(LOOK_EVERY);
        }
        self.begin(now).await
    }

    /// Measures the backlog. Returns the number of pending events.
    async fn measure(&mut self, now: Instant) -> Result<i64, Error> {
        self.measured = now;
        let backlog = outbox::backlog(&self.database).await?;
        let lag = backlog.oldest.map(|oldest| self.context.clock.now() - oldest);
        let lag = lag.and_then(|lag| lag.to_std().ok()).unwrap_or_default();
        self.events.stats.show_outbox(self.domain, backlog.pending, lag.as_secs_f64(), backlog.unroutable);
        Ok(backlog.pending)
    }

    /// Nothing is pending: releases the lease after a while.
    async fn release_when_idle(&mut self, now: Instant) -> Result<Duration, Error> {
        self.waiting.clear();
        let idle = now.saturating_duration_since(self.used);
        if idle < LINGER {
            return Ok(LINGER - idle);
        }
        self.measure(now).await?;
        self.nudges = None;
        if let Some(lease) = self.lease.take() {
            lease.release().await;
        }
        Ok(LOOK_EVERY)
    }

    async fn begin(&mut self, now: Instant) -> Result<Duration, Error> {
        let mut after = Uuid::nil();
        let mut waits = false;
        loop {
            let page = outbox::first_of_each(&self.database, after, PAGE).await?;
            let is_last = i64::try_from(page.len()).unwrap_or(i64::MAX) < PAGE;
            after = page.last().map_or(after, |row| row.aggregate);
            waits |= !page.is_empty();
            for row in page {
                if self.under_way.len() < AT_ONCE && self.may_begin(row.aggregate, now) {
                    self.publish(row);
                }
            }
            if is_last || self.under_way.len() >= AT_ONCE {
                break;
            }
        }
        if !waits {
            return self.release_when_idle(now).await;
        }
        self.used = now;
        Ok(next_look(&self.waiting, &self.busy, now))
    }

    fn may_begin(&self, aggregate: Uuid, now: Instant) -> bool {
        !self.busy.contains(&aggregate) && self.waiting.get(&aggregate).is_none_or(|(_, due)| *due <= now)
    }

    fn publish(&mut self, row: Pending) {
        self.busy.insert(row.aggregate);
        let published = self.events.publish(row.event.0.clone());
        let clock = self.context.clock.clone();
        self.under_way.spawn(async move {
            let within = clock.timeout_at(clock.instant() + CONFIRMED_WITHIN, published).await;
            let late = || Err(PublishError::Unconfirmed(format!("not within {CONFIRMED_WITHIN:?}")));
            (row, within.unwrap_or_else(late))
        });
    }

    /// Marks published events, together with all others that have ended meanwhile.
    async fn settle(&mut self, first: (Pending, Result<(), PublishError>)) -> Result<(), Error> {
        let mut published = Vec::new();
        let mut next = Some(first);
        while let Some((row, outcome)) = next {
            self.busy.remove(&row.aggregate);
            // A subscriber of a newer version may take an event that has no subscriber known here.
            let outcome = match outcome {
                Err(PublishError::Unroutable(_)) if self.events.catalogue().is_unheard(&row.kind) => Ok(()),
                other => other,
            };
            match outcome {
                Ok(()) => {
                    self.waiting.remove(&row.aggregate);
                    published.push(row.id);
                }
                Err(error) => self.postpone(&row, &error).await?,
            }
            next = self.under_way.try_next();
        }
        outbox::mark(&self.database, &published, self.context.clock.now()).await
    }

    /// Postpones an event: it keeps its row, and the later ones of its aggregate wait.
    async fn postpone(&mut self, row: &Pending, error: &PublishError) -> Result<(), Error> {
        let tried = self.waiting.get(&row.aggregate).map_or(0, |(tried, _)| *tried);
        let due = self.context.clock.instant() + PAUSE.delay(tried);
        self.waiting.insert(row.aggregate, (tried + 1, due));
        let (domain, event, id) = (self.domain, &row.kind, row.id);
        match error {
            PublishError::Unroutable(reason) => {
                tracing::error!(domain, %event, %id, aggregate = %row.aggregate, %reason, "an event has no subscriber; retrying");
                outbox::note_trouble(&self.database, row.id, reason).await
            }
            PublishError::Unconfirmed(reason) => {
                tracing::warn!(domain, %event, %id, since = %row.created_at, %reason, "publishing an event failed; retrying");
                Ok(())
            }
            PublishError::Away(reason) => {
                tracing::debug!(domain, %event, %id, since = %row.created_at, %reason, "publishing an event failed by an outage; retrying");
                Ok(())
            }
        }
    }

    fn drop_lease(&mut self) {
        self.under_way.clear();
        self.busy.clear();
        self.waiting.clear();
        self.nudges = None;
        self.lease = None;
    }
}

/// How long until an event may be retried. One in flight does not count: its end wakes the relay.
fn next_look(waiting: &Waiting, busy: &HashSet<Uuid>, now: Instant) -> Duration {
    let idle = waiting.iter().filter(|(aggregate, _)| !busy.contains(aggregate));
    let next = idle.map(|(_, (_, due))| due.saturating_duration_since(now)).min();
    next.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)
}

/// Waits for a nudge; for ever in a relay that does not hold the lease.
async fn nudged(nudges: &mut Option<LiveStream>) {
    match nudges {
        // The stream also ends when it was not read for long, which is a reason to look as well.
        Some(stream) => {
            if stream.next().await.is_none() {
                *nudges = None;
            }
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_does_not_look_again_and_again_while_an_event_is_tried_once_more() {
        let (now, tried, other) = (Instant::now(), Uuid::now_v7(), Uuid::now_v7());
        let second = Duration::from_secs(1);
        let mut waiting = Waiting::from([(tried, (1, now))]);
        assert_eq!(next_look(&waiting, &HashSet::new(), now), Duration::ZERO, "it is due");
        let busy = HashSet::from([tried]);
        assert_eq!(next_look(&waiting, &busy, now + second), LOOK_EVERY);
        waiting.insert(other, (3, now + second));
        assert_eq!(next_look(&waiting, &busy, now), second);
        waiting.insert(other, (7, now + 5 * second));
        assert_eq!(next_look(&waiting, &busy, now), LOOK_EVERY);
    }
}
