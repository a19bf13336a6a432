//! Membership: joining, renewing, watching the others, leaving.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use callboard_messages::{NodeId, cluster::NodeState};
use callboard_platform::cluster::{Member, Members};
use callboard_supervisors::{
    ChildContext, ChildSpec, Exit, LiveEvent, Outage,
    db::{Database, Databases, Error},
};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt;

use crate::{
    ClusterMetrics, ClusterSettings, DOMAIN, Seat,
    rows::{self, NodeRow, Sign},
    seat,
};

/// Topic of nudges between nodes after a change.
const TOPIC: &str = "internal:cluster";
/// Nudges by a node that has just joined.
const NUDGES: u32 = 3;
/// How long a gone node is listed.
const SHOWN: TimeDelta = TimeDelta::hours(24);

/// The child that renews this node's row and watches the others'.
pub(crate) fn child(
    settings: ClusterSettings,
    databases: Databases,
    members: Members,
    seat: Seat,
    metrics: ClusterMetrics,
) -> ChildSpec {
    ChildSpec::with_database("membership", databases, DOMAIN, move |context, database| {
        let (members, metrics) = (members.clone(), metrics.clone());
        let watch = Watch {
            settings,
            database,
            members,
            seat,
            metrics,
            context,
            sightings: Sightings::default(),
            passes: 0,
            outage: Outage::new("the place of this node in the cluster"),
        };
        watch.run()
    })
}

struct Watch {
    settings: ClusterSettings,
    database: Database,
    members: Members,
    seat: Seat,
    metrics: ClusterMetrics,
    context: ChildContext,
    sightings: Sightings,
    /// Number of passes since it has joined.
    passes: u32,
    /// The outage of the store, while the row can't be renewed.
    outage: Outage,
}

