//! Clients that leave, clients that only have nothing more to say, and streams that stand still.

use std::cell::Cell;

use tokio::sync::Notify;

use super::*;

/// How soon an instance must learn that its client has left.
const AT_ONCE: Duration = Duration::from_secs(1);

/// An instance that says this after each request, and then nothing until it is told to say the rest.
struct Silent {
    instance: Instance,
    asked: Rc<Notify>,
    go: Rc<Notify>,
    /// Connections that the router has closed.
    closed: Rc<Cell<usize>>,
}

impl Silent {
    async fn after(first: &'static str, rest: &'static str) -> Self {
        let (asked, go, closed) = (Rc::new(Notify::new()), Rc::new(Notify::new()), Rc::new(Cell::new(0)));
        let instance = Instance::start({
            let (asked, go, closed) = (Rc::clone(&asked), Rc::clone(&go), Rc::clone(&closed));
            move |mut connection| {
                let (asked, go, closed) = (Rc::clone(&asked), Rc::clone(&go), Rc::clone(&closed));
                async move {
                    connection.head().await.unwrap();
                    connection.send(first).await;
                    asked.notify_one();
                    tokio::select! {
                        () = go.notified() => connection.send(rest).await,
                        _ = connection.fill() => {}
                    }
                    connection.rest().await;
                    closed.set(closed.get() + 1);
                }
            }
        })
        .await;
        Self { instance, asked, go, closed }
    }

    async fn closes(&self, count: usize, within: Duration) {
        let closes = async {
            while self.closed.get() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(within, closes).await.is_ok();
        assert!(in_time, "{} of {count} connections to the app are closed", self.closed.get());
    }
}

const STREAM: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";

#[actix_rt::test]
async fn a_client_that_leaves_before_its_answer_ends_the_apps_request_at_once() {
    let gateway = Gateway::start();
    let silent = Silent::after("", "").await;
    gateway.serve(&[&silent.instance]);
    let mut client = gateway.client().await;
    client.send(&get("/")).await;
    soon(silent.asked.notified()).await;
    drop(client);
    silent.closes(1, AT_ONCE).await;
}

#[actix_rt::test]
async fn a_client_that_leaves_a_silent_stream_ends_it_at_once() {
    let gateway = Gateway::start();
    let silent = Silent::after(STREAM, "").await;
    gateway.serve(&[&silent.instance]);
    let mut client = gateway.client().await;
    client.send(&get("/")).await;
    soon(client.head()).await.unwrap();
    assert_eq!(soon(client.chunk()).await.unwrap(), b"hello");
    drop(client);
    silent.closes(1, AT_ONCE).await;
}

#[actix_rt::test]
async fn a_client_that_leaves_with_more_requests_on_their_way_is_noticed_as_well() {
    let gateway = Gateway::start();
    let silent = Silent::after("", "").await;
    gateway.serve(&[&silent.instance]);
    let mut client = gateway.client().await;
    client.send(&format!("{}{}", get("/"), get("/next"))).await;
    soon(silent.asked.notified()).await;
    drop(client);
    silent.closes(1, AT_ONCE).await;
}

#[actix_rt::test]
async fn clients_that_left_hold_no_connection_and_delay_no_rollout() {
    const CLIENTS: usize = 300;
    let gateway = Gateway::start();
    let silent = Silent::after(STREAM, "").await;
    gateway.serve(&[&silent.instance]);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = gateway.client().await;
        client.send(&get("/")).await;
        soon(client.head()).await.unwrap();
        assert_eq!(soon(client.chunk()).await.unwrap(), b"hello");
        clients.push(client);
    }
    drop(clients);
    silent.closes(CLIENTS, 3 * AT_ONCE).await;
    assert_eq!(gateway.table.drain(silent.instance.backend.instance_id, AT_ONCE).await, 0);
}

