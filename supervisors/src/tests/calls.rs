//! Outcomes of a call.

use std::time::Duration;

use callboard_messages::{CallError, Caller, Failure, Scopes};
use uuid::Uuid;

use super::fixture::*;
use crate::Bulkhead;

#[actix_rt::test]
async fn a_call_is_answered_refused_or_failed() {
    let watch = Watch::default();
    let (runtime, bus, _) = node(vec![sample(Bulkhead::default(), &watch).build(), elsewhere(&watch)]).await;
    let caller = Caller::anonymous();
    assert_eq!(bus.ask(&caller, perform(Act::Reply(7))).await, Ok(7));
    assert_eq!(bus.ask(&caller, perform(Act::Refuse)).await, Err(CallError::Refused(Refusal)));
    assert!(matches!(bus.ask(&caller, perform(Act::Fail)).await, Err(CallError::Failed(Failure::Unavailable { .. }))));
    let actor = bus.actor("sample").unwrap();
    assert_eq!(actor.ask(&caller, perform(Act::Reply(8))).await, Ok(8));
    assert!(bus.actor("nobody").is_none());
    for unanswered in [
        bus.ask(&caller, Unanswered(Act::Reply(1), Uuid::nil())).await,
        actor.ask(&caller, Unanswered(Act::Reply(1), Uuid::nil())).await,
    ] {
        assert!(matches!(unanswered, Err(CallError::Failed(Failure::Internal(_)))));
    }
    assert!(runtime.ready().iter().all(|domain| domain.ready));
}

#[actix_rt::test]
async fn access_is_checked_before_anything_else() {
    let (_runtime, bus, _) = node(vec![sample(Bulkhead::default(), &Watch::default()).build()]).await;
    let anonymous = Caller::anonymous();
    let user = |scopes: &[&str]| Caller {
        principal: callboard_messages::Principal::User,
        scopes: Scopes::new(scopes.iter().copied()),
        ..Caller::anonymous()
    };
    let reply = || Act::Reply(1);
    let nil = Uuid::nil();
    let unauthenticated = || Err(CallError::Failed(Failure::Unauthenticated));
    assert_eq!(bus.ask(&anonymous, Known(reply(), nil)).await, unauthenticated());
    assert_eq!(bus.ask(&user(&[]), Known(reply(), nil)).await, Ok(1));
    assert_eq!(bus.ask(&anonymous, Permitted(reply(), nil)).await, unauthenticated());
    let forbidden = Err(CallError::Failed(Failure::Forbidden("sample:write".into())));
    assert_eq!(bus.ask(&user(&["sample:read"]), Permitted(reply(), nil)).await, forbidden);
    assert_eq!(bus.ask(&user(&["sample:*"]), Permitted(reply(), nil)).await, Ok(1));
    assert!(bus.ask(&user(&["*"]), Inner(reply(), nil)).await.is_err());
    assert_eq!(bus.ask(&Caller::system(), Inner(reply(), nil)).await, Ok(1));
}

#[actix_rt::test]
async fn a_call_from_a_thread_without_a_shard_is_answered_by_one_that_has() {
    let watch = Watch::default();
    let (runtime, bus, _) = node(vec![dedicated_sample(Bulkhead::default(), 2, &watch).build()]).await;
    let caller = Caller::anonymous();
    for n in 0..100 {
        assert_eq!(bus.ask(&caller, perform(Act::Reply(n))).await, Ok(n));
    }
    assert_eq!(watch.builds(), 2);
    runtime.stop(Duration::ZERO).await;
    assert!(bus.ask(&caller, perform(Act::Reply(1))).await.is_err());
}
