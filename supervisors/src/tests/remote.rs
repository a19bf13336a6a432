//! Domains of other nodes, over a scripted transport.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use callboard_messages::{CallError, Caller, Failure, Operation};
use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use uuid::Uuid;

use super::fixture::*;
use crate::{
    Bulkhead, Bus, Clock, Outcome, Part, Runtime,
    call::remote::{CallFailure, Request, Target, Transport, failed},
};

/// Answers each call with the next of its answers, and after the last not at all.
#[derive(Clone, Default)]
struct Wire(Arc<Lines>);

#[derive(Default)]
struct Lines {
    answers: Mutex<VecDeque<Result<Bytes, CallFailure>>>,
    requests: Mutex<Vec<Request>>,
    away: AtomicBool,
    connection: AtomicU64,
}

impl Wire {
    fn answering<M: Operation>(answers: impl IntoIterator<Item = Result<Outcome<M>, CallFailure>>) -> Self {
        let wire = Self::default();
        let written = |answer: Outcome<M>| Bytes::from(serde_json::to_vec(&answer).unwrap());
        wire.0.answers.lock().extend(answers.into_iter().map(|answer| answer.map(written)));
        wire
    }

    fn asked(&self) -> usize {
        self.0.requests.lock().len()
    }
}

impl Transport for Wire {
    fn call(&self, request: Request) -> BoxFuture<'static, Result<Bytes, CallFailure>> {
        self.0.requests.lock().push(request);
        match self.0.answers.lock().pop_front() {
            Some(answer) => std::future::ready(answer).boxed(),
            None => std::future::pending().boxed(),
        }
    }

    fn is_connected(&self) -> bool {
        !self.0.away.load(Ordering::SeqCst)
    }

    fn connection(&self) -> u64 {
        self.0.connection.load(Ordering::SeqCst)
    }
}

async fn reaching(wire: &Wire) -> (Runtime, Bus, Clock) {
    let clock = manual();
    let remote = contract(Bulkhead::default()).remote(Arc::new(wire.clone()));
    let runtime = Runtime::builder()
        .clock(clock.clone())
        .workers(1)
        .transport(Arc::new(wire.clone()))
        .build(vec![remote])
        .unwrap();
    runtime.attach().await;
    let bus = runtime.bus().clone();
    (runtime, bus, clock)
}

#[actix_rt::test]
async fn replies_refusals_and_failures_come_back_as_they_were() {
    let refused = Err(CallError::Refused(Refusal));
    let answers = [
        Ok(Ok(7)),
        Ok(refused.clone()),
        Ok(Err(Failure::Forbidden("sample:write".into()).into())),
        Err(CallFailure::Overloaded { retry_after: Duration::from_secs(1) }),
        Err(CallFailure::Expired),
    ];
    let wire = Wire::answering::<Perform>(answers);
    let (_runtime, bus, _) = reaching(&wire).await;
    let ask = || async { bus.ask(&Caller::anonymous(), perform(Act::Reply(1))).await };
    assert_eq!(ask().await, Ok(7));
    assert_eq!(ask().await, refused);
    assert_eq!(ask().await, Err(Failure::Forbidden("sample:write".into()).into()));
    assert_eq!(ask().await, Err(Failure::Overloaded { retry_after: Duration::from_secs(1) }.into()));
    assert_eq!(ask().await, Err(Failure::Expired.into()));
    let request = wire.0.requests.lock()[0].clone();
    assert_eq!((request.operation, request.domain, request.target), ("sample.perform", "sample", Target::Domain));
}

#[actix_rt::test]
async fn an_answer_that_is_none_and_a_lost_one_are_told_apart() {
    let wire = Wire::default();
    wire.0.answers.lock().push_back(Ok(Bytes::from_static(b"{")));
    wire.0.answers.lock().push_back(Err(CallFailure::Unknown));
    let (_runtime, bus, _) = reaching(&wire).await;
    let garbage = bus.ask(&Caller::anonymous(), perform(Act::Reply(1))).await;
    assert!(matches!(garbage, Err(CallError::Failed(Failure::Internal(_)))));
    let lost = bus.ask(&Caller::anonymous(), perform(Act::Reply(1))).await;
    assert_eq!(lost, Err(Failure::Unknown.into()));
    assert_eq!(wire.asked(), 2, "what may not be done twice is not asked again");
    assert!(!Failure::Unknown.is_certain());
}

#[actix_rt::test]
async fn a_reply_that_does_not_come_is_an_unknown_outcome() {
    let wire = Wire::default();
    let (_runtime, bus, clock) = reaching(&wire).await;
    let asked = actix_rt::spawn(async move { bus.ask(&Caller::anonymous(), perform(Act::Reply(1))).await });
    until(|| wire.asked() == 1 && clock.sleepers() >= 1).await;
    clock.advance(Duration::from_secs(11));
    assert_eq!(asked.await.unwrap(), Err(Failure::Unknown.into()));
}

#[actix_rt::test]
async fn a_domain_that_cannot_be_reached_is_not_ready() {
    let wire = Wire::default();
    let (runtime, _, _) = reaching(&wire).await;
    assert!(runtime.ready()[0].ready);
    wire.0.away.store(true, Ordering::SeqCst);
    let ready = &runtime.ready()[0];
    assert_eq!((ready.part, ready.reason.as_deref()), (Some(Part::Broker), Some("no other node can be reached")));
    assert_eq!(runtime.tree().children[0].state, "away");
}

