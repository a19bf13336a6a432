//! Reactions: a domain reacts to an event as to an operation, with its bulkhead, breaker, deadline and metrics, in one
//! transaction with the inbox.

use std::{marker::PhantomData, rc::Rc, time::Duration};

use callboard_messages::{Access, CallError, Caller, Code, DomainError, Operation, OrganizationId};
use chrono::{DateTime, Utc};
use futures_util::{FutureExt, future::LocalBoxFuture};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{CloudEvent, Event, inbox};
use crate::{
    call::actor_ref::ActorRef,
    db::{Database, Transaction},
    shard::{LocalOperation, StateCell, operation},
    telemetry::stats::Ending,
    time::clock::Clock,
};

/// Time limit of one attempt to apply an event.
pub(super) const ATTEMPT_WITHIN: Duration = Duration::from_secs(30);

/// An event as its subscriber sees it.
#[derive(Debug, Clone)]
pub struct Occurred<E> {
    /// The event itself.
    pub event: E,
    /// The event's id.
    pub id: Uuid,
    /// When it became true, in UTC.
    pub time: DateTime<Utc>,
    /// The tenant it concerns, if it concerns one.
    pub organization_id: Option<OrganizationId>,
    /// The platform itself, on behalf of the original caller: for asking other domains.
    pub caller: Caller,
}

/// The state of a domain that keeps a database: where its inbox is.
pub trait Stored: 'static {
    /// The domain's own database.
    fn database(&self) -> &Database;
}

/// Why an event can't be applied: a sentence for the operator. It is redelivered a few times, and then buried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{0}")]
pub struct Inapplicable(pub String);

impl DomainError for Inapplicable {
    const CODES: &[Code] = &[Code::Conflict];

    fn code(&self) -> Code {
        Code::Conflict
    }
}

/// A domain's reaction to an event.
pub trait React<E: Event>: Stored {
    /// Applies the event within `transaction`, which commits with the inbox's row if this is `Ok`, and is rolled back
    /// otherwise. It is not called again for an event whose transaction has committed. Operations of other domains that
    /// are asked here must be idempotent, because the transaction may be rolled back afterwards.
    fn react(
        &self,
        transaction: &mut Transaction,
        event: &Occurred<E>,
    ) -> impl Future<Output = Result<(), CallError<Inapplicable>>>;
}

/// An event as a call to the shard. Reached by event type only, never by its name as an operation.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Reaction<E> {
    event: CloudEvent,
    #[serde(skip)]
    of: PhantomData<fn() -> E>,
}

impl<E: Event> Operation for Reaction<E> {
    const NAME: &'static str = E::NAME;
    const ACCESS: Access = Access::Internal;
    const IDEMPOTENT: bool = true;
    const TIMEOUT: Duration = ATTEMPT_WITHIN;
    /// Whether it was applied now, and not before.
    type Reply = bool;
    type Error = Inapplicable;
}

/// Asks a domain to react.
pub(crate) type Deliver = fn(ActorRef, CloudEvent) -> LocalBoxFuture<'static, Result<bool, CallError<Inapplicable>>>;

pub(crate) fn deliver<E: Event>(
    actor: ActorRef,
    event: CloudEvent,
) -> LocalBoxFuture<'static, Result<bool, CallError<Inapplicable>>> {
    async move {
        let caller =
            Caller { correlation_id: event.correlationid, organization_id: event.organizationid, ..Caller::system() };
        actor.ask(&caller, Reaction::<E> { event, of: PhantomData }).await
    }
    .boxed_local()
}

/// The handler of a reaction above a shard's state.
pub(crate) fn local_reaction<S: React<E>, E: Event>(state: &StateCell<S>, index: usize) -> LocalOperation {
    operation(state, index, |state: Rc<S>, caller: &Caller, reaction: Reaction<E>| {
        let caller = caller.clone();
        async move {
            let outcome = apply::<S, E>(&state, caller, reaction.event).await;
            let ending = Ending::of(&outcome);
            (outcome, ending)
        }
        .boxed_local()
    })
}

async fn apply<S: React<E>, E: Event>(
    state: &S,
    caller: Caller,
    event: CloudEvent,
) -> Result<bool, CallError<Inapplicable>> {
    let occurred = Occurred {
        event: event.read::<E>().map_err(Inapplicable)?,
        id: event.id,
        time: event.time,
        organization_id: event.organizationid,
        caller,
    };
    let mut transaction = state.database().begin().await?;
    if !inbox::take(&mut transaction, event.id, E::NAME, Clock::system().now()).await? {
        transaction.rollback().await?;
        return Ok(false);
    }
    state.react(&mut transaction, &occurred).await?;
    transaction.commit().await?;
    Ok(true)
}
