//! An operation that has its effect once, however often the same request comes.
//!
//! The reply is stored in the transaction of the effect, under the [request](Caller::request) of the caller. A second
//! attempt, on whatever node, waits for the first and is answered as that was. What is stored can't be read without the
//! request itself, which no database has: a reply may show a secret.

use callboard_messages::{CallError, Caller, Failure, Operation};
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    db::{Database, Error, Transaction},
    domain::operation::Outcome,
    seal::DataKey,
    time::clock::Clock,
};

impl Database {
    /// Carries out `work` in a transaction, which is run again where others stood in its way, once for each request of a
    /// caller. A refusal changes nothing and is not kept; a caller without a request is told that there was no other.
    ///
    /// # Errors
    /// Those of `work` and of the database.
    pub async fn once<M: Operation>(
        &self,
        caller: &Caller,
        clock: &Clock,
        mut work: impl AsyncFnMut(&mut Transaction) -> Outcome<M>,
    ) -> Outcome<M> {
        let Some(request) = caller.request else { return self.transact(work).await };
        let attempt = Attempt::of(caller, request, M::NAME);
        self.transact(async |transaction: &mut Transaction| -> Result<M::Reply, CallError<M::Error>> {
            if let Some(kept) = attempt.begin(transaction, clock.now()).await? {
                return serde_json::from_slice(&kept.reply).map_err(|error| broken(&error).into());
            }
            let reply = work(transaction).await?;
            let plain = serde_json::to_vec(&reply).map_err(|error| broken(&error))?;
            attempt.keep(transaction, &plain).await?;
            Ok(reply)
        })
        .await
    }
}

/// What an earlier try at a request has answered.
pub(crate) struct Kept {
    /// As it was kept.
    pub(crate) reply: Vec<u8>,
    sealed: Vec<u8>,
}

/// A try at a request.
pub(crate) struct Attempt {
    /// By which the database knows the request.
    id: Vec<u8>,
    seal: DataKey,
}

impl Attempt {
    pub(crate) fn of(caller: &Caller, request: Uuid, operation: &'static str) -> Self {
        let asked_by = caller.api_key_id.map(|id| id.0).or(caller.user_id.map(|id| id.0)).unwrap_or_default();
        let tenant = caller.organization_id.map(|id| id.0).unwrap_or_default();
        let hash = |purpose: &str| -> [u8; 32] {
            let mut hash = Sha256::new();
            hash.update(purpose);
            for part in [request, asked_by, tenant] {
                hash.update(part.as_bytes());
            }
            hash.update(operation);
            hash.finalize().into()
        };
        Self { id: hash("once: id").to_vec(), seal: DataKey::from_bytes(hash("once: seal")) }
    }

    /// Waits for another try that is under way; what the one before has answered.
    ///
    /// Boxed, as [`Self::keep`] is: each operation that happens once would compile it anew.
    pub(crate) fn begin<'a>(
        &'a self,
        transaction: &'a mut Transaction,
        now: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<Option<Kept>, Failure>> {
        Box::pin(self.begin_now(transaction, now))
    }

    async fn begin_now(&self, transaction: &mut Transaction, now: DateTime<Utc>) -> Result<Option<Kept>, Failure> {
        let sealed = loop {
            let sql = "INSERT INTO requests (id, created_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
            if transaction.query(sql).bind(self.id.clone()).bind(now).execute().await? == 1 {
                return Ok(None);
            }
            let sql = "SELECT reply FROM requests WHERE id = $1";
            let kept: Option<(Option<Vec<u8>>,)> =
                transaction.query(sql).bind(self.id.clone()).fetch_optional().await?;
            // None when another try has just forgotten it: this one may be the first, then.
            if let Some((sealed,)) = kept {
                break sealed;
            }
        };
        let sealed =
            sealed.ok_or_else(|| Failure::Internal("a request was carried out and has no reply".to_owned()))?;
        let reply = self.seal.open(&sealed, &self.id).map_err(|error| broken(&error))?;
        Ok(Some(Kept { reply, sealed }))
    }

    /// Forgets what an earlier try has answered, unless a later one has answered something else since.
    pub(crate) async fn forget(&self, database: &Database, kept: Kept) -> Result<(), Error> {
        let sql = "DELETE FROM requests WHERE id = $1 AND reply = $2";
        database.query(sql).bind(self.id.clone()).bind(kept.sealed).execute().await?;
        Ok(())
    }

    /// Keeps the reply of this try.
    pub(crate) fn keep<'a>(
        &'a self,
        transaction: &'a mut Transaction,
        reply: &'a [u8],
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.keep_now(transaction, reply))
    }

    async fn keep_now(&self, transaction: &mut Transaction, reply: &[u8]) -> Result<(), Failure> {
        let sealed = self.seal.seal(reply, &self.id).map_err(|error| broken(&error))?;
        let sql = "UPDATE requests SET reply = $2 WHERE id = $1";
        transaction.query(sql).bind(self.id.clone()).bind(sealed).execute().await?;
        Ok(())
    }
}

fn broken(error: &dyn std::fmt::Display) -> Failure {
    Failure::Internal(format!("the reply to a request: {error}"))
}

