//! `organization`: tenants, their members, and what those may do.
//!
//! Every person has exactly one **default organization**: its personal one, created at registration, or the one it was
//! told to join instead ([`EnsurePersonal::organization_id`]). Membership is in every SQL predicate: for others an
//! organization does not exist.

mod deletion;
mod name;
mod organizations;
mod permissions;
mod personal;

#[cfg(test)]
mod tests;

use callboard_messages::{
    auth::UserRegistered,
    organization::{
        CreateOrganization, DeleteOrganization, EnsurePersonal, GetOrganization, GetPermissions, ListOrganizations,
    },
};
use callboard_supervisors::{
    Bus, Clock, Contract, Domain, ShardContext, StartError,
    db::{Database, Databases},
    reconcile::Reconciler,
};

use crate::deletion::Deletions;

/// The domain's name, in its tables' schema, its operations and its metrics.
pub const DOMAIN: &str = "organization";

/// The domain's schema.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/organization");

/// The domain, with a shard on every worker thread. Its database must have been migrated by [`MIGRATIONS`].
#[must_use]
pub fn domain(databases: Databases) -> Domain {
    let deletions = Reconciler::<Deletions>::default();
    let reconciler = deletions.child("deletions", &databases, DOMAIN);
    let opened = databases.clone();
    contract()
        .shared(move |context: ShardContext| {
            let (opened, deletions) = (opened.clone(), deletions.clone());
            async move { Organizations::new(&opened, deletions, context).await }
        })
        .stored(&databases)
        .child(reconciler)
        .build()
}

/// The operations of the domain, wherever it is hosted.
#[must_use]
pub fn contract() -> Contract<Organizations> {
    Domain::new(DOMAIN)
        .answering()
        // organizations.rs
        .on::<CreateOrganization>()
        .on::<GetOrganization>()
        .on::<ListOrganizations>()
        // deletion.rs
        .on::<DeleteOrganization>()
        // personal.rs
        .on::<EnsurePersonal>()
        .reacts_to::<UserRegistered>()
        // permissions.rs
        .on::<GetPermissions>()
}

/// The state of one shard.
pub struct Organizations {
    database: Database,
    bus: Bus,
    clock: Clock,
    deletions: Reconciler<Deletions>,
}

impl Organizations {
    async fn new(
        databases: &Databases,
        deletions: Reconciler<Deletions>,
        context: ShardContext,
    ) -> Result<Self, StartError> {
        let database = databases.open(DOMAIN).await.map_err(StartError::new)?;
        Ok(Self { database, bus: context.bus, clock: context.clock, deletions })
    }
}
