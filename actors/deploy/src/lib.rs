//! The deploy domain: from source to running, routed apps.
//!
//! | Folder | What happens there |
//! |---|---|
//! | `operations/` | Handlers: each changes the store and wakes an actor |
//! | `store/` | The tables, a file for each noun |
//! | `build/` | A queued deployment becomes a release |
//! | `apps/` | An app's release runs: rollout, scale, restart, removal |
//! | `ownership/` | Which node runs an app or a build: claim, handover, takeover, recovery |
//! | `runtime/` | One instance as a supervised process, its limits and its health |
//! | `process/` | Child processes: trampoline, reaper, control groups |
//! | `logs/` | Output of builds and apps, on the disk, in the object store and live |
//! | `folder/` | Folders that builds and apps write in, reached by descriptor |
//!
//! [`domain`] puts them together. All actors go on from the store after a crash.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests look at files and start programs where they run"))]

pub mod build;
pub mod folder;
pub mod logs;
pub mod pools;
pub mod process;
pub mod runtime;

mod apps;
mod context;
mod objects;
mod operations;
mod ownership;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod world;

use std::sync::Arc;

use callboard_messages::{
    deploy::{
        CancelDeployment, CleanupEnvironment, ClearCache, CreateDeployment, DeploymentTopic, GetBuildLog,
        GetDeployment, GetLogs, ListApps, ListDeployments, ListInstances, ListReleases, ListRoutes, LogTopic,
        ProjectTopic, ReadLog, Redeploy, RegisterSource, Restart, Rollback, RunningInstances, Scale, SetupEnvironment,
        Stop,
    },
    project::ProjectDeleted,
};
use callboard_platform::{cluster::Members, routing::RoutingTable};
use callboard_supervisors::{Contract, Domain, ShardContext, db::Databases};
use object_store::ObjectStore;

use crate::{apps::events, build::builders, ownership::lifecycle, runtime::Runtime, world::World};
pub use crate::{
    operations::Deploys,
    settings::{DeploySettings, InstanceSettings},
};

/// The domain's name.
pub const DOMAIN: &str = "deploy";

/// The process type that listens and is routed to.
pub const WEB: &str = "web";

/// The domain's tables.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/deploy");

/// The domain. Uploads, releases and logs are stored in `objects`, apps run on `runtime`, and `routes` gets the
/// addresses of this node's instances. `members` are the nodes of the cluster: an app belongs to one of them.
///
/// # Errors
/// A sentence for each invalid setting.
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
    let (apps, builders) = (apps::supervisor(world.clone()), builders::supervisor(world.clone()));
    let (pools, logs) = (world.pools.clone(), world.journals.pool().clone());
    let stored = world.databases.clone();
    let (opening, closing) = (lifecycle::first_child(world.clone()), lifecycle::last_child(world.clone()));
    let publisher = events::publisher(world.clone());
    // One thread: instances, builds and handlers share it, and what is heavy runs in pools and child processes.
    let domain = contract()
        .dedicated(1, move |context: ShardContext| Deploys::new(world.clone(), context))
        .stored(&stored)
        .child(opening)
        .child(publisher)
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

/// The operations of the domain, wherever it is hosted.
#[must_use]
pub fn contract() -> Contract<Deploys> {
    Domain::new(DOMAIN)
        .answering()
        .on::<RegisterSource>()
        .on::<CreateDeployment>()
        .on::<GetDeployment>()
        .on::<ListDeployments>()
        .on::<CancelDeployment>()
        .on::<Redeploy>()
        .on::<ListApps>()
        .on::<ClearCache>()
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
        .topic::<ProjectTopic>()
        .log::<DeploymentTopic>()
        .log::<LogTopic>()
}
