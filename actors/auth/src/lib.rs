//! `auth`: authentication of every caller.
//!
//! A **session** starts with a password (`registration`, `login`) and is a family of refresh tokens (`refresh`), each
//! exchanged once for the next. Its **access tokens** (`access_tokens`) are JWTs that any node verifies by the public
//! keys (`signing_keys`); `validation` asks the store besides, so that a revocation counts at once, and tells
//! [`Revocations`], so that nobody goes on trusting what it remembers. A program holds an **API key** (`api_keys`)
//! instead. What a caller may do is not decided here: `organization` is asked for the permissions.
//!
//! The **local operator** is the account behind the command line on the node's own machine (`operator`). The first
//! administrator, who sets the platform up in a browser, shares the operator's organization, so that each sees what the
//! other deployed.

mod access_tokens;
mod accounts;
mod api_keys;
mod invitations;
mod lockout;
mod login;
mod opaque;
mod operator;
mod origins;
mod passwords;
mod permissions;
mod prune;
mod refresh;
mod registration;
mod revocation;
mod scopes;
mod server_keys;
mod sessions;
mod settings;
mod signing_keys;
mod state;
mod validation;

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use callboard_cache::Cache;
use callboard_messages::auth::{
    CreateApiKey, CreateInvitation, GetJwks, GetRevocationCount, IssueLocalKey, IssueSetupToken, ListApiKeys,
    ListSessions, Login, Logout, LogoutAll, RefreshToken, Register, RevokeApiKey, RevokeSession, RotateSigningKey,
    ValidateToken, WhoAmI,
};
use callboard_messages::organization::{OrganizationClosed, OrganizationCreated, OrganizationDeleted};
use callboard_platform::revocations::Revocations;
use callboard_supervisors::{
    BlockingPool, Bulkhead, Contract, Domain, ShardContext, StartError, breaker, db::Databases,
};
use tokio::sync::OnceCell;

pub use settings::{AuthSettings, Registration, WAITING_MOST};

pub use state::Auth;
use state::Shared;

/// The domain's name, in its tables' schema, its operations and its metrics.
pub const DOMAIN: &str = "auth";

/// The domain's schema.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/auth");

/// The domain, with a shard on every worker thread. Its database must have been migrated by [`MIGRATIONS`]; it asks the
/// domain `organization`. Caches of verified tokens must watch the same `revocations`. `cache` is shared by the nodes
/// that host auth.
#[must_use]
pub fn domain(settings: AuthSettings, databases: Databases, revocations: Revocations, cache: Cache) -> Domain {
    let pool = bcrypt_pool(&settings);
    domain_with(settings, databases, revocations, cache, pool, Arc::default())
}

/// The threads that check and hash passwords, in turns by origin.
fn bcrypt_pool(settings: &AuthSettings) -> BlockingPool {
    BlockingPool::shared("bcrypt", settings.bcrypt_threads, settings.bcrypt_queue, settings.bcrypt_share)
}

/// The domain with these threads for bcrypt; counts runs of bcrypt in `password_work`.
fn domain_with(
    settings: AuthSettings,
    databases: Databases,
    revocations: Revocations,
    cache: Cache,
    pool: BlockingPool,
    password_work: Arc<AtomicU64>,
) -> Domain {
    let settings = Arc::new(settings);
    let bcrypt = pool.clone();
    // Shared by all shards of the node, made by the first.
    let shared: Arc<OnceCell<Arc<Shared>>> = Arc::default();
    let stored = databases.clone();
    contract()
        .shared(move |context: ShardContext| {
            let (settings, databases, revocations) = (settings.clone(), databases.clone(), revocations.clone());
            let (shared, bcrypt, password_work) = (shared.clone(), bcrypt.clone(), password_work.clone());
            let cache = cache.clone();
            async move {
                let database = databases.open(DOMAIN).await.map_err(StartError::new)?;
                let shared = shared
                    .get_or_try_init(|| {
                        Shared::open(&settings, &database, &context.clock, &context.live, bcrypt, password_work, cache)
                    })
                    .await?
                    .clone();
                if shared.is_shared && context.index == 0 {
                    let permissions = shared.permissions.clone();
                    context.spawn("permissions", async move { permissions.follow().await });
                }
                Ok(Auth { settings, database, shared, revocations, context })
            }
        })
        .stored(&stored)
        .schedule(prune::schedule())
        .pool(&pool)
        .build()
}

/// Sign-ins are slow, and slower in a burst: the breaker must not refuse everybody's tokens for that, and waiting
/// sign-ins must not take their permits.
fn bulkhead() -> Bulkhead {
    let breaker = breaker::Settings { slow_after: Duration::from_secs(8), ..breaker::Settings::default() };
    let default = Bulkhead::default();
    Bulkhead { breaker, in_flight: default.in_flight + WAITING_MOST, ..default }
}

/// The operations of the domain, wherever it is hosted.
#[must_use]
pub fn contract() -> Contract<Auth> {
    Domain::new(DOMAIN)
        .bulkhead(bulkhead())
        .answering()
        // registration.rs, invitations.rs
        .on::<Register>()
        .on::<CreateInvitation>()
        .on::<IssueSetupToken>()
        // operator.rs
        .on::<IssueLocalKey>()
        // login.rs, refresh.rs
        .on::<Login>()
        .on::<RefreshToken>()
        // sessions.rs
        .on::<Logout>()
        .on::<LogoutAll>()
        .on::<ListSessions>()
        .on::<RevokeSession>()
        // accounts.rs
        .on::<WhoAmI>()
        // validation.rs
        .on::<ValidateToken>()
        // revocation.rs
        .on::<GetRevocationCount>()
        // permissions.rs
        .reacts_to::<OrganizationCreated>()
        .reacts_to::<OrganizationClosed>()
        .reacts_to::<OrganizationDeleted>()
        // api_keys.rs
        .on::<CreateApiKey>()
        .on::<ListApiKeys>()
        .on::<RevokeApiKey>()
        // signing_keys.rs
        .on::<GetJwks>()
        .on::<RotateSigningKey>()
}
