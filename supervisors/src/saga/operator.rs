//! Sagas as an operator sees and retries them: answered by the runtime for every domain that has any.

use std::{marker::PhantomData, sync::Arc};

use callboard_messages::{
    CallError, Caller, Cursor, Limit, Page, SagaDomain, SagaError, SagaStatus, SagaView,
    saga::{ListSagasOf, RetrySagaOf},
};
use futures_util::{FutureExt, future::LocalBoxFuture};
use uuid::Uuid;

use super::{SagaEngine, log};
use crate::{
    call::{actor_ref::ActorRef, bus::Bus},
    db::Error,
    domain::{
        core::DomainCore,
        operation::{Handle, Outcome},
    },
};

/// The state of a domain that has sagas.
pub trait HasSagas: 'static {
    /// What it begins them with.
    fn sagas(&self) -> &SagaEngine;
}

impl<S: HasSagas, D: SagaDomain> Handle<ListSagasOf<D>> for S {
    async fn handle(&self, _: &Caller, message: ListSagasOf<D>) -> Outcome<ListSagasOf<D>> {
        let ListSagasOf { status, limit, cursor, .. } = message;
        let sagas = self.sagas().list(status, Cursor::below(cursor), limit.rows()).await?;
        Ok(Page::of(sagas, limit, |saga| saga.id))
    }
}

impl<S: HasSagas, D: SagaDomain> Handle<RetrySagaOf<D>> for S {
    async fn handle(&self, caller: &Caller, message: RetrySagaOf<D>) -> Outcome<RetrySagaOf<D>> {
        let retried = self.sagas().retry(message.saga_id).await?;
        tracing::info!(saga = %retried.id, by = ?caller.user_id, "an operator retries a saga");
        Ok(retried)
    }
}

/// How the sagas of a domain are asked for, without its type.
#[derive(Clone, Copy)]
pub(crate) struct SagaCalls {
    list: List,
    retry: Retry,
}

type Asked<'a, T> = LocalBoxFuture<'a, Result<T, CallError<SagaError>>>;
type List =
    for<'a> fn(&'a ActorRef, &'a Caller, Option<SagaStatus>, Limit, Option<Cursor>) -> Asked<'a, Page<SagaView>>;
type Retry = for<'a> fn(&'a ActorRef, &'a Caller, Uuid) -> Asked<'a, SagaView>;

impl SagaCalls {
    pub(crate) fn of<D: SagaDomain>() -> Self {
        Self {
            list: |actor, caller, status, limit, cursor| {
                actor.ask(caller, ListSagasOf::<D> { status, limit, cursor, of: PhantomData }).boxed_local()
            },
            retry: |actor, caller, saga_id| {
                actor.ask(caller, RetrySagaOf::<D> { saga_id, of: PhantomData }).boxed_local()
            },
        }
    }
}

/// The sagas of a domain, wherever it is hosted.
pub struct SagasOf {
    actor: ActorRef,
    calls: SagaCalls,
}

impl SagasOf {
    /// The domain's name.
    #[must_use]
    pub fn domain(&self) -> &'static str {
        self.actor.name()
    }

    /// A page of them, the newest first: those with this status, or that have not ended.
    ///
    /// # Errors
    /// What the domain refuses, or the failure that kept it from answering.
    pub async fn list(
        &self,
        caller: &Caller,
        status: Option<SagaStatus>,
        limit: Limit,
        cursor: Option<Cursor>,
    ) -> Result<Page<SagaView>, CallError<SagaError>> {
        (self.calls.list)(&self.actor, caller, status, limit, cursor).await
    }

    /// Lets a stuck one go on where it is.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn retry(&self, caller: &Caller, id: Uuid) -> Result<SagaView, CallError<SagaError>> {
        (self.calls.retry)(&self.actor, caller, id).await
    }
}

impl Bus {
    /// The domains that have sagas, here and on other nodes.
    pub fn sagas(&self) -> impl Iterator<Item = SagasOf> {
        let of = |core: &Arc<DomainCore>| Some(SagasOf { calls: core.sagas?, actor: ActorRef::new(core.clone()) });
        self.domains().iter().filter_map(of)
    }
}

impl SagaEngine {
    /// Up to `limit` with this status, or that have not ended, below this id, the newest first.
    pub(super) async fn list(
        &self,
        status: Option<SagaStatus>,
        before: Uuid,
        limit: i64,
    ) -> Result<Vec<SagaView>, Error> {
        let rows = log::list(&self.database, status, before, limit).await?;
        Ok(rows.iter().map(|row| self.view(row)).collect())
    }

    /// Lets a stuck saga go on where it is: some node takes it within a second or two.
    pub(super) async fn retry(&self, id: Uuid) -> Result<SagaView, CallError<SagaError>> {
        let unstuck = log::unstick(&self.database, id, self.clock.now()).await?;
        let row = log::get(&self.database, id).await?.ok_or(SagaError::NoSuchSaga)?;
        if !unstuck {
            return Err(SagaError::NotStuck(row.status()).into());
        }
        Ok(self.view(&row))
    }

    fn view(&self, row: &log::Row) -> SagaView {
        let progress = row.progress();
        SagaView {
            id: row.id,
            name: row.name.clone(),
            status: progress.status,
            step: self.sagas.plan(&row.name).and_then(|plan| plan.step_at(&progress)).map(str::to_owned),
            undoing: progress.refusal.is_some(),
            trouble: progress.trouble,
            correlation_id: row.caller.0.correlation_id(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}