#[actix_rt::test]
async fn a_client_that_has_only_ended_its_side_is_answered() {
    let gateway = Gateway::start();
    let silent = Silent::after("", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello").await;
    gateway.serve(&[&silent.instance]);
    for version in ["1.1", "1.0"] {
        let mut client = gateway.client().await;
        client.send(&format!("GET / HTTP/{version}\r\nHost: hello.localhost\r\n\r\n")).await;
        client.stream.shutdown().await.unwrap();
        soon(silent.asked.notified()).await;
        if version == "1.1" {
            assert_eq!(client.answer().await.status(), 100, "it is asked whether it is there");
        }
        silent.go.notify_one();
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.text()), (200, "hello"), "HTTP/{version}");
        assert!(soon(client.rest()).await.is_empty());
    }
}

#[actix_rt::test]
async fn a_client_that_has_only_ended_its_side_gets_the_rest_of_a_stream() {
    let gateway = Gateway::start();
    for (first, rest) in [
        (STREAM, "5\r\nworld\r\n0\r\n\r\n"),
        (STREAM, "0\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "world"),
    ] {
        let silent = Silent::after(first, rest).await;
        gateway.serve(&[&silent.instance]);
        let mut client = gateway.client().await;
        client.send(&get("/")).await;
        soon(silent.asked.notified()).await;
        let head = soon(client.head()).await.unwrap();
        let is_chunked = head.contains("chunked");
        let first = if is_chunked { soon(client.chunk()).await } else { soon(client.bytes(5)).await };
        assert_eq!(first.unwrap(), b"hello");
        client.stream.shutdown().await.unwrap();
        if is_chunked {
            // The question: a zero before the size of the next chunk.
            while client.unread.is_empty() {
                assert!(soon(client.fill()).await);
            }
            assert_eq!(client.unread, b"0");
        }
        silent.go.notify_one();
        let mut body = Vec::new();
        if is_chunked {
            loop {
                let chunk = soon(client.chunk()).await.expect("the stream ends as it should");
                if chunk.is_empty() {
                    break;
                }
                body.extend(chunk);
            }
        } else {
            body = soon(client.rest()).await;
        }
        assert_eq!(body, if rest.contains("world") { b"world".as_slice() } else { b"" });
    }
}

/// A gateway whose streams may stand still for this long.
fn impatient(stream_idle: Duration) -> Gateway {
    let edge = Edge { stream_idle, ..Edge::default() };
    Gateway::with_edge(edge, |table| Router::new(table, Settings::default()))
}

#[actix_rt::test]
async fn a_stream_that_stands_still_for_too_long_is_closed_and_one_that_moves_is_not() {
    let gateway = impatient(Duration::from_millis(300));
    let ticking = Instance::start(|mut connection| async move {
        connection.head().await.unwrap();
        connection.send(STREAM).await;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            connection.send("4\r\ntick\r\n").await;
        }
        connection.rest().await;
    })
    .await;
    gateway.serve(&[&ticking]);
    let mut client = gateway.client().await;
    client.send(&get("/")).await;
    soon(client.head()).await.unwrap();
    assert_eq!(soon(client.chunk()).await.unwrap(), b"hello");
    for _ in 0..20 {
        assert_eq!(soon(client.chunk()).await.unwrap(), b"tick");
    }
    assert_eq!(soon(client.chunk()).await, None, "it ends, and not as if it were whole");
    assert_eq!(gateway.table.drain(ticking.backend.instance_id, AT_ONCE).await, 0);
}

#[actix_rt::test]
async fn a_client_that_reads_nothing_is_closed() {
    let gateway = impatient(Duration::from_millis(500));
    let broke = Rc::new(Notify::new());
    let instance = Instance::start({
        let broke = Rc::clone(&broke);
        move |mut connection| {
            let broke = Rc::clone(&broke);
            async move {
                connection.head().await.unwrap();
                connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                let piece = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
                while connection.stream.write_all(piece.as_bytes()).await.is_ok() {}
                broke.notify_one();
            }
        }
    })
    .await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    client.send(&get("/")).await;
    soon(broke.notified()).await;
    drop(client);
}
