//! Domains of other nodes: what carries a call there, and how one that came from there is carried out.
//!
//! A domain that this node does not host is an ordinary [`Domain`](crate::Domain) whose state sends every call over a
//! [`Transport`], so that bulkhead, breaker, deadlines, typed errors and metrics are those of any domain. On the other
//! side [`Bus::serve`](crate::Bus::serve) finds the operation by its name.
//!
//! Messages are JSON: unknown fields are ignored and missing optional ones are defaulted, so that two versions of the
//! platform understand each other.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use callboard_messages::{CallError, Caller, Failure, Operation};
use futures_util::{
    FutureExt,
    future::{BoxFuture, LocalBoxFuture},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    breaker::Verdict,
    domain::{context::ShardContext, core::DomainCore, operation::Outcome},
    health::condition::{Away, Part},
    restart::Backoff,
    shard::{self, Ask, LocalOperation, Signature, StateCell},
    telemetry::{stats::Ending, trace},
    time::{clock::Clock, retry::retry},
};

/// A call on its way to another node.
#[derive(Debug, Clone)]
pub struct Request {
    /// The operation's name.
    pub operation: &'static str,
    /// The domain that answers it.
    pub domain: &'static str,
    /// Which node is to answer.
    pub target: Target,
    /// Whether a second execution has no second effect.
    pub idempotent: bool,
    /// Who asks.
    pub caller: Caller,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// The message.
    pub body: Bytes,
    /// The trace it belongs to, as W3C Trace Context writes it.
    pub traceparent: Option<String>,
    /// The same for every attempt at one call.
    pub idempotency_key: Option<Uuid>,
}

/// Which node is to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Any that hosts the domain.
    Domain,
    /// This one, which hosts the domain: for what only the owner of a running thing can answer.
    Node(Uuid),
}

/// Why a call brought back nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// It was not sent, or nobody is there to take it: nothing was executed.
    #[error("no other node can be reached, or none answers for this domain")]
    Unavailable {
        /// When it is likely to work again.
        retry_after: Duration,
    },
    /// Too many calls wait for replies: it was not sent.
    #[error("too many calls wait for replies of other nodes")]
    Overloaded {
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// The deadline had passed before it was sent, or began there.
    #[error("the deadline passed before the work began")]
    Expired,
    /// It is larger than what the transport carries, in bytes: it was not sent.
    #[error("a message of {0} bytes is too large for the way to another node")]
    TooLarge(usize),
    /// It was sent, and its reply is lost.
    #[error("the reply is lost")]
    Unknown,
}

impl From<CallFailure> for Failure {
    fn from(failure: CallFailure) -> Self {
        match failure {
            CallFailure::Unavailable { retry_after } => Self::Unavailable { retry_after },
            CallFailure::Overloaded { retry_after } => Self::Overloaded { retry_after },
            CallFailure::Expired => Self::Expired,
            CallFailure::TooLarge(_) => Self::Internal(failure.to_string()),
            CallFailure::Unknown => Self::Unknown,
        }
    }
}

/// What carries calls to other nodes.
pub trait Transport: Send + Sync {
    /// Carries a call there and its reply back: what [`Bus::serve`](crate::Bus::serve) returned. Dropped, it forgets the
    /// call. It need not watch the deadline once the call is sent: whoever polls it does.
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Bytes, CallFailure>>;

    /// Whether calls can be sent now.
    fn is_connected(&self) -> bool;

    /// This node reaches a domain over this transport: from now on it is looked whether anybody answers for it, also
    /// while nobody asks.
    fn watch(&self, _domain: &'static str) {}

    /// What keeps calls to a domain from being answered, as far as is known without making one.
    fn away(&self, _domain: &'static str) -> Option<Away> {
        (!self.is_connected()).then(|| Away::new(Part::Broker, "no other node can be reached"))
    }

    /// Another number each time that calls can be sent again: breakers begin anew with it, because what failed while
    /// nothing could be sent says nothing about whoever is to answer.
    fn connection(&self) -> u64 {
        0
    }
}

/// Reaches no other node: for who looks at a domain without a node.
#[derive(Debug, Clone, Copy)]
pub struct Nowhere;

impl Transport for Nowhere {
    fn call(&self, _: Request) -> BoxFuture<'static, Result<Bytes, CallFailure>> {
        std::future::ready(Err(CallFailure::Unavailable { retry_after: Duration::from_secs(5) })).boxed()
    }

