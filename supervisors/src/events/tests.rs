//! The outbox, the relay and the inbox, on both engines.

mod fixture;
mod versions;
mod waiting;

use std::{cell::RefCell, collections::HashSet, rc::Rc, sync::Arc, time::Duration};

use callboard_messages::{Caller, Failure};
use futures_util::future::join_all;
use uuid::Uuid;

use self::fixture::*;
use super::*;
use crate::{Clock, db::Databases};

#[actix_rt::test]
async fn committed_events_are_applied_once_in_the_order_of_their_aggregate() {
    on_both(async |databases| {
        let source = databases.open("source").await.unwrap();
        let aggregates: Vec<Uuid> = (0..5).map(|_| Uuid::now_v7()).collect();
        // Some before any node runs, as after a crash.
        for number in 0..4 {
            for to in &aggregates {
                emit_one(&source, &Happened::new(*to, number)).await;
            }
        }
        let node = Node::start(&databases, Arc::new(InProcess::default())).await;
        for number in 4..8 {
            for to in &aggregates {
                emit_one(&source, &Happened::new(*to, number)).await;
            }
        }
        let mut undone = source.begin().await.unwrap();
        emit(&mut undone, &Caller::system(), &Happened::new(aggregates[0], 99)).await.unwrap();
        undone.rollback().await.unwrap();
        emit_one(&source, &Unheard(aggregates[0])).await;
        eventually("the outbox is empty", async || pending(&source).await == 0).await;
        let numbers = applied(&databases).await;
        for to in &aggregates {
            assert_eq!(numbers[to], (0..8).collect::<Vec<_>>());
        }
        node.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn what_cannot_be_applied_is_buried_and_what_stands_behind_it_goes_on() {
    on_both(async |databases| {
        let node = Node::start(&databases, Arc::new(InProcess::default())).await;
        let source = databases.open("source").await.unwrap();
        let (poisoned, other) = (Uuid::now_v7(), Uuid::now_v7());
        for number in [12, POISON, 14] {
            emit_one(&source, &Happened::new(poisoned, number)).await;
        }
        emit_one(&source, &Happened::new(other, 1)).await;
        eventually("the other aggregate", async || applied(&databases).await.contains_key(&other)).await;
        eventually("the outbox is empty", async || pending(&source).await == 0).await;
        assert_eq!(applied(&databases).await[&poisoned], [12, 14], "and nothing is left of thirteen");
        let letters = node.graves.0.lock().clone();
        let [letter] = letters.as_slice() else { panic!("one dead letter, not {letters:?}") };
        assert_eq!(
            (letter.domain.as_str(), letter.attempts, letter.error.as_str()),
            ("target", DELIVERIES, "thirteen")
        );
        let buried: CloudEvent = serde_json::from_value(letter.event.clone()).unwrap();
        assert_eq!(buried.read::<Happened>().unwrap().number, POISON);
        assert!((node.runtime.events().redeliver("nobody", buried).await).is_err());
        node.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn what_takes_the_whole_time_of_each_attempt_is_buried_as_well() {
    on_both(async |databases| {
        let clock = Clock::manual(chrono::DateTime::UNIX_EPOCH);
        let node = Node::start_at(&databases, Arc::new(InProcess::default()), &clock).await;
        let source = databases.open("source").await.unwrap();
        let to = Uuid::now_v7();
        for number in [ENDLESS, ENDLESS + 1] {
            emit_one(&source, &Happened::new(to, number)).await;
        }
        eventually("it is buried", async || {
            clock.advance(Duration::from_millis(250));
            !node.graves.0.lock().is_empty()
        })
        .await;
        eventually("the next is applied", async || {
            clock.advance(Duration::from_millis(250));
            applied(&databases).await.contains_key(&to)
        })
        .await;
        let attempts: Vec<u32> = node.graves.0.lock().iter().map(|letter| letter.attempts).collect();
        assert_eq!(attempts, [DELIVERIES]);
        node.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_second_delivery_has_no_second_effect_whoever_brings_it() {
    on_both(async |databases| {
        let recorder = Recorder::default();
        let node = Node::start(&databases, Arc::new(recorder.clone())).await;
        let sink = recorder.0.lock().sinks[0].clone();
        let happened = Happened::new(Uuid::now_v7(), 1);
        let event = CloudEvent::new("source", Clock::system().now(), &happened).unwrap();
        let attempts = join_all((0..8).map(|_| sink.attempt(event.clone()))).await;
        let count = |wanted: Attempt| attempts.iter().filter(|attempt| **attempt == wanted).count();
        assert_eq!((count(Attempt::Applied), count(Attempt::Duplicate)), (1, 7), "{attempts:?}");
        assert_eq!(sink.attempt(event.clone()).await, Attempt::Duplicate);
        assert_eq!(applied(&databases).await[&happened.to], [1]);

        let mut strange = event.clone();
        (strange.id, strange.data) = (Uuid::now_v7(), serde_json::json!("nothing of the kind"));
        assert!(matches!(sink.attempt(strange).await, Attempt::Failed(reason) if reason.contains("thing.happened")));
        node.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn what_nobody_takes_keeps_its_row_and_is_seen() {
    on_both(async |databases| {
        let recorder = Recorder::default();
        recorder.0.lock().fails = Some(PublishError::Unroutable("no queue".to_owned()));
        let node = Node::start(&databases, Arc::new(recorder.clone())).await;
        let heard = recorder.0.lock().catalogue.clone();
        assert_eq!(heard.subscriptions(), [Subscription { domain: "target", types: vec!["thing.happened"] }]);
        let source = databases.open("source").await.unwrap();
        let to = Uuid::now_v7();
        for number in 0..3 {
            emit_one(&source, &Happened::new(to, number)).await;
        }
        // Both are measured at the same time, but not at every moment.
        let seen = || (node.metric("callboard_outbox_unroutable"), node.metric("callboard_outbox_pending"));
        eventually("the alert", async || seen() == (1.0, 3.0)).await;
        assert_eq!(pending(&source).await, 3);
        let (trouble,): (String,) =
            source.query("SELECT trouble FROM outbox WHERE trouble IS NOT NULL").fetch_one().await.unwrap();
        assert_eq!(trouble, "no queue");

        recorder.0.lock().fails = None;
        eventually("the outbox is empty", async || pending(&source).await == 0).await;
        let published: Vec<i64> = {
            let recorded = recorder.0.lock();
            recorded.published.iter().map(|event| event.read::<Happened>().unwrap().number).collect()
        };
        assert_eq!(published, [0, 1, 2]);
        eventually("the alert is over", async || node.metric("callboard_outbox_unroutable") == 0.0).await;
        node.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn nodes_that_relay_together_lose_nothing_and_keep_the_order() {
    on_both(async |databases| {
        let recorder = Recorder::default();
        let first = Node::start(&databases, Arc::new(recorder.clone())).await;
        let second = Node::start(&databases, Arc::new(recorder.clone())).await;
        let source = databases.open("source").await.unwrap();
        let aggregates: Vec<Uuid> = (0..10).map(|_| Uuid::now_v7()).collect();
        for number in 0..10 {
            join_all(aggregates.iter().map(async |to| emit_one(&source, &Happened::new(*to, number)).await)).await;
            if number == 5 {
                first.stop().await;
            }
        }
        eventually("the outbox is empty", async || pending(&source).await == 0).await;
        let published = recorder.0.lock().published.clone();
        for to in &aggregates {
            let mut seen = HashSet::new();
            let numbers: Vec<i64> = published
                .iter()
                .filter(|event| event.subject == *to && seen.insert(event.id))
                .map(|event| event.read::<Happened>().unwrap().number)
                .collect();
            assert_eq!(numbers, (0..10).collect::<Vec<_>>(), "in their order, and none is missing");
        }
        second.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn what_a_killed_node_had_under_way_is_published_by_the_next() {
    on_both(async |databases| {
        let source = databases.open("source").await.unwrap();
        let to = Uuid::now_v7();
        for number in 0..3 {
            emit_one(&source, &Happened::new(to, number)).await;
        }
        // The killed node held the lease, and did not release it.
        source
            .query("INSERT INTO leases (name, holder, token, beat, ttl) VALUES ('outbox', $1, 7, 3, 1000)")
            .bind(Uuid::now_v7())
            .execute()
            .await
            .unwrap();
        let node = Node::start(&databases, Arc::new(InProcess::default())).await;
        eventually("the outbox is empty", async || pending(&source).await == 0).await;
        assert_eq!(applied(&databases).await[&to], [0, 1, 2]);
        node.stop().await;
        let (holder, token): (Option<Uuid>, i64) =
            source.query("SELECT holder, token FROM leases WHERE name = 'outbox'").fetch_one().await.unwrap();
        assert_eq!((holder, token > 7), (None, true), "given back as the node stopped");
    })
    .await;
}

#[actix_rt::test]
async fn transactions_that_emit_for_one_aggregate_get_their_places_in_the_order_they_commit() {
    on_both(async |databases| {
        let source = databases.open("source").await.unwrap();
        let to = Uuid::now_v7();
        let order = Rc::new(RefCell::new(Vec::new()));
        join_all((0..20).map(async |number| {
            let mut transaction = source.begin().await.unwrap();
            emit(&mut transaction, &Caller::system(), &Happened::new(to, number)).await.unwrap();
            tokio::task::yield_now().await;
            order.borrow_mut().push(number);
            transaction.commit().await.unwrap();
        }))
        .await;
        let rows: Vec<(sqlx::types::Json<CloudEvent>,)> =
            source.query("SELECT event FROM outbox ORDER BY position").fetch_all().await.unwrap();
        let numbers: Vec<i64> = rows.iter().map(|(event,)| event.read::<Happened>().unwrap().number).collect();
        assert_eq!(numbers, *order.borrow());
    })
    .await;
}

#[actix_rt::test]
async fn a_domain_that_is_away_is_waited_for() {
    let refused: Failure = Failure::Unavailable { retry_after: Duration::from_secs(1) };
    assert!(refused.is_certain());
    on_both(async |databases| {
        let recorder = Recorder::default();
        let node = Node::start(&databases, Arc::new(recorder.clone())).await;
        let sink = recorder.0.lock().sinks[0].clone();
        node.runtime.force_breaker("target", Some(crate::breaker::Force::Open));
        let happened = Happened::new(Uuid::now_v7(), 1);
        let event = CloudEvent::new("source", Clock::system().now(), &happened).unwrap();
        eventually("the breaker is open", async || matches!(sink.attempt(event.clone()).await, Attempt::Later { .. }))
            .await;
        assert!(node.graves.0.lock().is_empty());
        node.stop().await;
    })
    .await;
}
