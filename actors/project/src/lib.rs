//! `project`: apps, their configuration and secrets.
//!
//! A project is a row: nothing runs for it until it is deployed. Its shards run on the HTTP workers' own threads, so
//! that reading one is a single statement on a connection of that thread.

mod build_config;
mod config;
mod creation;
mod deletion;
mod environment;
mod name;
mod projects;
#[cfg(test)]
mod tests;

use callboard_messages::{
    organization::OrganizationDeleted,
    project::{
        ChangeEnv, CreateProject, DeleteProject, GetBuildConfig, GetConfig, GetProject, ListEnv, ListProjects,
        ProjectSagas, SetBuildConfig, SetEnv, UnsetEnv, UpdateProject,
    },
};
use callboard_supervisors::{
    Contract, Domain, ShardContext, db::Databases, reconcile::Reconciler, saga::Sagas, seal::MasterKey,
};

pub use crate::projects::Projects;

use crate::{deletion::Deletions, environment::Vault};

/// The domain's name.
pub const DOMAIN: &str = "project";

/// The domain's tables.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/project");

/// The domain. `master_key` wraps the data keys that seal its secrets.
#[must_use]
pub fn domain(databases: Databases, master_key: MasterKey) -> Domain {
    let vault = Vault::new(master_key);
    let deletions = Reconciler::<Deletions>::default();
    let reconciler = deletions.child("deletions", &databases, DOMAIN);
    let sagas = Sagas::new(DOMAIN, &databases).with(creation::saga());
    let (stored, begun) = (databases.clone(), sagas.clone());
    contract()
        .shared(move |context: ShardContext| {
            Projects::new(stored.clone(), vault.clone(), begun.clone(), deletions.clone(), context)
        })
        .stored(&databases)
        .sagas(&sagas)
        .child(reconciler)
        .build()
}

/// The operations of the domain, wherever it is hosted.
#[must_use]
pub fn contract() -> Contract<Projects> {
    Domain::new(DOMAIN)
        .answering()
        .on::<CreateProject>()
        .on::<GetProject>()
        .on::<ListProjects>()
        .on::<UpdateProject>()
        .on::<DeleteProject>()
        .reacts_to::<OrganizationDeleted>()
        .on::<SetEnv>()
        .on::<UnsetEnv>()
        .on::<ChangeEnv>()
        .on::<ListEnv>()
        .on::<GetBuildConfig>()
        .on::<SetBuildConfig>()
        .on::<GetConfig>()
        .sagas::<ProjectSagas>()
}
