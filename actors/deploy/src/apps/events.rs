//! Publishes the events of instances. No row holds an instance, so each event is emitted in a transaction of its own, in
//! order, by one actor: an app that runs must not wait for a database that does not answer.

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

/// Capacity of the queue; events beyond it are dropped and logged.
const QUEUE_CAPACITY: usize = 4_096;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An event of an instance that waits to be emitted.
pub(crate) enum InstanceEvent {
    Started(InstanceFact),
    Crashed(InstanceFact),
    Stopped(InstanceFact),
}

/// The queue of the publisher. It survives a restart of the publisher, which takes the receiver again.
pub(crate) struct InstanceEvents {
    sender: mpsc::Sender<InstanceEvent>,
    receiver: tokio::sync::Mutex<mpsc::Receiver<InstanceEvent>>,
    /// Counts dropped events.
    full: Outage,
}

impl Default for InstanceEvents {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let receiver = tokio::sync::Mutex::new(receiver);
        Self { sender, receiver, full: Outage::new("the queue of instance events") }
    }
}

impl InstanceEvents {
    /// Queues an event; never waits.
    pub(crate) fn publish(&self, event: InstanceEvent) {
        if self.sender.try_send(event).is_err() {
            self.full.failed(&"events are dropped: the queue is full while the database does not answer");
        }
    }
}

/// The actor that emits queued events.
pub(crate) fn publisher(world: Arc<World>) -> ChildSpec {
    ChildSpec::new("publisher", move |child: ChildContext| {
        let world = world.clone();
        async move {
            let database = match world.databases.open(crate::DOMAIN).await {
                Ok(database) => database,
                Err(error) => return Exit::Abnormal(error.to_string()),
            };
            let mut waiting = world.instance_events.receiver.lock().await;
            loop {
                // Events that were queued before the stop are still published.
                let event = tokio::select! {
                    biased;
                    event = waiting.recv() => event,
                    () = child.stopping() => return Exit::Shutdown,
                };
                let Some(event) = event else { return Exit::Normal };
                while let Err(error) = write(&database, &event).await {
                    let is_outage = error.outside_outage().is_none();
                    warn_unless_outage!(is_outage, %error, "publishing an instance event failed; retrying");
                    tokio::select! {
                        () = child.stopping() => return Exit::Shutdown,
                        () = child.clock.sleep(RETRY_AFTER) => {}
                    }
                }
                world.instance_events.full.works();
            }
        }
    })
}

async fn write(database: &Database, event: &InstanceEvent) -> Result<(), Error> {
    let (mut transaction, caller) = (database.begin().await?, Caller::system());
    match event {
        InstanceEvent::Started(fact) => emit(&mut transaction, &caller, &InstanceStarted(fact.clone())).await?,
        InstanceEvent::Crashed(fact) => emit(&mut transaction, &caller, &InstanceCrashed(fact.clone())).await?,
        InstanceEvent::Stopped(fact) => emit(&mut transaction, &caller, &InstanceStopped(fact.clone())).await?,
    }
    transaction.commit().await
}