/// Forgets up to `limit` requests that came before `before`; how many there were.
pub(crate) async fn prune(database: &Database, before: DateTime<Utc>, limit: i64) -> Result<u64, Error> {
    database
        .query("DELETE FROM requests WHERE id IN (SELECT id FROM requests WHERE created_at < $1 LIMIT $2)")
        .bind(before)
        .bind(limit)
        .execute()
        .await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use callboard_messages::{Access, Code, DomainError, Operation, OrganizationId, UserId};
    use chrono::TimeDelta;
    use futures_util::future::join_all;
    use serde::{Deserialize, Serialize};
    use sqlx::migrate::{Migration, MigrationType, Migrator};

    use super::*;
    use crate::testing::on_both_engines;

    #[derive(Serialize, Deserialize)]
    struct Mint;

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
    #[error("refused")]
    struct Refused;

    impl DomainError for Refused {
        const CODES: &'static [Code] = &[Code::Conflict];

        fn code(&self) -> Code {
            Code::Conflict
        }
    }

    impl Operation for Mint {
        const NAME: &'static str = "thing.mint";
        const ACCESS: Access = Access::Public;
        type Reply = String;
        type Error = Refused;
    }

    fn things() -> Migrator {
        let sql = "CREATE TABLE things (name TEXT NOT NULL PRIMARY KEY)";
        let sql = sqlx::SqlSafeStr::into_sql_str(sql);
        Migrator::with_migrations(vec![Migration::new(1, "things".into(), MigrationType::Simple, sql, false)])
    }

    fn caller(request: Option<Uuid>) -> Caller {
        let (user_id, organization_id) = (Some(UserId::new()), Some(OrganizationId::new()));
        Caller { user_id, organization_id, request, ..Caller::system() }
    }

    /// Makes a thing with a name that nobody has, which is the reply.
    async fn mint(database: &Database, caller: &Caller, ran: &Cell<usize>, refused: bool) -> Outcome<Mint> {
        let work = async |transaction: &mut Transaction| -> Outcome<Mint> {
            ran.set(ran.get() + 1);
            let name = Uuid::now_v7().to_string();
            transaction.query("INSERT INTO things (name) VALUES ($1)").bind(name.clone()).execute().await?;
            if refused { Err(Refused.into()) } else { Ok(name) }
        };
        database.once::<Mint>(caller, &Clock::system(), work).await
    }

    async fn things_made(database: &Database) -> i64 {
        database.query("SELECT COUNT(*) FROM things").fetch_scalar().await.unwrap()
    }

    #[actix_rt::test]
    async fn attempts_at_one_request_also_at_once_have_one_effect_and_one_reply() {
        on_both_engines(&[("thing", &things())], async |databases| {
            let database = databases.open("thing").await.unwrap();
            let (ran, one) = (Cell::new(0), caller(Some(Uuid::now_v7())));
            let replies = join_all((0..12).map(|_| mint(&database, &one, &ran, false))).await;
            let replies: Vec<String> = replies.into_iter().map(Result::unwrap).collect();
            assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
            assert_eq!((ran.get(), things_made(&database).await), (1, 1));
            let stored: Vec<u8> = database.query("SELECT reply FROM requests").fetch_scalar().await.unwrap();
            let reply = replies[0].as_bytes();
            assert!(!stored.windows(reply.len()).any(|part| part == reply), "the reply can't be read");
        })
        .await;
    }

    #[actix_rt::test]
    async fn requests_of_others_and_none_are_requests_of_their_own() {
        on_both_engines(&[("thing", &things())], async |databases| {
            let database = databases.open("thing").await.unwrap();
            let (ran, request) = (Cell::new(0), Some(Uuid::now_v7()));
            let (one, other) = (caller(request), caller(request));
            let elsewhere = Caller { organization_id: Some(OrganizationId::new()), ..one.clone() };
            for caller in [&one, &other, &elsewhere, &caller(None)] {
                mint(&database, caller, &ran, false).await.unwrap();
            }
            assert_eq!(things_made(&database).await, 4);
        })
        .await;
    }

    #[actix_rt::test]
    async fn a_refusal_leaves_nothing_behind_and_the_request_may_be_tried_again() {
        on_both_engines(&[("thing", &things())], async |databases| {
            let database = databases.open("thing").await.unwrap();
            let (ran, one) = (Cell::new(0), caller(Some(Uuid::now_v7())));
            mint(&database, &one, &ran, true).await.unwrap_err();
            assert_eq!(things_made(&database).await, 0);
            let reply = mint(&database, &one, &ran, false).await.unwrap();
            assert_eq!(mint(&database, &one, &ran, true).await.unwrap(), reply, "it was carried out");
        })
        .await;
    }

    #[actix_rt::test]
    async fn requests_are_forgotten_in_pieces_when_they_are_old() {
        on_both_engines(&[("thing", &things())], async |databases| {
            let database = databases.open("thing").await.unwrap();
            let ran = Cell::new(0);
            for _ in 0..3 {
                mint(&database, &caller(Some(Uuid::now_v7())), &ran, false).await.unwrap();
            }
            let now = Utc::now();
            assert_eq!(prune(&database, now - TimeDelta::hours(1), 2).await.unwrap(), 0);
            assert_eq!(prune(&database, now + TimeDelta::hours(1), 2).await.unwrap(), 2);
            assert_eq!(prune(&database, now + TimeDelta::hours(1), 2).await.unwrap(), 1);
        })
        .await;
    }
}
