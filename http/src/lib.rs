//! The gateway: HTTP in front of the domains.
//!
//! [`serve`] starts it. What arrives on a connection is judged in [`connection`](listen), one request at a time. A request
//! for an app's host goes to the [`router`]; every other passes `worker`: it is named,
//! found in the route table (`routes`, one line per operation), admitted (`session`, `limits`) and handed to its
//! endpoint, most of which are `ask::<M>()`: the request becomes the message `M` (`message`), the domain answers, the
//! reply becomes JSON (`answer`). Errors become problem documents in one place (`problem`). The OpenAPI document
//! and the tests that walk every route read the same table.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests look at files and start programs where they run"))]

mod address;
mod answer;
mod ask;
mod connection;
mod headers;
mod idempotency;
mod limits;
mod live;
mod message;
mod metrics;
mod openapi;
mod pace;
mod pages;
mod problem;
pub mod router;
mod routes;
mod server;
mod session;
mod settings;
mod span;
mod system;
mod table;
mod upload;
mod worker;

#[cfg(test)]
mod tests;

use std::time::Duration;

use callboard_supervisors::{Away, ChildSpec, Dependency, Domain, Part, db::Databases, schedule};

pub use connection::{Edge, listen};
pub use limits::{Class, InProcess, Rate, RateLimitStore, RateLimits, Take, Verdict};
pub use server::{Gateway, GatewayError, Ready, Serving, Stop, serve, serve_on};
pub use settings::GatewaySettings;
pub use table::{RouteView, route_table, unanswered};

/// The name of the gateway's own database.
pub const DOMAIN: &str = "gateway";

/// The gateway's tables.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/gateway");

/// Interval of asking the object store.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The gateway as a domain without operations: its requirements, its own database and the store for uploads, are
/// watched like those of other domains, and readiness shows them.
#[must_use]
pub fn domain(databases: &Databases, objects: Option<Dependency>) -> Domain {
    let keeper = schedule::keeper(DOMAIN, databases.clone(), vec![idempotency::housekeeping()]);
    let gateway = Domain::new(DOMAIN).answering().shared(|_| async { Ok(()) });
    let gateway = gateway.standing_on(databases.server(DOMAIN)).watches(databases).child(keeper);
    let Some(objects) = objects else { return gateway.build() };
    let watch = ChildSpec::watching("objects", objects.clone(), LOOK_EVERY);
    let away = move || {
        let reason = objects.away()?;
        Some(Away::new(Part::Objects, format!("{} can't be used: {reason}", objects.name())))
    };
    gateway.requires(away).child(watch).build()
}

/// The OpenAPI 3.1 document of the API.
#[must_use]
pub fn openapi_document() -> serde_json::Value {
    openapi::document(&routes::all())
}
