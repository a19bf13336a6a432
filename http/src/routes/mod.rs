//! The API, one line per operation, one file per domain.

mod auth;
mod cluster;
mod deploy;
mod organization;
mod pages;
mod project;
mod system;

use crate::table::Route;

const API: &str = "/api/v1";

/// Every route.
pub(crate) fn all() -> Vec<Route> {
    let tables = [
        project::routes(),
        deploy::routes(),
        auth::routes(),
        organization::routes(),
        cluster::routes(),
        system::api(),
        system::root(),
        pages::routes(),
        #[cfg(test)]
        crate::tests::routes(),
    ];
    tables.into_iter().flat_map(|routes| routes.list).collect()
}
