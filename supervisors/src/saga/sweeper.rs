//! What takes over the sagas whose node is gone: a child of every domain that has any.

use std::{collections::HashMap, time::Duration};

use callboard_messages::SagaStatus;
use uuid::Uuid;

use super::{
    SagaEngine, Sagas,
    driver::Ended,
    log::{self, HeldSaga},
};
use crate::{
    db::Error,
    lease::Sightings,
    restart::Exit,
    supervise::{ChildContext, ChildSpec},
    tasks::TaskSet,
};

const EVERY: Duration = Duration::from_secs(1);
/// Sagas that one sweeper drives at a time.
const AT_ONCE: usize = 32;
const PAGE: i64 = 256;
/// How long sagas that were begun here may still be driven when the domain stops.
const ENDED_WITHIN: Duration = Duration::from_secs(2);

impl Sagas {
    /// The child that takes over sagas whose driver is gone, and shows how many there are.
    pub(crate) fn sweeper(&self) -> ChildSpec {
        let sagas = self.clone();
        ChildSpec::with_database("sagas", self.databases.clone(), self.domain, move |context, database| {
            let engine = SagaEngine::new(&sagas, database, context.bus.clone(), context.clock.clone());
            Sweeper::new(engine).run(context)
        })
    }
}

pub(super) struct Sweeper {
    engine: SagaEngine,
    sightings: Sightings<Uuid>,
    driving: TaskSet<(Uuid, Ended)>,
    /// The sagas that are driven here, by their tokens.
    driven: HashMap<Uuid, i64>,
}

impl Sweeper {
    pub(super) fn new(engine: SagaEngine) -> Self {
        let sightings = Sightings::new(engine.clock.clone());
        Self { engine, sightings, driving: TaskSet::default(), driven: HashMap::new() }
    }

    async fn run(mut self, context: ChildContext) -> Exit {
        loop {
            if let Some(error) = self.pass(&context).await.err().as_ref().and_then(Error::outside_outage) {
                tracing::warn!(domain = self.engine.sagas.domain, %error, "the sagas could not be looked through");
            }
            let due = context.clock.instant() + EVERY;
            let stopping = async {
                tokio::select! {
                    () = context.stopping() => true,
                    () = context.clock.sleep_until(due) => false,
                    () = self.drive() => false,
                }
            };
            if stopping.await {
                self.hand_over().await;
                return Exit::Shutdown;
            }
        }
    }

    async fn pass(&mut self, context: &ChildContext) -> Result<(), Error> {
        let (domain, stats) = (self.engine.sagas.domain, &context.events.stats);
        let counts = log::count(&self.engine.database).await?;
        let count =
            |status: SagaStatus| counts.iter().find(|(word, _)| word == status.as_str()).map_or(0, |(_, count)| *count);
        for status in [SagaStatus::Running, SagaStatus::Undoing, SagaStatus::Stuck] {
            stats.show_sagas(domain, status, count(status));
        }
        if count(SagaStatus::Running) + count(SagaStatus::Undoing) == 0 {
            self.sightings.retain(|_| false);
            return Ok(());
        }
        self.take_over().await
    }

    /// Takes over what nobody drives any more.
    pub(super) async fn take_over(&mut self) -> Result<(), Error> {
        let ttl = self.engine.sagas.settings.ttl;
        let mut seen = std::collections::HashSet::new();
        let mut after = Uuid::nil();
        loop {
            let page = log::under_way(&self.engine.database, after, PAGE).await?;
            after = page.last().map_or(after, |row| row.id);
            for row in &page {
                seen.insert(row.id);
                let lapsed = row.holder.is_none() || self.sightings.has_lapsed(row.id, row.token, row.beat, ttl);
                if !lapsed || self.driven.contains_key(&row.id) || self.driving.len() >= AT_ONCE {
                    continue;
                }
                if let Some(driver) = self.engine.take_over(row).await? {
                    let id = driver.id();
                    tracing::warn!(saga = %id, name = row.name, status = row.status().as_str(), "a saga is taken over");
                    self.driven.insert(id, driver.held.token);
                    self.driving.spawn(async move { (id, driver.drive().await) });
                }
            }
            if i64::try_from(page.len()).unwrap_or(i64::MAX) < PAGE {
                break;
            }
        }
        self.sightings.retain(|id| seen.contains(id));
        Ok(())
    }

    /// Drives what was taken over until one of them ends.
    pub(super) async fn drive(&mut self) {
        match self.driving.next().await {
            Some((id, ended)) => {
                self.driven.remove(&id);
                tracing::info!(saga = %id, ?ended, "a saga that was taken over came to this");
            }
            None => std::future::pending().await,
        }
    }

    /// Lets other nodes go on at once with what is driven here. Whoever began one may still wait for its end, and most
    /// of them end in a moment.
    pub(super) async fn hand_over(&mut self) {
        self.driving.clear();
        let taken_over = self.driven.drain().map(|(id, token)| HeldSaga { id, token }).collect();
        self.release(taken_over).await;
        let (clock, begun) = (self.engine.clock.clone(), self.engine.sagas.begun.clone());
        if clock.timeout_at(clock.instant() + ENDED_WITHIN, begun.ended()).await.is_none() {
            self.release(begun.abandon()).await;
        }
    }

    async fn release(&self, held: Vec<HeldSaga>) {
        for saga in held {
            if let Err(error) = log::release(&self.engine.database, &saga).await {
                tracing::warn!(saga = %saga.id, %error, "a saga could not be handed over, and is taken over later");
            }
        }
    }
}

impl Sweeper {
    /// How many are driven here.
    pub(super) fn driving(&self) -> usize {
        self.driven.len()
    }
}
