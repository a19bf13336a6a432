//! The deploy domain: from source to running, routed apps.
//!
//! A source is unpacked ([`archive`]) or fetched ([`fetch`]); [`detect`] makes a plan of it, [`build`] carries it
//! out, [`package`] makes an immutable release of the result, and a [`runtime`] runs it. Each of these knows nothing
//! of the database or of messages.
//!
//! [`domain`] puts them together. A handler only changes the store and wakes an actor: the builder pool takes queued
//! deployments, an actor for each app carries out rollouts and keeps what runs as it is wanted, and an actor for each
//! instance starts its process, asks for its health and starts it again. All of them go on from the store after a
//! crash.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests look at files and start programs where they run"))]

pub mod archive;
pub mod build;
pub mod detect;
pub mod fetch;
pub mod folder;
pub mod limits;
pub mod output;
pub mod package;
pub mod pools;
pub mod process;
pub mod runtime;
pub mod terminal;
pub mod trash;

mod builders;
mod chunks;
mod context;
mod disk;
mod journal;
mod life;
mod log;
mod making;
mod nodes;
mod objects;
mod operations;
mod pointers;
mod prune;
mod recovery;
mod settings;
mod stage;
mod store;
mod telling;
#[cfg(test)]
mod tests;
mod under_way;
mod wishes;
mod words;

use std::sync::Arc;

use callboard_messages::{
    deploy::{
        CancelDeployment, CleanupEnvironment, CreateDeployment, GetBuildLog, GetDeployment, GetLogs, ListDeployments,
        ListInstances, ListReleases, ListRoutes, ReadLog, RegisterSource, Restart, Rollback, RunningInstances, Scale,
        SetupEnvironment, Stop,
    },
    project::ProjectDeleted,
};
use callboard_platform::{cluster::Members, routing::RoutingTable};
use callboard_supervisors::{Contract, Domain, ShardContext, db::Databases};
use object_store::ObjectStore;

use crate::{context::World, runtime::Runtime};
pub use crate::{
    operations::Deploys,
    settings::{DeploySettings, InstanceSettings},
};

/// The domain's one word.
pub const DOMAIN: &str = "deploy";

/// The process type that listens and is routed to.
pub const WEB: &str = "web";

/// The domain's tables.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/deploy");

/// The domain. Uploads, releases and logs are kept in `objects`, apps run on `runtime`, and `routes` learns where those of
/// this node answer. `members` says which other nodes there are: an app belongs to one of them.
///
/// # Errors
/// A sentence for each setting that cannot be.
pub fn domain(
    settings: DeploySettings,
    databases: Databases,
    objects: Arc<dyn ObjectStore>,
    routes: RoutingTable,
    runtime: Arc<dyn Runtime>,
    members: Members,
) -> Result<Domain, Vec<String>> {
    settings.validate()?;
    let world = Arc::new(World::new(settings, databases, objects, routes, runtime, members));
    let (apps, builders) = (stage::supervisor(world.clone()), builders::supervisor(world.clone()));
    let (pools, logs) = (world.pools.clone(), world.journals.pool().clone());
    let stored = world.databases.clone();
    let (opening, closing) = (life::first_child(world.clone()), life::last_child(world.clone()));
    let teller = telling::teller(world.clone());
    // One thread: instances, builds and handlers share it, and what is heavy runs in pools and child processes.
    let domain = contract()
        .dedicated(1, move |context: ShardContext| Deploys::new(world.clone(), context))
        .stored(&stored)
        .child(opening)
        .child(teller)
        .child(apps)
        .child(builders)
        .child(closing)
        .pool(&pools.prompt)
        .pool(&pools.archives)
        .pool(&pools.measures)
        .pool(&pools.removals)
        .pool(&logs)
        .build();
    Ok(domain)
}

/// What the domain answers, wherever it is hosted.
#[must_use]
pub fn contract() -> Contract<Deploys> {
    Domain::new(DOMAIN)
        .answering()
        .on::<RegisterSource>()
        .on::<CreateDeployment>()
        .on::<GetDeployment>()
        .on::<ListDeployments>()
        .on::<CancelDeployment>()
        .on::<ListReleases>()
        .on::<Rollback>()
        .on::<Scale>()
        .on::<Stop>()
        .on::<Restart>()
        .on::<ListInstances>()
        .on::<GetBuildLog>()
        .on::<GetLogs>()
        .on::<SetupEnvironment>()
        .on::<CleanupEnvironment>()
        .on::<ListRoutes>()
        .on::<RunningInstances>()
        .on::<ReadLog>()
        .reacts_to::<ProjectDeleted>()
}
