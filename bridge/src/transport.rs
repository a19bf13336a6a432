//! The caller's side of an operation.

use std::{sync::Arc, time::Instant};

use callboard_supervisors::remote::{CallFailure, Request, Transport};
use futures_util::{FutureExt, future::BoxFuture};

use crate::{
    calls::Answer,
    outgoing,
    shared::{RETRY_AFTER, Shared},
    wire::RequestParts,
};

pub(crate) struct Outbound(pub(crate) Arc<Shared>);

impl Transport for Outbound {
    fn call(&self, request: Request) -> BoxFuture<'static, Answer> {
        call(self.0.clone(), request).boxed()
    }

    fn is_connected(&self) -> bool {
        self.0.is_connected()
    }

    fn connection(&self) -> u64 {
        self.0.times_begun()
    }
}

async fn call(shared: Arc<Shared>, request: Request) -> Answer {
    let unavailable = CallFailure::Unavailable { retry_after: RETRY_AFTER };
    if !shared.is_connected() && !shared.wait_connected(request.deadline).await {
        return Err(unavailable);
    }
    if shared.publisher.is_clogged() {
        return Err(CallFailure::Overloaded { retry_after: RETRY_AFTER });
    }
    let place = shared.presence.place(&shared.names, request.domain, request.target);
    place.touch(Instant::now());
    if place.is_unseen() {
        shared.presence.look(&place, request.deadline).await;
    }
    if place.is_absent() && !shared.wait_present(&place, request.deadline).await {
        return Err(unavailable);
    }
    let left = request.deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(CallFailure::Expired);
    }
    let caller = serde_json::to_vec(&request.caller).unwrap_or_default();
    let repeatable = request.idempotent.then(|| shared.publisher.channels());
    let Some(mut waiting) = shared.calls.begin(repeatable) else {
        return Err(CallFailure::Overloaded { retry_after: RETRY_AFTER });
    };
    let parts = RequestParts {
        call: waiting.number,
        // Rounded up: what is left of a millisecond is not nothing.
        left: u32::try_from(left.as_millis()).unwrap_or(u32::MAX).saturating_add(1),
        idempotent: request.idempotent,
        operation: request.operation,
        caller: &caller,
        traceparent: request.traceparent.as_deref(),
        body: &request.body,
    };
    if !outgoing::fits(&shared, parts.len()) {
        return Err(CallFailure::TooLarge(parts.len()));
    }
    outgoing::put(&shared, &place.to, Some(waiting.number), left, |to| parts.write(to));
    // Whoever answers has taken the sender out; one that is dropped unanswered tells nothing.
    (&mut waiting.answer).await.unwrap_or(Err(CallFailure::Unknown))
}
