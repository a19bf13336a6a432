//! The state of the domain.

use std::sync::{Arc, atomic::AtomicU64};

use callboard_cache::{Cache, Cached, CachedSettings};
use callboard_messages::{
    CallError, Caller, Failure, Operation, OrganizationId,
    auth::AuthError,
    organization::{EnsurePersonal, OrganizationError, Permissions},
};
use callboard_platform::revocations::Revocations;
use callboard_supervisors::{BlockingPool, Clock, Live, ShardContext, StartError, db::Database};
use chrono::{DateTime, Utc};

use crate::{
    accounts::AccountRow, origins::Devices, passwords::Passwords, refresh::Successors, server_keys,
    settings::AuthSettings, signing_keys::SigningKeys, validation::Standing,
};

/// The state of one shard.
pub struct Auth {
    pub(crate) settings: Arc<AuthSettings>,
    pub(crate) database: Database,
    pub(crate) shared: Arc<Shared>,
    pub(crate) revocations: Revocations,
    pub(crate) context: ShardContext,
}

/// State that all shards of a node share: keys, and the threads for bcrypt.
pub(crate) struct Shared {
    pub(crate) passwords: Passwords,
    pub(crate) successors: Successors,
    pub(crate) devices: Devices,
    pub(crate) signing_keys: SigningKeys,
    /// Whether there may be several nodes.
    pub(crate) is_shared: bool,
    pub(crate) standings: Cached<String, Standing, CallError<AuthError>>,
    pub(crate) permissions: Cached<String, Permissions, CallError<AuthError>>,
}

impl Shared {
    pub(crate) async fn open(
        settings: &AuthSettings,
        database: &Database,
        clock: &Clock,
        live: &Live,
        pool: BlockingPool,
        password_work: Arc<AtomicU64>,
        cache: Cache,
    ) -> Result<Arc<Self>, StartError> {
        let now = clock.now();
        let pepper = server_keys::ensure(database, &settings.master_key, "password", now).await?;
        let successors = server_keys::ensure(database, &settings.master_key, "refresh", now).await?;
        let devices = server_keys::ensure(database, &settings.master_key, "device", now).await?;
        let signing_keys = SigningKeys::open(settings, database, clock).await?;
        Ok(Arc::new(Self {
            passwords: Passwords::new(pool, settings.bcrypt_cost, pepper, password_work),
            successors: Successors::new(successors),
            devices: Devices::new(devices),
            signing_keys,
            is_shared: cache.is_shared(),
            standings: Cached::new(cache.clone(), None, CachedSettings::new("standings", 1)),
            permissions: Cached::new(cache, Some(live.clone()), CachedSettings::new("permissions", 1)),
        }))
    }
}

impl Auth {
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.context.clock.now()
    }

    /// The organization a person acts for by default. Created now if a crash prevented it at registration.
    pub(crate) async fn ensure_organization(
        &self,
        caller: &Caller,
        AccountRow { account, founder }: &AccountRow,
    ) -> Result<OrganizationId, CallError<AuthError>> {
        let organization_id = if *founder { Some(self.operators_organization(caller).await?) } else { None };
        let ensure = EnsurePersonal { user_id: account.id, account_name: account.name.clone(), organization_id };
        Ok(self.ask_organization(caller, ensure).await?.id)
    }

    pub(crate) async fn ask_organization<M>(
        &self,
        caller: &Caller,
        message: M,
    ) -> Result<M::Reply, CallError<AuthError>>
    where
        M: Operation<Error = OrganizationError>,
    {
        self.context.bus.ask(&caller.as_system(), message).await.map_err(|error| match error {
            CallError::Refused(OrganizationError::NotFound) => AuthError::NotFound("organization".to_owned()).into(),
            CallError::Refused(other) => Failure::Internal(format!("organization refused auth: {other}")).into(),
            CallError::Failed(failure) => failure.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use callboard_supervisors::{seal::MasterKey, testing::on_both_engines};

    use super::*;

    #[actix_rt::test]
    async fn the_first_start_waits_for_nobody_elses_processor_time() {
        on_both_engines(&[(crate::DOMAIN, &crate::MIGRATIONS)], async |databases| {
            // The thread is not used in these tests.
            let pool = BlockingPool::new("bcrypt", 1, 1);
            let (release, held) = mpsc::channel::<()>();
            let busy = pool.clone();
            let busy = actix_rt::spawn(async move { busy.run(None, move || held.recv()).await });
            while pool.view().running == 0 {
                tokio::task::yield_now().await;
            }
            let settings = AuthSettings::new("http://callboard.test", MasterKey::generate().unwrap());
            let database = databases.open(crate::DOMAIN).await.unwrap();
            let clock = Clock::system();
            let live = Live::new(clock.clone());
            let opened = Shared::open(&settings, &database, &clock, &live, pool.clone(), Arc::default(), Cache::none());
            let opened = tokio::time::timeout(Duration::from_secs(60), opened).await;
            drop(release);
            busy.await.unwrap().unwrap().unwrap_err();
            assert!(opened.expect("it waits for a thread of the pool").is_ok());
        })
        .await;
    }
}