impl Watch {
    async fn run(mut self) -> Exit {
        let mut nudges = self.context.live.subscribe(TOPIC, None);
        let mut changes = self.members.clone();
        let mut was_draining = self.members.is_draining();
        loop {
            let clock = self.context.clock.clone();
            let deadline = clock.instant() + look_within(&self.settings);
            match clock.timeout_at(deadline, self.pass()).await {
                Some(Ok(true)) => drop(self.outage.works()),
                Some(Ok(false)) => {
                    // The process is ended by whoever runs it.
                    self.context.stopping().await;
                    return Exit::Shutdown;
                }
                Some(Err(error)) => drop(self.outage.failed(&error)),
                None => drop(self.outage.failed(&"the database did not answer in time")),
            }
            // Counted from now: passes by nudges must not delay the next renewal.
            let due = clock.instant() + self.settings.beat;
            loop {
                tokio::select! {
                    () = self.context.stopping() => return self.leave().await,
                    () = self.context.clock.sleep_until(due) => break,
                    nudge = nudges.next() => match nudge {
                        None => nudges = self.context.live.subscribe(TOPIC, None),
                        Some(Ok(nudge)) if nudge.data == self.nudge() => {}
                        Some(_) => break,
                    },
                    () = changes.changed() => {
                        if self.members.is_draining() != was_draining {
                            was_draining = self.members.is_draining();
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Joins or renews, reads the other nodes, and updates the members. False when another process has this node's id.
    async fn pass(&mut self) -> Result<bool, Error> {
        let (clock, me) = (self.context.clock.clone(), self.members.me());
        let (began, known) = (clock.instant(), self.members.all());
        let state = if self.members.is_draining() { NodeState::Draining } else { NodeState::Up };
        let (mut incarnation, mut has_changed) = (known.incarnation, known.get(me).map(|me| me.state) != Some(state));
        let is_known = incarnation > 0 && rows::renew(&self.database, me, incarnation, state, clock.now()).await?;
        if !is_known && let Some(member) = known.get(me) {
            let fenced = incarnation > 0;
            let member = Member { incarnation, ..member.clone() };
            let joined = rows::join(&self.database, &member, self.seat, state, clock.now()).await?;
            let Some(joined) = joined else { return self.give_way().await };
            incarnation = joined;
            // A row that stood still at the start may be another process's the next time.
            self.seat.last = None;
            self.passes = 0;
            if fenced {
                self.metrics.fenced();
                tracing::error!(
                    node = %me,
                    incarnation,
                    "the others had declared this node gone, because it did not renew its place; it joins anew"
                );
            } else {
                tracing::info!(node = %me, incarnation, "this node has joined the cluster");
            }
        }
        // The bridge may not be connected yet when a node joins: the nudge is repeated.
        self.passes = self.passes.saturating_add(1);
        has_changed |= self.passes <= NUDGES;
        let mut seen = rows::all(&self.database).await?;
        for row in self.sightings.overdue(&seen, me, (began, clock.instant()), &self.settings) {
            if rows::declare_gone(&self.database, &row, clock.now()).await? {
                tracing::error!(node = %row.id(), "a node has shown no sign of life and is declared gone");
                seen = rows::all(&self.database).await?;
                has_changed = true;
            }
        }
        self.tell(incarnation, seen, has_changed);
        self.forget(clock.now()).await?;
        Ok(true)
    }

    /// Ends this process because another has the id of this node; nothing more is done in the node's name.
    async fn give_way(&self) -> Result<bool, Error> {
        let me = self.members.me();
        let other = rows::all(&self.database).await?.into_iter().find(|row| row.id() == me);
        // It has just left: this one joins with the next pass.
        let Some(other) = other else { return Ok(true) };
        self.members.displace(seat::taken(me, &other));
        Ok(false)
    }

    /// The content of this node's nudges, by which it ignores its own.
    fn nudge(&self) -> serde_json::Value {
        self.members.me().to_string().into()
    }

    fn tell(&self, incarnation: i64, rows: Vec<NodeRow>, has_changed: bool) {
        let members: Vec<Member> = rows.into_iter().map(|row| row.member).collect();
        self.metrics.count_nodes(&members);
        self.members.publish(incarnation, members);
        if has_changed {
            self.context.live.publish(TOPIC, LiveEvent::new("changed", self.nudge()));
        }
    }

    async fn forget(&mut self, now: DateTime<Utc>) -> Result<(), Error> {
        if self.sightings.may_forget(self.context.clock.instant())
            && let Some(then) = now.checked_sub_signed(SHOWN)
        {
            rows::forget(&self.database, then).await?;
        }
        Ok(())
    }

    /// Leaves, so that others take over at once, rather than when they miss this node.
    async fn leave(self) -> Exit {
        let (clock, me, incarnation) = (&self.context.clock, self.members.me(), self.members.incarnation());
        let left = rows::leave(&self.database, me, incarnation, clock.now());
        match clock.timeout_at(clock.instant() + Duration::from_secs(2), left).await {
            Some(Ok(())) => {
                self.context.live.publish(TOPIC, LiveEvent::new("changed", self.nudge()));
                tracing::info!("this node has left the cluster");
            }
            Some(Err(error)) => tracing::warn!(%error, "leaving the cluster failed; the others miss this node instead"),
            None => tracing::warn!("leaving the cluster took too long; the others miss this node instead"),
        }
        Exit::Shutdown
    }
}

/// Time limit of a look: a longer one does not count.
fn look_within(settings: &ClusterSettings) -> Duration {
    settings.gone_after / 2
}

/// Since when each node's row has not changed, as far as this node has looked.
#[derive(Default)]
pub(crate) struct Sightings {
    last_look: Option<Instant>,
    last_forgotten: Option<Instant>,
    since: HashMap<NodeId, Sighting>,
}

struct Sighting {
    sign: Sign,
    first: Instant,
}

impl Sightings {
    /// The nodes that have not renewed for too long, by a look that began and ended at these times. Time during which
    /// this node did not look does not count: it may itself have been stopped, or the database may have been away for
    /// all. A slow database is no such time.
    pub(crate) fn overdue(
        &mut self,
        rows: &[NodeRow],
        me: NodeId,
        (began, now): (Instant, Instant),
        settings: &ClusterSettings,
    ) -> Vec<NodeRow> {
        let away = self.last_look.map_or(Duration::ZERO, |last| began.saturating_duration_since(last));
        let looked = now.saturating_duration_since(began);
        let unusual = [(away, settings.beat * 2 + Duration::from_millis(500)), (looked, look_within(settings))];
        let unseen = unusual.into_iter().filter(|(time, usual)| time > usual).map(|(time, _)| time).sum();
        self.last_look = Some(now);
        self.leave_out(unseen, now, settings);
        let others = || rows.iter().filter(|row| row.id() != me && !row.is_gone());
        self.since.retain(|id, _| others().any(|row| row.id() == *id));
        let mut overdue = Vec::new();
        for row in others() {
            let sighting = self.since.entry(row.id()).or_insert(Sighting { sign: row.sign(), first: now });
            if sighting.sign != row.sign() {
                *sighting = Sighting { sign: row.sign(), first: now };
            } else if now.saturating_duration_since(sighting.first) >= settings.gone_after {
                overdue.push(row.clone());
            }
        }
        overdue
    }

    /// Excludes time in which this node did not look at the others; after it, every node has at least two beats to renew.
    fn leave_out(&mut self, unseen: Duration, now: Instant, settings: &ClusterSettings) {
        if unseen.is_zero() {
            return;
        }
        let at_most = settings.gone_after.saturating_sub(settings.beat * 2);
        for sighting in self.since.values_mut() {
            let stood = now.saturating_duration_since(sighting.first).saturating_sub(unseen).min(at_most);
            sighting.first = now.checked_sub(stood).unwrap_or(now);
        }
    }

    /// True at the start, and then once an hour.
    fn may_forget(&mut self, now: Instant) -> bool {
        const EVERY: Duration = Duration::from_secs(3600);
        let due = self.last_forgotten.is_none_or(|last| now.saturating_duration_since(last) >= EVERY);
        if due {
            self.last_forgotten = Some(now);
        }
        due
    }
}
