//! A node with some domains, for their tests.

use std::{fmt::Debug, sync::Arc, time::Duration};

use callboard_messages::{CallError, Caller, Operation, OrganizationId};
use chrono::DateTime;
use sqlx::migrate::Migrator;

use super::on_both_engines;
use crate::{
    Clock, Domain, Outcome, Runtime,
    db::{Database, Databases},
    events::InProcess,
};

/// Time limit of the domains' stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Some domains in a runtime of their own.
pub struct TestNode {
    /// The runtime of the domains.
    pub runtime: Runtime,
    /// Their databases.
    pub databases: Databases,
    /// Their events.
    pub events: InProcess,
    /// Their clock.
    pub clock: Clock,
}

impl TestNode {
    /// Runs `body` with these domains and a manual clock, on SQLite and on PostgreSQL. `migrators` are as those of
    /// [`on_both_engines`].
    ///
    /// # Panics
    /// When the node can't be started, or `body` panics.
    pub async fn on_each(
        migrators: &[(&str, &Migrator)],
        domains: impl Fn(&Databases) -> Vec<Domain>,
        body: impl AsyncFn(&Self),
    ) {
        on_both_engines(migrators, async |databases| {
            let clock = Clock::manual(DateTime::from_timestamp(1_800_000_000, 0).unwrap_or_default());
            let node = Self::start(&databases, clock, domains(&databases)).await;
            body(&node).await;
            node.stop().await;
        })
        .await;
    }

    /// Starts these domains, whose databases are among those and migrated.
    ///
    /// # Panics
    /// When they can't be started.
    pub async fn start(databases: &Databases, clock: Clock, domains: Vec<Domain>) -> Self {
        let events = InProcess::default();
        let builder = Runtime::builder().clock(clock.clone()).workers(1).events(Arc::new(events.clone()));
        let runtime = match builder.build(domains) {
            Ok(runtime) => runtime,
            Err(wrong) => panic!("{}", wrong.join("; ")),
        };
        runtime.attach().await;
        Self { runtime, databases: databases.clone(), events, clock }
    }

    /// Stops the domains in order.
    pub async fn stop(self) {
        self.runtime.stop(STOP_WITHIN).await;
    }

    /// Asks over the bus.
    ///
    /// # Errors
    /// Those of the operation.
    pub async fn ask<M: Operation>(&self, caller: &Caller, message: M) -> Outcome<M> {
        self.runtime.bus().ask(caller, message).await
    }

    /// The refusal of this call.
    ///
    /// # Panics
    /// When it is not refused.
    pub async fn refusal<M: Operation<Reply: Debug>>(&self, caller: &Caller, message: M) -> M::Error {
        refusal(self.ask(caller, message).await)
    }

    /// A domain's database.
    ///
    /// # Panics
    /// When it can't be opened.
    pub async fn database(&self, domain: &str) -> Database {
        match self.databases.open(domain).await {
            Ok(database) => database,
            Err(error) => panic!("{domain}: {error}"),
        }
    }
}

/// The refusal of a call.
///
/// # Panics
/// When its outcome is another.
pub fn refusal<T: Debug, E: Debug>(outcome: Result<T, CallError<E>>) -> E {
    match outcome {
        Err(CallError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// A caller with every permission in an organization of its own.
#[must_use]
pub fn member() -> Caller {
    Caller { organization_id: Some(OrganizationId::new()), ..Caller::system() }
}
