//! Events of one node, applied by domains of others.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use callboard_supervisors::{breaker::Force, events::PublishError};
use lapin::{
    BasicProperties,
    options::{BasicPublishOptions, QueueDeclareOptions},
};
use uuid::Uuid;

use crate::{fixture::*, proxy::Proxy, store::Store, target::*};

#[actix_rt::test]
async fn events_are_applied_once_and_in_order_whatever_breaks() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let (to_source, to_target) = (Proxy::to(&url()).await, Proxy::to(&url()).await);
    let source = emitting(&cluster, &to_source.url(&url())).await;
    let _first = reacting(&cluster, &to_target.url(&url()), &store, &applied, &graves).await;
    let aggregates: Vec<Uuid> = (0..3).map(|_| Uuid::now_v7()).collect();
    for number in 0..30 {
        for aggregate in &aggregates {
            let event = happened(*aggregate, number);
            publish(&source, event.clone()).await;
            if number % 10 == 9 {
                // Confirmed, and published again, as after a crash of the relay.
                publish(&source, event).await;
            }
        }
        match number {
            8 => to_target.cut(),
            16 => to_source.cut(),
            24 => (to_source.cut(), to_target.cut()).0,
            _ => {}
        }
    }
    until("all are applied", || applied.done.lock().len() >= 90).await;
    for aggregate in aggregates {
        let numbers: Vec<i64> =
            applied.done.lock().iter().filter(|(to, _)| *to == aggregate).map(|(_, number)| *number).collect();
        assert_eq!(numbers, (0..30).collect::<Vec<_>>());
    }
    assert!(graves.0.lock().is_empty());
}

#[actix_rt::test]
async fn another_node_takes_over_the_events_of_a_domain() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let source = emitting(&cluster, &url()).await;
    let first = reacting(&cluster, &url(), &store, &applied, &graves).await;
    let second = reacting(&cluster, &url(), &store, &applied, &graves).await;
    let aggregate = Uuid::now_v7();
    publish(&source, happened(aggregate, 0)).await;
    until("the first is applied", || applied.done.lock().len() == 1).await;
    assert!(first.bridge.drain(Duration::from_secs(10)).await);
    first.stop().await;
    publish(&source, happened(aggregate, 1)).await;
    until("the second is applied", || applied.done.lock().len() == 2).await;
    second.stop().await;
}

#[actix_rt::test]
async fn a_node_that_drains_leaves_the_events_of_an_aggregate_in_order() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let source = emitting(&cluster, &url()).await;
    let first = reacting(&cluster, &url(), &store, &applied, &graves).await;
    let aggregate = Uuid::now_v7();
    publish(&source, happened(aggregate, 0)).await;
    until("the first is applied", || applied.done.lock().len() == 1).await;
    let second = reacting(&cluster, &url(), &store, &applied, &graves).await;
    *applied.held.lock() = Some(1);
    for number in 1..=3 {
        publish(&source, happened(aggregate, number)).await;
    }
    until("they are taken", || first.metric("callboard_bridge_received_total", "event") >= 4.0).await;
    assert!(first.bridge.drain(Duration::from_secs(10)).await);
    for number in 4..=6 {
        publish(&source, happened(aggregate, number)).await;
    }
    *applied.held.lock() = None;
    until("all are applied", || applied.done.lock().len() == 7).await;
    let numbers: Vec<i64> = applied.done.lock().iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, (0..=6).collect::<Vec<_>>());
    assert_eq!(second.metric("callboard_bridge_received_total", "event"), 5.0, "what was not begun was handed over");
}

#[actix_rt::test]
async fn the_exchange_of_events_that_was_deleted_comes_back() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let source = emitting(&cluster, &url()).await;
    let _target = reacting(&cluster, &url(), &store, &applied, &graves).await;
    publish(&source, happened(Uuid::now_v7(), 1)).await;
    let (_connection, channel) = channel().await;
    let events = format!("{}.events", cluster.prefix);
    channel.exchange_delete(events.as_str().into(), Default::default()).await.unwrap();
    // 404: closes the channel.
    let lost = source.bridge.events().publish(happened(Uuid::now_v7(), 2)).await;
    assert!(matches!(lost, Err(PublishError::Unconfirmed(_))), "{lost:?}");
    publish(&source, happened(Uuid::now_v7(), 3)).await;
    // The unconfirmed one too: only the subscribers behind the exchange may lack it.
    until("all are applied", || applied.done.lock().len() == 3).await;
    assert_eq!(source.metric("callboard_bridge_connections_total", ""), 1.0, "only channels were lost");
}

#[actix_rt::test]
async fn poison_is_buried_and_what_follows_is_applied() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let source = emitting(&cluster, &url()).await;
    let _target = reacting(&cluster, &url(), &store, &applied, &graves).await;
    let aggregate = Uuid::now_v7();
    for number in [1, -1, 2] {
        publish(&source, happened(aggregate, number)).await;
    }
    until("the last is applied", || applied.done.lock().len() == 2).await;
    let letters = graves.0.lock().clone();
    assert_eq!((letters.len(), letters[0].domain.as_str(), letters[0].attempts), (1, "target", 5));
    assert_eq!(letters[0].event["data"]["number"], -1);
}

