//! Instances come and go under the eyes of their clients.

use std::cell::Cell;

use super::*;

/// An instance whose answers wait for a word.
async fn deliberate() -> (Instance, Rc<tokio::sync::Notify>, Rc<tokio::sync::Notify>) {
    let (asked, go) = (Rc::new(tokio::sync::Notify::new()), Rc::new(tokio::sync::Notify::new()));
    let instance = Instance::start({
        let (asked, go) = (Rc::clone(&asked), Rc::clone(&go));
        move |mut connection| {
            let (asked, go) = (Rc::clone(&asked), Rc::clone(&go));
            async move {
                while connection.try_message(false).await.is_some() {
                    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfirst").await;
                    asked.notify_one();
                    go.notified().await;
                    connection.send("lag").await;
                }
            }
        }
    })
    .await;
    (instance, asked, go)
}

#[actix_rt::test]
async fn drain_waits_for_the_last_byte_and_lets_nothing_new_through() {
    let gateway = Gateway::start();
    let (instance, asked, go) = deliberate().await;
    let id = instance.backend.instance_id;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    client.send(&get("/")).await;
    soon(asked.notified()).await;

    assert_eq!(gateway.table.drain(id, Duration::from_millis(20)).await, 1);
    let draining = actix_rt::spawn({
        let table = gateway.table.clone();
        async move { table.drain(id, PATIENCE).await }
    });
    assert_eq!(gateway.get("/").await.status(), 503);
    assert!(!draining.is_finished());
    go.notify_one();
    assert_eq!(client.answer().await.text(), "firstlag");
    assert_eq!(soon(draining).await.unwrap(), 0);
    assert_eq!(instance.accepted(), 1);
}

#[actix_rt::test]
async fn a_client_that_leaves_is_no_longer_in_flight() {
    let gateway = Gateway::start();
    let (instance, asked, go) = deliberate().await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    client.send(&get("/")).await;
    soon(asked.notified()).await;
    drop(client);
    go.notify_one();
    assert_eq!(gateway.table.drain(instance.backend.instance_id, PATIENCE).await, 0);
}

#[actix_rt::test]
async fn unused_connections_to_a_retired_instance_are_closed() {
    let gateway = Gateway::start();
    let closed = Rc::new(tokio::sync::Notify::new());
    let instance = Instance::start({
        let closed = Rc::clone(&closed);
        move |mut connection| {
            let closed = Rc::clone(&closed);
            async move {
                while connection.try_message(false).await.is_some() {
                    connection.send(&ok("hi")).await;
                }
                closed.notify_one();
            }
        }
    })
    .await;
    gateway.serve(&[&instance]);
    assert_eq!(gateway.get("/").await.text(), "hi");
    assert_eq!(gateway.table.drain(instance.backend.instance_id, PATIENCE).await, 0);
    soon(closed.notified()).await;
}

#[actix_rt::test]
async fn no_request_is_dropped_while_instances_are_replaced_under_load() {
    let gateway = Rc::new(Gateway::start());
    let mut current = [Instance::answering(|r| ok(r.text())).await, Instance::answering(|r| ok(r.text())).await];
    gateway.serve(&[&current[0], &current[1]]);
    let (done, served) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0_u64)));
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let (gateway, done, served) = (Rc::clone(&gateway), Rc::clone(&done), Rc::clone(&served));
            actix_rt::spawn(async move {
                let mut client = gateway.client().await;
                while !done.get() {
                    let body = format!("{number}-{}", served.get());
                    client.send(&post(&body)).await;
                    let answer = client.answer().await;
                    assert_eq!((answer.status(), answer.text()), (200, body.as_str()));
                    served.set(served.get() + 1);
                }
            })
        })
        .collect();
    let more = async |count: u64| {
        let goal = served.get() + count;
        soon(async {
            while served.get() < goal {
                assert!(!clients.iter().any(JoinHandle::is_finished), "a client failed");
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    for round in 0..40 {
        more(10).await;
        let next = [Instance::answering(|r| ok(r.text())).await, Instance::answering(|r| ok(r.text())).await];
        if round % 2 == 0 {
            gateway.serve(&[&next[0], &next[1], &current[1]]);
            assert_eq!(gateway.table.drain(current[0].backend.instance_id, PATIENCE).await, 0);
            current[0].stop().await;
            more(10).await;
        }
        gateway.serve(&[&next[0], &next[1]]);
        for old in &current {
            assert_eq!(gateway.table.drain(old.backend.instance_id, PATIENCE).await, 0);
            old.stop().await;
        }
        current = next;
    }
    done.set(true);
    for client in clients {
        soon(client).await.unwrap();
    }
    let metrics = gateway.table.get("hello").unwrap();
    assert_eq!(metrics.metrics().count(2), served.get());
    assert_eq!(metrics.metrics().count(5), 0);
}
