//! The child of a domain that runs its schedules.

use std::{task::Poll, time::Duration};

use chrono::{DateTime, Utc};

use super::{Schedule, Slot};
use crate::{
    db::{Database, Databases, Error},
    lease::{FenceError, Lease, Leases, TTL},
    restart::Exit,
    supervise::{ChildContext, ChildSpec},
};

/// Pause before a slot is retried that failed, or that another node carries out.
const AGAIN: Duration = Duration::from_secs(10);
/// The longest sleep, after which a changed system clock is noticed.
const LONGEST: Duration = Duration::from_secs(60);

/// Runs the schedules of a domain with its database among these: a domain that is [stored](crate::DomainOf::stored) has
/// one, and anything else with a database of its own is given one.
#[must_use]
pub fn keeper(domain: &'static str, databases: Databases, schedules: Vec<Schedule>) -> ChildSpec {
    ChildSpec::new("schedules", move |context: ChildContext| {
        let (databases, schedules) = (databases.clone(), schedules.clone());
        async move {
            match databases.open(domain).await {
                Ok(database) => Keeper::new(database, context).run(&schedules).await,
                Err(error) => Exit::Abnormal(error.to_string()),
            }
        }
    })
}

struct Keeper {
    database: Database,
    leases: Leases,
    context: ChildContext,
}

impl Keeper {
    fn new(database: Database, context: ChildContext) -> Self {
        let leases = Leases::new(database.clone(), context.clock.clone(), context.bus.node());
        Self { database, leases, context }
    }

    async fn run(&self, schedules: &[Schedule]) -> Exit {
        for schedule in schedules {
            self.context.events.stats.show_schedule(self.database.domain(), schedule.name);
        }
        loop {
            let mut pause = LONGEST;
            for schedule in schedules {
                let wait = tokio::select! {
                    biased;
                    () = self.context.stopping() => return Exit::Shutdown,
                    wait = self.attend(schedule) => wait,
                };
                let wait = wait.unwrap_or_else(|error| {
                    if let Some(error) = error.outside_outage() {
                        let (domain, schedule) = (self.database.domain(), schedule.name);
                        tracing::warn!(domain, schedule, %error, "running a schedule failed; retrying");
                    }
                    AGAIN
                });
                pause = pause.min(wait);
            }
            if !self.context.sleep(pause).await {
                return Exit::Shutdown;
            }
        }
    }

    /// Runs the schedule if it is due. Returns the time until the next look.
    async fn attend(&self, schedule: &Schedule) -> Result<Duration, FenceError> {
        let now = self.context.clock.now();
        let until_next = || {
            let next = schedule.next(now).and_then(|next| (next - now).to_std().ok());
            next.unwrap_or(LONGEST).clamp(Duration::from_millis(1), LONGEST)
        };
        let Some(slot) = schedule.due(now) else { return Ok(until_next()) };
        match last(&self.database, schedule.name).await? {
            Some(last) if last >= slot => return Ok(until_next()),
            Some(_) => {}
            // A new schedule begins with the next slot.
            None => {
                begin(&self.database, schedule.name, slot).await?;
                return Ok(until_next());
            }
        }
        let Some(lease) = self.leases.acquire(&format!("schedule:{}", schedule.name), TTL).await? else {
            return Ok(AGAIN.min(until_next()));
        };
        // Another node may have carried it out until now.
        let outcome = if last(&self.database, schedule.name).await?.is_some_and(|last| last >= slot) {
            Ok(until_next())
        } else {
            let (database, bus) = (self.database.clone(), self.context.bus.clone());
            let (clock, fence) = (self.context.clock.clone(), lease.fencing());
            let work = (schedule.work)(Slot { time: slot, database, bus, clock, fence });
            let done = tokio::select! {
                biased;
                () = lease.lost() => None,
                done = while_held(&lease, work) => done,
            };
            let done = done.unwrap_or_else(|| Err("the lease was lost to another node".to_owned()));
            self.tell(schedule, slot, &done);
            match done {
                Ok(()) => self.finish(&lease, schedule, slot).await.map(|()| until_next()),
                Err(_) => Ok(AGAIN.min(until_next())),
            }
        };
        lease.release().await;
        outcome
    }

    async fn finish(&self, lease: &Lease, schedule: &Schedule, slot: DateTime<Utc>) -> Result<(), FenceError> {
        let mut transaction = self.database.begin().await?;
        lease.fence(&mut transaction).await?;
        transaction
            .query("UPDATE schedules SET slot = $2 WHERE name = $1 AND slot < $2")
            .bind(schedule.name)
            .bind(slot)
            .execute()
            .await?;
        Ok(transaction.commit().await?)
    }

    fn tell(&self, schedule: &Schedule, slot: DateTime<Utc>, done: &Result<(), String>) {
        let (domain, name) = (self.database.domain(), schedule.name);
        self.context.events.stats.schedule_ran(domain, name, done.is_ok());
        match done {
            Ok(()) => tracing::debug!(domain, schedule = name, %slot, "a schedule ran"),
            Err(error) => tracing::warn!(domain, schedule = name, %slot, %error, "a schedule failed"),
        }
    }
}

/// The output of `work`; `None`, and no more work, once the lease is lost. A paused holder finds its time over before a
/// contender does.
async fn while_held<T>(lease: &Lease, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| match lease.is_held() {
        true => work.as_mut().poll(context).map(Some),
        false => Poll::Ready(None),
    })
    .await
}

async fn last(database: &Database, name: &'static str) -> Result<Option<DateTime<Utc>>, Error> {
    let row: Option<(DateTime<Utc>,)> =
        database.query("SELECT slot FROM schedules WHERE name = $1").bind(name).fetch_optional().await?;
    Ok(row.map(|(slot,)| slot))
}

async fn begin(database: &Database, name: &'static str, slot: DateTime<Utc>) -> Result<(), Error> {
    database
        .query("INSERT INTO schedules (name, slot) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(name)
        .bind(slot)
        .execute()
        .await?;
    Ok(())
}