#[actix_rt::test]
async fn what_is_no_event_of_the_cluster_becomes_a_dead_letter() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let source = emitting(&cluster, &url()).await;
    let target = reacting(&cluster, &url(), &store, &applied, &graves).await;
    publish(&source, happened(Uuid::now_v7(), 1)).await;
    let (_connection, channel) = channel().await;
    let queue = format!("{}.events.target", cluster.prefix);
    let unsigned = serde_json::to_vec(&happened(Uuid::now_v7(), 2)).unwrap();
    for body in [b"garbage".to_vec(), unsigned] {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish("".into(), queue.as_str().into(), options, &body, properties).await.unwrap();
    }
    until("both are buried", || graves.0.lock().len() == 2).await;
    publish(&source, happened(Uuid::now_v7(), 3)).await;
    until("the queue moves on", || applied.done.lock().len() == 2).await;
    assert_eq!(target.refused("signature"), 2.0);
    let letters = graves.0.lock().clone();
    assert!(letters.iter().all(|letter| letter.domain == "target"), "{letters:?}");
    assert!(letters.iter().any(|letter| letter.event == "garbage"));
    let dead = format!("{}.dead", cluster.prefix);
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let dead = channel.queue_declare(dead.as_str().into(), passive, Default::default()).await.unwrap();
    assert_eq!(dead.message_count(), 0);
}

#[actix_rt::test]
async fn an_event_that_no_queue_takes_is_not_confirmed_until_one_does() {
    let cluster = Cluster::new();
    let source = emitting(&cluster, &url()).await;
    publish(&source, happened(Uuid::now_v7(), 1)).await;
    let (_connection, channel) = channel().await;
    let queue = format!("{}.events.target", cluster.prefix);
    channel.queue_delete(queue.as_str().into(), Default::default()).await.unwrap();
    let lost = source.bridge.events().publish(happened(Uuid::now_v7(), 2)).await;
    assert!(matches!(lost, Err(PublishError::Unroutable(_))), "{lost:?}");
    assert!(source.metric("callboard_bridge_unroutable_total", "") >= 1.0);
    publish(&source, happened(Uuid::now_v7(), 3)).await;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let waiting = channel.queue_declare(queue.as_str().into(), passive, Default::default()).await.unwrap();
    // And perhaps one for subscribers of a newer version, because the binding may have come later: this one drops it.
    assert!((1..=2).contains(&waiting.message_count()), "it waits for whoever hosts the domain");
}

#[actix_rt::test]
async fn an_event_with_two_subscribers_is_published_when_the_queue_of_each_has_it() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (first, second, graves) = (Applied::default(), Applied::default(), Graves::default());
    let source = Node::start(cluster.settings(&url()), |transport| {
        vec![target().remote(transport.clone()), second_target().remote(transport)]
    })
    .await;
    let _hosting_the_first = reacting(&cluster, &url(), &store, &first, &graves).await;
    publish(&source, happened(Uuid::now_v7(), 1)).await;
    until("the first applies it", || first.done.lock().len() == 1).await;

    // The second's queue is deleted while it has no consumer; the binding of the first is removed too.
    let (_connection, channel) = channel().await;
    let queue = |domain: &str| format!("{}.events.{domain}", cluster.prefix);
    channel.queue_delete(queue("second").as_str().into(), Default::default()).await.unwrap();
    let exchange = format!("{}.events", cluster.prefix);
    let unbind = channel.queue_unbind(
        queue("target").as_str().into(),
        exchange.as_str().into(),
        "thing.happened".into(),
        Default::default(),
    );
    unbind.await.unwrap();
    let lost = source.bridge.events().publish(happened(Uuid::now_v7(), 2)).await;
    assert!(matches!(&lost, Err(PublishError::Unroutable(why)) if why.contains("events.second")), "{lost:?}");
    let event = happened(Uuid::now_v7(), 3);
    publish(&source, event.clone()).await;
    until("the first applies it", || first.done.lock().iter().any(|(_, number)| *number == 3)).await;
    let _hosting_the_second = reacting_second(&cluster, &store, &second).await;
    until("the second applies it", || !second.done.lock().is_empty()).await;
    assert_eq!(second.done.lock().as_slice(), [(event.subject, 3)]);

    // While events flow, the queue is deleted again: each domain applies all of them once.
    let numbers: Vec<i64> = (10..40).collect();
    for number in &numbers {
        if *number == 20 {
            // Messages in it would be lost with it.
            until("the second applies them", || second.done.lock().len() == 11).await;
            channel.queue_delete(queue("second").as_str().into(), Default::default()).await.unwrap();
        }
        publish(&source, happened(Uuid::now_v7(), *number)).await;
    }
    for applied in [&first, &second] {
        let of_them = || -> Vec<i64> {
            let mut all: Vec<i64> = applied.done.lock().iter().map(|(_, number)| *number).collect();
            all.retain(|number| *number >= 10);
            all.sort_unstable();
            all
        };
        until("all are applied", || of_them().len() >= numbers.len()).await;
        assert_eq!(of_them(), numbers);
    }
    assert!(graves.0.lock().is_empty());
}

