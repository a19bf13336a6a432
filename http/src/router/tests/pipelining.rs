//! Several requests in one packet: each is answered by its own rules, in their order.

use std::cell::RefCell;

use super::*;

const HEAD: &str = "HEAD /head HTTP/1.1\r\nHost: hello.localhost\r\n\r\n";

/// An instance that answers with the request's line, or with its body if it has one.
async fn echo() -> Instance {
    Instance::answering(|request| {
        let line = request.head.lines().next().unwrap().to_owned();
        match request.text() {
            _ if line.starts_with("HEAD") => "HTTP/1.1 200 OK\r\nContent-Length: 4321\r\n\r\n".to_owned(),
            "" => ok(&line),
            body => ok(body),
        }
    })
    .await
}

#[actix_rt::test]
async fn a_get_before_a_head_keeps_its_body() {
    let gateway = Gateway::start();
    let instance = echo().await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    for _ in 0..3 {
        client.send(&format!("{}{HEAD}{}", get("/first"), get("/last"))).await;
        assert_eq!(client.answer().await.text(), "GET /first HTTP/1.1");
        let answer = client.answer_without_body().await;
        assert_eq!((answer.status(), answer.header("content-length")), (200, Some("4321")));
        assert_eq!(client.answer().await.text(), "GET /last HTTP/1.1");
    }
}

#[actix_rt::test]
async fn the_last_request_decides_for_itself_whether_the_connection_is_kept() {
    let gateway = Gateway::start();
    let instance = echo().await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    let last = "GET /last HTTP/1.0\r\nHost: hello.localhost\r\n\r\n";
    client.send(&format!("{}{last}{}", get("/first"), get("/never"))).await;
    let first = client.answer().await;
    assert!(first.head.starts_with("HTTP/1.1 200") && first.header("connection").is_none(), "{}", first.head);
    let last = client.answer().await;
    assert!(last.head.starts_with("HTTP/1.0 200"), "{}", last.head);
    assert!(soon(client.rest()).await.is_empty(), "nothing is answered behind it");
}

#[actix_rt::test]
async fn bodies_end_where_they_say_however_the_bytes_are_cut() {
    let gateway = Gateway::start();
    let instance = echo().await;
    gateway.serve(&[&instance]);
    let chunked = "POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n";
    let requests = format!("{}{HEAD}{chunked}{HEAD}{}", post("sized"), get("/last"));
    for size in [1, 2, 3, 7, 64, 100, requests.len()] {
        let mut client = gateway.client().await;
        for piece in requests.as_bytes().chunks(size) {
            client.stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        for expected in ["sized", "HEAD", "abcde", "HEAD", "GET /last HTTP/1.1"] {
            if expected == "HEAD" {
                assert_eq!(client.answer_without_body().await.header("content-length"), Some("4321"));
            } else {
                assert_eq!(client.answer().await.text(), expected, "in pieces of {size}");
            }
        }
    }
}

#[actix_rt::test]
async fn no_request_reaches_an_instance_before_the_one_ahead_is_answered() {
    let gateway = Gateway::start();
    let (seen, go) = (Rc::new(RefCell::new(Vec::new())), Rc::new(tokio::sync::Notify::new()));
    let instance = Instance::start({
        let (seen, go) = (Rc::clone(&seen), Rc::clone(&go));
        move |mut connection| {
            let (seen, go) = (Rc::clone(&seen), Rc::clone(&go));
            async move {
                while let Some(head) = connection.head().await {
                    seen.borrow_mut().push(head.split(' ').nth(1).unwrap().to_owned());
                    go.notified().await;
                    connection.send(&ok("done")).await;
                }
            }
        }
    })
    .await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    client.send(&["/1", "/2", "/3"].map(get).concat()).await;
    for number in 1..=3 {
        soon(async {
            while seen.borrow().len() < number {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // Another connection's request goes the whole way meanwhile.
        gateway.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(seen.borrow().len(), number);
        go.notify_one();
        assert_eq!(client.answer().await.text(), "done");
    }
}

#[actix_rt::test]
async fn what_follows_an_upgrade_belongs_to_it() {
    let gateway = Gateway::start();
    let instance = Instance::start(|mut connection| async move {
        connection.head().await.unwrap();
        connection.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        let received = connection.bytes(get("/frame").len()).await.unwrap();
        connection.stream.write_all(&received).await.unwrap();
    })
    .await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    let upgrade = "GET / HTTP/1.1\r\nHost: hello.localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n";
    client.send(&format!("{upgrade}{}", get("/frame"))).await;
    assert_eq!(client.answer().await.status(), 101);
    assert_eq!(String::from_utf8(soon(client.rest()).await).unwrap(), get("/frame"));
}