    fn is_connected(&self) -> bool {
        false
    }
}

/// Stands for a domain that other nodes host, on one shard.
pub(crate) struct Remote {
    domain: &'static str,
    transport: Arc<dyn Transport>,
    clock: Clock,
}

impl Remote {
    pub(crate) fn new(domain: &'static str, transport: Arc<dyn Transport>, context: ShardContext) -> Self {
        Self { domain, transport, clock: context.clock }
    }
}

/// An operation that another node answers. Whatever a host answers shows that it can be reached: how its domain is, its
/// own breaker judges, which is nearer, and knows sooner that it is well again.
pub(crate) fn operation<M: Operation>(state: &StateCell<Remote>, index: usize) -> LocalOperation {
    shard::operation(state, index, |remote: Rc<Remote>, caller: &Caller, message: M| {
        let answer = remote.exchange(Signature::of::<M>(), caller.clone(), encode(&message));
        let judged = |answer: Result<Bytes, Failure>| match answer.and_then(|body| read::<M>(&body)) {
            Ok(outcome) => {
                let ending = Ending::of(&outcome).judged(Verdict::Works);
                (outcome, ending)
            }
            Err(failure) => {
                let ending = Ending::failed(&failure);
                (Err(failure.into()), ending)
            }
        };
        answer.map(judged).boxed_local()
    })
}

impl Remote {
    /// What a host answers.
    fn exchange(
        self: Rc<Self>,
        signature: &'static Signature,
        caller: Caller,
        body: Result<Bytes, Failure>,
    ) -> LocalBoxFuture<'static, Result<Bytes, Failure>> {
        async move {
            let request = request(signature, self.domain, Target::Domain, caller, body?, self.clock.instant());
            Ok(bring(&*self.transport, &self.clock, request).await?)
        }
        .boxed_local()
    }
}

/// The pause before a call whose outcome is unknown is sent again.
const PAUSE: Backoff =
    Backoff { first: Duration::from_millis(50), at_most: Duration::from_secs(1), factor: 2.0, jitter: 0.2 };

/// Asks a domain as one node hosts it.
pub(crate) async fn ask_at<M: Operation>(
    node: Uuid,
    transport: &dyn Transport,
    clock: &Clock,
    caller: &Caller,
    message: &M,
) -> Outcome<M> {
    let (signature, target) = (Signature::of::<M>(), Target::Node(node));
    let request = request(signature, M::domain(), target, caller.clone(), encode(message)?, clock.instant());
    read::<M>(&bring_in_time(transport, clock, request).await?)?
}

async fn bring_in_time(transport: &dyn Transport, clock: &Clock, request: Request) -> Result<Bytes, Failure> {
    let answer = clock.timeout_at(request.deadline, bring(transport, clock, request)).await;
    Ok(answer.unwrap_or(Err(CallFailure::Unknown))?)
}

fn request(
    signature: &'static Signature,
    domain: &'static str,
    target: Target,
    caller: Caller,
    body: Bytes,
    now: Instant,
) -> Request {
    let latest = now + signature.timeout;
    Request {
        operation: signature.name,
        domain,
        target,
        idempotent: signature.idempotent,
        deadline: caller.deadline.map_or(latest, |deadline| deadline.min(latest)),
        caller,
        body,
        traceparent: trace::current_traceparent(),
        idempotency_key: None,
    }
}