#[actix_rt::test]
async fn a_confirm_is_not_waited_for_for_ever() {
    let cluster = Cluster::new();
    let proxy = Proxy::to(&url()).await;
    let source = emitting(&cluster, &proxy.url(&url())).await;
    publish(&source, happened(Uuid::now_v7(), 1)).await;
    proxy.swallow(true);
    let began = Instant::now();
    let lost = source.bridge.events().publish(happened(Uuid::now_v7(), 2)).await;
    assert!(matches!(lost, Err(PublishError::Unconfirmed(_))), "{lost:?}");
    assert!(began.elapsed() < Duration::from_secs(20));
    proxy.swallow(false);
    publish(&source, happened(Uuid::now_v7(), 3)).await;
}

#[actix_rt::test]
async fn a_dead_letter_goes_back_to_its_domain_alone() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let source = emitting(&cluster, &url()).await;
    let _target = reacting(&cluster, &url(), &store, &applied, &graves).await;
    publish(&source, happened(Uuid::now_v7(), 1)).await;
    source.bridge.events().redeliver("target", happened(Uuid::now_v7(), 2)).await.unwrap();
    until("both are applied", || applied.done.lock().len() == 2).await;
    let nobody = source.bridge.events().redeliver("nobody", happened(Uuid::now_v7(), 3)).await;
    assert!(matches!(nobody, Err(PublishError::Unroutable(_))), "{nobody:?}");
}

#[actix_rt::test]
async fn a_node_whose_domain_takes_nothing_leaves_the_events_to_another() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    let source = emitting(&cluster, &url()).await;
    let first = reacting(&cluster, &url(), &store, &applied, &graves).await;
    let aggregate = Uuid::now_v7();
    publish(&source, happened(aggregate, 0)).await;
    until("the first applies it", || applied.done.lock().len() == 1).await;
    let second = reacting(&cluster, &url(), &store, &applied, &graves).await;
    let mut number = 0;
    for (sick, well) in [(&first, &second), (&second, &first)] {
        let before = well.metric("callboard_bridge_received_total", "event");
        assert!(sick.runtime.force_breaker("target", Some(Force::Open)));
        for _ in 0..3 {
            number += 1;
            publish(&source, happened(aggregate, number)).await;
        }
        until("the other applies them", || applied.done.lock().len() == 1 + usize::try_from(number).unwrap()).await;
        assert_eq!(well.metric("callboard_bridge_received_total", "event") - before, 3.0);
        assert!(sick.runtime.force_breaker("target", None));
        // Behind the other consumer again.
        until("it waits for the place again", || sick.metric("callboard_bridge_channels_total", "events") >= 2.0).await;
    }
    // No node takes anything: the event waits, and the broker does not give it up.
    for node in [&first, &second] {
        assert!(node.runtime.force_breaker("target", Some(Force::Open)));
    }
    publish(&source, happened(aggregate, number + 1)).await;
    let received = || -> f64 {
        [&first, &second].iter().map(|node| node.metric("callboard_bridge_received_total", "event")).sum()
    };
    until("both have left the place", || received() >= 1.0 + 4.0 * 3.0 + 2.0).await;
    for node in [&first, &second] {
        assert!(node.runtime.force_breaker("target", None));
    }
    until("it is applied", || applied.done.lock().len() == 2 + usize::try_from(number).unwrap()).await;
    let numbers: Vec<i64> = applied.done.lock().iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, (0..=number + 1).collect::<Vec<_>>());
    assert!(graves.0.lock().is_empty());
}

#[actix_rt::test]
async fn what_can_be_neither_applied_nor_buried_holds_its_aggregate_up_and_harms_nothing_behind_it() {
    let (cluster, store) = (Cluster::new(), Store::new().await);
    let (applied, graves) = (Applied::default(), Graves::default());
    graves.1.store(6, Ordering::SeqCst);
    let source = emitting(&cluster, &url()).await;
    let target = reacting(&cluster, &url(), &store, &applied, &graves).await;
    let aggregate = Uuid::now_v7();
    for number in [-1, 1, 2] {
        publish(&source, happened(aggregate, number)).await;
    }
    until("the last is applied", || applied.done.lock().len() == 2).await;
    assert_eq!(applied.done.lock().as_slice(), [(aggregate, 1), (aggregate, 2)]);
    assert_eq!(graves.0.lock().len(), 1);
    assert_eq!(target.metric("callboard_bridge_received_total", "event"), 3.0, "none was delivered again");
}
