//! Tests of dead letters: kept, listed, replayed, dropped, and bounded.

use callboard_messages::{
    Caller, CloudEvent, Code, Limit,
    cluster::{Bury, DeadLetter, DropDeadLetter, GetDeadLetter, ListDeadLetters, ReplayDeadLetter},
};
use callboard_supervisors::{Bus, Clock, testing::on_both_engines};
use chrono::DateTime;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Node;
use crate::{ClusterSettings, DOMAIN, MIGRATIONS};

fn event(data: Value) -> CloudEvent {
    let fields = json!({
        "specversion": "1.0", "id": Uuid::now_v7(), "source": "project", "type": "project.deleted",
        "subject": Uuid::now_v7(), "time": "2026-11-21T00:00:00Z", "data": data,
    });
    serde_json::from_value(fields).unwrap()
}

fn letter(domain: &str, event: Value) -> DeadLetter {
    DeadLetter {
        id: Uuid::now_v7(),
        domain: domain.to_owned(),
        event,
        error: "it can't be applied".to_owned(),
        attempts: 5,
        died_at: DateTime::UNIX_EPOCH,
    }
}

async fn bury(bus: &Bus, letter: &DeadLetter) {
    bus.ask(&Caller::system(), Bury { letter: letter.clone() }).await.unwrap();
}

async fn list(bus: &Bus, domain: Option<&str>) -> Vec<DeadLetter> {
    let message = ListDeadLetters { domain: domain.map(str::to_owned), limit: Limit::of(100), cursor: None };
    bus.ask(&Caller::system(), message).await.unwrap().items
}

async fn on_each(body: impl AsyncFn(Node)) {
    on_both_engines(&[(DOMAIN, &MIGRATIONS)], async |databases| {
        let settings = ClusterSettings { watches: false, dead_letters: 10, ..ClusterSettings::default() };
        body(Node::start(&databases, Clock::system(), settings)).await;
    })
    .await;
}

#[actix_rt::test]
async fn a_letter_is_kept_once_and_listed_newest_first() {
    on_each(async |node| {
        let bus = node.runtime.bus().clone();
        let (old, new) = (letter("deploy", json!({ "type": "a" })), letter("project", json!("no event\0at all")));
        for letter in [&old, &new, &old] {
            bury(&bus, letter).await;
        }
        let all = list(&bus, None).await;
        assert_eq!(all.iter().map(|letter| letter.domain.as_str()).collect::<Vec<_>>(), ["project", "deploy"]);
        assert_eq!(all[0].event, json!("no event\u{fffd}at all"));
        let of_deploy = list(&bus, Some("deploy")).await;
        assert_eq!(of_deploy, [DeadLetter { id: all[1].id, ..old }]);
        let message = ListDeadLetters { domain: None, limit: Limit::of(1), cursor: None };
        let page = bus.ask(&Caller::system(), message).await.unwrap();
        let message = ListDeadLetters { domain: None, limit: Limit::of(1), cursor: page.next };
        assert_eq!(bus.ask(&Caller::system(), message).await.unwrap().items, of_deploy);
        let got = bus.ask(&Caller::system(), GetDeadLetter { dead_letter_id: all[1].id }).await.unwrap();
        assert_eq!(got, of_deploy[0]);
        node.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_replayed_letter_goes_to_its_subscriber_and_is_gone() {
    on_each(async |mut node| {
        let bus = node.runtime.bus().clone();
        let event = event(json!({}));
        bury(&bus, &letter("deploy", serde_json::to_value(&event).unwrap())).await;
        let id = list(&bus, None).await[0].id;
        bus.ask(&Caller::system(), ReplayDeadLetter { dead_letter_id: id }).await.unwrap();
        assert_eq!(node.redelivered.recv().await.unwrap(), ("deploy".to_owned(), event));
        let again = bus.ask(&Caller::system(), ReplayDeadLetter { dead_letter_id: id }).await;
        assert_eq!(again.unwrap_err().code(), Code::NotFound);
        assert!(node.redelivered.try_recv().is_err());
        node.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn a_letter_that_nobody_takes_stays_until_it_is_dropped() {
    on_each(async |node| {
        let bus = node.runtime.bus().clone();
        bury(&bus, &letter("deploy", serde_json::to_value(event(json!({ "refuse": true }))).unwrap())).await;
        bury(&bus, &letter("deploy", json!("garbage"))).await;
        for letter in list(&bus, None).await {
            let replay = bus.ask(&Caller::system(), ReplayDeadLetter { dead_letter_id: letter.id }).await;
            assert_eq!(replay.unwrap_err().code(), Code::Conflict);
        }
        assert_eq!(list(&bus, None).await.len(), 2);
        for letter in list(&bus, None).await {
            let drop = || DropDeadLetter { dead_letter_id: letter.id };
            bus.ask(&Caller::system(), drop()).await.unwrap();
            assert_eq!(bus.ask(&Caller::system(), drop()).await.unwrap_err().code(), Code::NotFound);
        }
        assert!(list(&bus, None).await.is_empty());
        node.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn the_oldest_are_dropped_when_there_are_too_many() {
    on_each(async |node| {
        let bus = node.runtime.bus().clone();
        for n in 0..13 {
            bury(&bus, &letter("deploy", json!({ "n": n }))).await;
        }
        let kept: Vec<Value> = list(&bus, None).await.into_iter().map(|letter| letter.event["n"].clone()).collect();
        assert_eq!(kept, (3..13).rev().map(Value::from).collect::<Vec<_>>());
        node.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn what_was_no_event_goes_first_when_there_are_too_many() {
    on_each(async |node| {
        let bus = node.runtime.bus().clone();
        for n in 0..9 {
            bury(&bus, &letter("deploy", json!({ "n": n }))).await;
        }
        for n in 0..20 {
            bury(&bus, &letter("deploy", json!(format!("garbage {n}")))).await;
        }
        let kept = async || -> Vec<Value> { list(&bus, None).await.into_iter().map(|letter| letter.event).collect() };
        assert_eq!(kept().await.len(), 10);
        assert_eq!(kept().await[0], json!("garbage 19"));
        for n in 9..11 {
            bury(&bus, &letter("deploy", json!({ "n": n }))).await;
        }
        bury(&bus, &letter("deploy", json!("too late"))).await;
        assert_eq!(kept().await, (1..11).rev().map(|n| json!({ "n": n })).collect::<Vec<_>>());
        node.stop().await;
    })
    .await;
}

#[actix_rt::test]
async fn texts_of_any_length_are_kept_in_part_and_a_list_names_long_events_only() {
    on_each(async |node| {
        let bus = node.runtime.bus().clone();
        // More than an index of PostgreSQL takes.
        let long: String = (0..200).map(|_| Uuid::now_v7().simple().to_string()).collect();
        let event = event(json!(long));
        bury(&bus, &letter(&long, serde_json::to_value(&event).unwrap())).await;
        let listed = list(&bus, None).await;
        assert_eq!((listed.len(), &listed[0].domain), (1, &long[..64].to_owned()));
        assert_eq!(listed[0].event, json!({ "id": event.id, "type": "project.deleted" }));
        let whole = bus.ask(&Caller::system(), GetDeadLetter { dead_letter_id: listed[0].id }).await.unwrap();
        assert_eq!(whole.event["data"], json!(long));
        node.stop().await;
    })
    .await;
}
