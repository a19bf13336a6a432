//! The caller's side of an operation.

use std::{sync::Arc, time::Instant};

use callboard_supervisors::{
    Away, Part,
    remote::{CallFailure, Request, Target, Transport},
};
use futures_util::{FutureExt, future::BoxFuture};

use crate::{
    calls::{Answer, WaitingCall},
    hosts::Aim,
    outgoing,
    presence::RequestQueue,
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

    fn watch(&self, domain: &'static str) {
        self.0.request_queue(domain, Target::Domain);
    }

    fn away(&self, domain: &'static str) -> Option<Away> {
        self.0.away().or_else(|| {
            let is_absent = self.0.request_queue(domain, Target::Domain).is_absent();
            is_absent.then(|| Away::new(Part::Node, format!("no node takes the requests for {domain}")))
        })
    }

    fn connection(&self) -> u64 {
        self.0.times_begun()
    }
}

async fn call(shared: Arc<Shared>, request: Request) -> Answer {
    let unavailable = CallFailure::Unavailable { retry_after: RETRY_AFTER };
    if !shared.is_connected() && !shared.wait_connected(request.deadline).await {
        // The broker's absence is logged once.
        shared.outage.count();
        return Err(unavailable);
    }
    if shared.publisher.is_clogged() {
        return Err(CallFailure::Overloaded { retry_after: RETRY_AFTER });
    }
    let (requests, mut waiting) = begin(&shared, &request).await?;
    let left = request.deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(CallFailure::Expired);
    }
    let caller = serde_json::to_vec(&request.caller).unwrap_or_default();
    let parts = RequestParts {
        call: waiting.number,
        // Rounded up: a part of a millisecond must not become zero.
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
    outgoing::put(&shared, &requests.to, Some(waiting.number), left, |to| parts.write(to));
    // A call that is dropped unanswered has an unknown outcome.
    (&mut waiting.answer).await.unwrap_or(Err(CallFailure::Unknown))
}

/// The queue to send to, and the registered call.
async fn begin(shared: &Arc<Shared>, request: &Request) -> Result<(Arc<RequestQueue>, WaitingCall), CallFailure> {
    loop {
        let losses = shared.hosts.losses();
        let requests = aim(shared, request)?;
        requests.touch(Instant::now());
        if requests.is_unseen() {
            shared.presence.look(&requests, request.deadline).await;
        }
        if requests.is_absent() && !shared.wait_present(&requests, request.deadline).await {
            requests.outage.count();
            return Err(CallFailure::Unavailable { retry_after: RETRY_AFTER });
        }
        let repeatable = request.idempotent.then(|| shared.publisher.channels());
        let waiting = shared.calls.begin(requests.whom, repeatable);
        let waiting = waiting.ok_or(CallFailure::Overloaded { retry_after: RETRY_AFTER })?;
        // After a loss the chosen node may be the lost one, and calls were failed before this one was registered.
        if shared.hosts.losses() == losses {
            return Ok((requests, waiting));
        }
    }
}

fn aim(shared: &Shared, request: &Request) -> Result<Arc<RequestQueue>, CallFailure> {
    if request.target != Target::Domain {
        return Ok(shared.request_queue(request.domain, request.target));
    }
    let is_absent = |node| shared.request_queue(request.domain, Target::Node(node)).is_absent();
    match shared.hosts.aim(request.domain, Instant::now(), is_absent) {
        Aim::Anybody => Ok(shared.request_queue(request.domain, Target::Domain)),
        Aim::Node(node) => Ok(shared.request_queue(request.domain, Target::Node(node))),
        Aim::Nobody => Err(CallFailure::Unavailable { retry_after: RETRY_AFTER }),
    }
}