#[actix_rt::test]
async fn a_breaker_judges_one_connection_and_begins_anew_with_the_next() {
    let lost = (0..20).map(|_| Err(CallFailure::Unavailable { retry_after: Duration::from_secs(1) }));
    let wire = Wire::answering::<Perform>(lost.chain([Ok(Ok(7))]));
    let (runtime, bus, _) = reaching(&wire).await;
    for _ in 0..20 {
        assert!(bus.ask(&Caller::anonymous(), perform(Act::Reply(1))).await.is_err());
    }
    assert!(bus.ask(&Caller::anonymous(), perform(Act::Reply(1))).await.is_err());
    assert_eq!(wire.asked(), 20, "it is open");
    let ask_from_elsewhere = || {
        let bus = bus.clone();
        let asked = move || actix_rt::System::new().block_on(bus.ask(&Caller::anonymous(), perform(Act::Reply(1))));
        tokio::task::spawn_blocking(asked)
    };
    assert!(ask_from_elsewhere().await.unwrap().is_err());
    assert_eq!(wire.asked(), 20, "for other threads as well");
    wire.0.connection.store(1, Ordering::SeqCst);
    assert_eq!(ask_from_elsewhere().await.unwrap(), Ok(7));
    assert_eq!(runtime.tree().children[0].breaker, Some("closed"));
}

#[actix_rt::test]
async fn what_a_host_answers_is_no_failure_of_the_way_to_it() {
    let second = Duration::from_secs(1);
    let told = [
        Failure::Unavailable { retry_after: second },
        Failure::Internal("a fault of theirs".to_owned()),
        Failure::Timeout,
    ];
    let answers = (0..99).map(|number: usize| Ok(Err(told[number % told.len()].clone().into())));
    let wire = Wire::answering::<Perform>(answers.chain([Ok(Ok(7))]));
    let (runtime, bus, _) = reaching(&wire).await;
    for number in 0..99 {
        let outcome = bus.ask(&Caller::anonymous(), perform(Act::Reply(1))).await;
        assert_eq!(outcome, Err(told[number % told.len()].clone().into()));
    }
    assert_eq!(runtime.tree().children[0].breaker, Some("closed"));
    assert_eq!(bus.ask(&Caller::anonymous(), perform(Act::Reply(1))).await, Ok(7), "as soon as the host is well");
    assert_eq!(wire.asked(), 100);
}

#[actix_rt::test]
async fn a_text_that_no_engine_stores_comes_from_no_other_node() {
    let (runtime, bus, _) = node(vec![sample(Bulkhead::default(), &Watch::default()).build()]).await;
    let read = |served: Vec<u8>| serde_json::from_slice::<Outcome<Perform>>(&served).unwrap();
    for body in [r#"[{"Reply":1},"\u0000"]"#, r#"{"a":[{"b\u0000":1}]}"#, r#"["\\\u0000"]"#] {
        for _ in 0..20 {
            let outcome = read(bus.serve("sample.perform", Caller::anonymous(), body.as_bytes()).await);
            assert_eq!(outcome, Err(Failure::Invalid.into()), "{body}");
        }
    }
    let outcome = read(bus.serve("sample.perform", Caller::anonymous(), br#"["\\u0000"]"#).await);
    assert_ne!(outcome, Err(Failure::Invalid.into()), "a backslash and zeros");
    assert_eq!(runtime.tree().children[0].breaker, Some("closed"));
}

#[actix_rt::test]
async fn one_node_is_asked_over_the_way_and_this_one_is_not() {
    let wire = Wire::answering::<Perform>([Ok(Ok(3))]);
    let (_runtime, bus, _) = reaching(&wire).await;
    let there = Uuid::now_v7();
    assert_eq!(bus.ask_at(there, &Caller::anonymous(), perform(Act::Reply(1))).await, Ok(3));
    assert_eq!(wire.0.requests.lock()[0].target, Target::Node(there));

    let (_runtime, bus, _) = node(vec![sample(Bulkhead::default(), &Watch::default()).build()]).await;
    assert_eq!(bus.ask_at(bus.node(), &Caller::anonymous(), perform(Act::Reply(4))).await, Ok(4));
    let alone = bus.ask_at(there, &Caller::anonymous(), perform(Act::Reply(4))).await;
    assert!(matches!(alone, Err(CallError::Failed(Failure::Unavailable { .. }))));
}

#[actix_rt::test]
async fn a_host_serves_by_name_and_a_node_that_only_reaches_a_domain_does_not() {
    let (_runtime, bus, _) = node(vec![sample(Bulkhead::default(), &Watch::default()).build()]).await;
    let body = serde_json::to_vec(&perform(Act::Reply(5))).unwrap();
    let read = |served: Vec<u8>| serde_json::from_slice::<Outcome<Perform>>(&served).unwrap();
    assert_eq!(read(bus.serve("sample.perform", Caller::anonymous(), &body).await), Ok(5));
    // Nothing was executed, and another node may know what this one does not.
    let is_for_others =
        |outcome: &Outcome<Perform>| matches!(outcome, Err(CallError::Failed(Failure::Overloaded { .. })));
    assert!(is_for_others(&read(bus.serve("sample.perform", Caller::anonymous(), b"{").await)));
    assert!(is_for_others(&read(bus.serve("sample.vanish", Caller::anonymous(), b"{}").await)));
    assert_eq!(bus.hosted().iter().map(|domain| domain.name).collect::<Vec<_>>(), ["sample"]);

    let (_runtime, bus, _) = reaching(&Wire::default()).await;
    assert!(
        is_for_others(&read(bus.serve("sample.perform", Caller::anonymous(), &body).await)),
        "no way round in circles"
    );
    assert!(bus.hosted().is_empty());
    assert_eq!(read(failed(Failure::Expired)), Err(Failure::Expired.into()));
}
