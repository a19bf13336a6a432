//! Nodes of two versions side by side: what one emits, the other may not know in full, or at all.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::*;

/// An event as a node of another version has written it.
fn written(kind: &str, time: DateTime<Utc>, data: &Value) -> CloudEvent {
    let event = json!({
        "specversion": "1.0",
        "id": Uuid::now_v7(),
        "source": "source",
        "type": kind,
        "subject": Uuid::now_v7(),
        "time": time,
        "data": data,
        "sampledrate": 3,
    });
    serde_json::from_value(event).unwrap()
}

async fn sink(databases: &Databases, clock: &Clock) -> (Node, EventSink) {
    let recorder = Recorder::default();
    let node = Node::start_at(databases, Arc::new(recorder.clone()), clock).await;
    let sink = recorder.0.lock().sinks[0].clone();
    (node, sink)
}

#[actix_rt::test]
async fn fields_that_only_another_version_has_are_passed_over_and_missing_ones_take_their_default() {
    on_both(async |databases| {
        let (node, sink) = sink(&databases, &Clock::system()).await;
        let (to, now) = (Uuid::now_v7(), Clock::system().now());
        let newer = json!({ "to": to, "number": 1, "note": "hello", "shade": { "of": "blue" } });
        let older = json!({ "to": to, "number": 2 });
        for data in [newer, older] {
            let event = written(Happened::NAME, now, &data);
            assert_eq!(event.read::<Happened>().unwrap().note.is_some(), data.get("note").is_some());
            assert_eq!(sink.attempt(event).await, Attempt::Applied);
        }
        assert_eq!(applied(&databases).await[&to], [1, 2]);
        let without_what_it_needs = written(Happened::NAME, now, &json!({ "to": to }));
        assert!(matches!(sink.attempt(without_what_it_needs).await, Attempt::Failed(_)));
        node.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn what_only_a_newer_version_reacts_to_is_left_to_another_node_or_buried_whole() {
    on_both(async |databases| {
        let (node, sink) = sink(&databases, &Clock::system()).await;
        let event = written("thing.of_a_later_version", Clock::system().now(), &json!({ "kept": true }));
        let mut attempts = 0;
        let Err(Untaken::Unknown(reason)) = sink.deliver(&event, &mut attempts).await else { panic!("it was taken") };
        assert!(reason.contains("does not react to thing.of_a_later_version"), "{reason}");
        assert!(node.graves.0.lock().is_empty());
        sink.bury(&event, reason.clone(), attempts + 1).await;
        let letters = node.graves.0.lock().clone();
        let [letter] = letters.as_slice() else { panic!("one dead letter, not {letters:?}") };
        assert_eq!((letter.domain.as_str(), letter.attempts, &letter.error), ("target", 1, &reason));
        assert_eq!(letter.event, serde_json::to_value(event).unwrap(), "whole, so that it can be delivered again");
        node.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn what_nobody_here_reacts_to_is_published_for_those_who_may_elsewhere() {
    on_both(async |databases| {
        let recorder = Recorder::default();
        let node = Node::start(&databases, Arc::new(recorder.clone())).await;
        let source = databases.open("source").await.unwrap();
        let to = Uuid::now_v7();
        emit_one(&source, &Unheard(to)).await;
        eventually("the outbox is empty", async || pending(&source).await == 0).await;
        let published = recorder.0.lock().published.clone();
        assert!(matches!(published.as_slice(), [event] if event.kind == Unheard::NAME), "{published:?}");

        // No domain does, which is no failure.
        recorder.0.lock().fails = Some(PublishError::Unroutable("no queue".to_owned()));
        emit_one(&source, &Unheard(to)).await;
        eventually("the outbox is empty", async || pending(&source).await == 0).await;
        // The broker may be away.
        recorder.0.lock().fails = Some(PublishError::Unconfirmed("no broker".to_owned()));
        emit_one(&source, &Unheard(to)).await;
        eventually("it is tried again", async || recorder.0.lock().tries >= 4).await;
        assert_eq!(pending(&source).await, 1);
        node.stop().await;
    })
    .await;
}
