//! Events of instances. No row holds an instance, so that each is told in a transaction of its own, in order, by one
//! actor: an app that runs must not wait for a database that does not answer.

use std::{sync::Arc, time::Duration};

use callboard_messages::{
    Caller,
    deploy::{InstanceCrashed, InstanceFact, InstanceStarted, InstanceStopped},
};
use callboard_supervisors::{
    ChildContext, ChildSpec, Exit, Outage,
    db::{Database, Error},
    events::emit,
    warn_unless_outage,
};
use tokio::sync::mpsc;

use crate::world::World;

/// Events that may wait for the database; what is more is dropped and logged.
const WAITING: usize = 4_096;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What has happened to an instance.
pub(crate) enum Told {
    Started(InstanceFact),
    Crashed(InstanceFact),
    Stopped(InstanceFact),
}

/// The way to the actor that tells, which takes it up again when it is rebuilt.
pub(crate) struct Telling {
    sender: mpsc::Sender<Told>,
    receiver: tokio::sync::Mutex<mpsc::Receiver<Told>>,
    /// Counts what is dropped.
    full: Outage,
}

impl Default for Telling {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let receiver = tokio::sync::Mutex::new(receiver);
        Self { sender, receiver, full: Outage::new("the record of what happens to instances") }
    }
}

impl Telling {
    /// Never waits.
    pub(crate) fn tell(&self, told: Told) {
        if self.sender.try_send(told).is_err() {
            self.full.failed(&"events are dropped: the database has not taken the ones before them");
        }
    }
}

/// The actor that tells.
pub(crate) fn teller(world: Arc<World>) -> ChildSpec {
    ChildSpec::new("teller", move |child: ChildContext| {
        let world = world.clone();
        async move {
            let database = match world.databases.open(crate::DOMAIN).await {
                Ok(database) => database,
                Err(error) => return Exit::Abnormal(error.to_string()),
            };
            let mut waiting = world.telling.receiver.lock().await;
            loop {
                // What happened before the stop is still told.
                let told = tokio::select! {
                    biased;
                    told = waiting.recv() => told,
                    () = child.stopping() => return Exit::Shutdown,
                };
                let Some(told) = told else { return Exit::Normal };
                while let Err(error) = write(&database, &told).await {
                    let is_outage = error.outside_outage().is_none();
                    warn_unless_outage!(is_outage, %error, "an event of an instance could not be told yet; trying again");
                    tokio::select! {
                        () = child.stopping() => return Exit::Shutdown,
                        () = child.clock.sleep(RETRY_AFTER) => {}
                    }
                }
                world.telling.full.works();
            }
        }
    })
}

async fn write(database: &Database, told: &Told) -> Result<(), Error> {
    let (mut transaction, caller) = (database.begin().await?, Caller::system());
    match told {
        Told::Started(fact) => emit(&mut transaction, &caller, &InstanceStarted(fact.clone())).await?,
        Told::Crashed(fact) => emit(&mut transaction, &caller, &InstanceCrashed(fact.clone())).await?,
        Told::Stopped(fact) => emit(&mut transaction, &caller, &InstanceStopped(fact.clone())).await?,
    }
    transaction.commit().await
}