/// Sends a call, again after an unknown outcome if that can do no harm, until there is an answer or its time is up.
async fn bring(transport: &dyn Transport, clock: &Clock, mut request: Request) -> Result<Bytes, CallFailure> {
    if !request.idempotent {
        return transport.call(request).await;
    }
    let key = *request.idempotency_key.get_or_insert_with(Uuid::now_v7);
    // What makes something finds what an earlier attempt has made by the request that the caller names.
    request.caller.request.get_or_insert(key);
    let mut is_unknown = false;
    let attempt = async || transport.call(request.clone()).await;
    retry(clock, PAUSE, attempt, |failure, pause| {
        match failure {
            CallFailure::Unknown => is_unknown = true,
            // Nothing was executed now, but an earlier attempt may have been.
            CallFailure::Unavailable { .. } | CallFailure::Overloaded { .. } if is_unknown => {}
            other => return Err(other),
        }
        if clock.instant() + pause < request.deadline { Ok(()) } else { Err(CallFailure::Unknown) }
    })
    .await
}

fn encode<M: Operation>(message: &M) -> Result<Bytes, Failure> {
    let body = serde_json::to_vec(message);
    body.map(Bytes::from).map_err(|error| Failure::Internal(format!("{} cannot be written: {error}", M::NAME)))
}

fn read<M: Operation>(body: &[u8]) -> Result<Outcome<M>, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::Internal(format!("the answer to {} cannot be read: {error}", M::NAME)))
}

/// What a call that came by name ends in: an outcome as the caller's node reads it.
pub type Served = Vec<u8>;

/// Reads a message, and carries it out when its domain is given.
pub(crate) type Serve = fn(&[u8]) -> Result<Carry, serde_json::Error>;

/// Carries a message out, and writes its outcome.
pub(crate) type Carry = Box<dyn FnOnce(Arc<DomainCore>, Caller) -> LocalBoxFuture<'static, Served>>;

pub(crate) fn serve<M: Operation>(body: &[u8]) -> Result<Carry, serde_json::Error> {
    let message: M = serde_json::from_slice(body)?;
    Ok(Box::new(move |core, caller| {
        async move {
            let outcome = Ask::new(Some(&core), &caller, message).await;
            written::<M>(&outcome)
        }
        .boxed_local()
    }))
}

/// Carries out a call of `operation` that came from another node.
pub(crate) fn answer(
    serve: Serve,
    operation: &str,
    core: Arc<DomainCore>,
    caller: Caller,
    body: &[u8],
) -> LocalBoxFuture<'static, Served> {
    // A node of an older version lets through what no engine stores.
    if holds_nul(body) {
        return std::future::ready(failed(Failure::Invalid)).boxed_local();
    }
    match serve(body) {
        Ok(carry) => carry(core, caller),
        Err(error) => {
            tracing::warn!(operation, %error, "another node asks in words that this one does not know");
            std::future::ready(for_others()).boxed_local()
        }
    }
}

/// Whether a text in a JSON document, or a key, has the character U+0000, which PostgreSQL stores nowhere.
fn holds_nul(body: &[u8]) -> bool {
    fn has_nul(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(items) => items.iter().any(has_nul),
            Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    // It can only be written as an escape, which hardly any document has.
    const ESCAPE: &[u8] = b"\\u0000";
    body.contains(&b'\\')
        && body.windows(ESCAPE.len()).any(|bytes| bytes == ESCAPE)
        && serde_json::from_slice(body).is_ok_and(|document: Value| has_nul(&document))
}

fn written<M: Operation>(outcome: &Outcome<M>) -> Served {
    serde_json::to_vec(outcome).unwrap_or_else(|error| {
        failed(Failure::Internal(format!("the reply of {} cannot be written: {error}", M::NAME)))
    })
}

/// Of no operation in particular: every caller can read it, whatever its errors are.
#[derive(Serialize, Deserialize)]
enum Nothing {}

/// A failure as the answer to any operation.
#[must_use]
pub fn failed(failure: Failure) -> Served {
    let outcome: Result<(), CallError<Nothing>> = Err(CallError::Failed(failure));
    serde_json::to_vec(&outcome).unwrap_or_default()
}

/// When a call is likely to meet a node of another version.
const ANOTHER_AFTER: Duration = Duration::from_secs(1);

/// The answer of a node that does not know what it is asked for, as an older one in an upgrade: nothing was executed,
/// another node may know it, and that this one does not says nothing about the domain.
pub(crate) fn for_others() -> Served {
    failed(Failure::Overloaded { retry_after: ANOTHER_AFTER })
}
