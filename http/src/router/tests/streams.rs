//! Bodies: in pieces, in bulk, held back, and broken.

use std::time::Duration;

use super::*;

const BULK: usize = 48 << 20;
/// More than the buffers of four sockets and of the router hold.
pub(super) const HELD: usize = 32 << 20;

async fn chunk(connection: &mut Client, text: &str) {
    connection.send(&format!("{:x}\r\n{text}\r\n", text.len())).await;
}

#[actix_rt::test]
async fn both_bodies_stream_piece_by_piece() {
    let gateway = Gateway::start();
    let instance = Instance::start(|mut connection| async move {
        let head = connection.head().await.unwrap();
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        loop {
            let piece = String::from_utf8(connection.chunk().await.unwrap()).unwrap();
            chunk(&mut connection, &piece).await;
            if piece.is_empty() {
                return;
            }
        }
    })
    .await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let head = soon(client.head()).await.unwrap();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    for piece in ["one", "two", "three"] {
        chunk(&mut client, piece).await;
        assert_eq!(soon(client.chunk()).await.unwrap(), piece.as_bytes(), "each piece comes back before the next one");
    }
    chunk(&mut client, "").await;
    assert_eq!(soon(client.chunk()).await.unwrap(), b"");
}

#[actix_rt::test]
async fn a_get_with_a_chunked_body_keeps_it() {
    let gateway = Gateway::start();
    let instance = Instance::answering(|request| ok(request.text())).await;
    gateway.serve(&[&instance]);
    let request = "GET / HTTP/1.1\r\nHost: hello.localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(gateway.ask(request).await.text(), "abc");
}

/// Writes until nothing moves any more; answers how much went.
pub(super) async fn write_until_held(stream: &mut TcpStream, limit: usize) -> usize {
    let piece = vec![b'x'; 64 << 10];
    let mut written = 0;
    while written < limit {
        let end = piece.len().min(limit - written);
        match tokio::time::timeout(Duration::from_millis(400), stream.write(&piece[..end])).await {
            Ok(count) => written += count.unwrap(),
            Err(_) => break,
        }
    }
    written
}

#[actix_rt::test]
async fn an_instance_that_does_not_read_holds_the_client_back_and_then_gets_all() {
    let gateway = Gateway::start();
    let go = Rc::new(tokio::sync::Notify::new());
    let instance = Instance::start({
        let go = Rc::clone(&go);
        move |mut connection| {
            let go = Rc::clone(&go);
            async move {
                let head = connection.head().await.unwrap();
                assert!(head.contains(&format!("content-length: {BULK}")), "{head}");
                go.notified().await;
                let body = connection.bytes(BULK).await.unwrap();
                connection.send(&ok(&body.len().to_string())).await;
            }
        }
    })
    .await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    client.send(&format!("PUT / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: {BULK}\r\n\r\n")).await;
    let written = write_until_held(&mut client.stream, BULK).await;
    assert!(written < HELD, "{written} bytes were taken for an instance that reads none");
    go.notify_one();
    let rest = vec![b'x'; BULK - written];
    soon(client.stream.write_all(&rest)).await.unwrap();
    assert_eq!(client.answer().await.text(), BULK.to_string());
}

#[actix_rt::test]
async fn a_client_that_does_not_read_holds_the_instance_back_and_then_gets_all() {
    let gateway = Gateway::start();
    let held = Rc::new(tokio::sync::Notify::new());
    let written = Rc::new(std::cell::Cell::new(0));
    let instance = Instance::start({
        let (held, written) = (Rc::clone(&held), Rc::clone(&written));
        move |mut connection| {
            let (held, written) = (Rc::clone(&held), Rc::clone(&written));
            async move {
                connection.head().await.unwrap();
                connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {BULK}\r\n\r\n")).await;
                let done = write_until_held(&mut connection.stream, BULK).await;
                written.set(done);
                held.notify_one();
                connection.stream.write_all(&vec![b'x'; BULK - done]).await.unwrap();
            }
        }
    })
    .await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    client.send(&get("/")).await;
    soon(held.notified()).await;
    assert!(written.get() < HELD, "{} bytes were taken for a client that reads none", written.get());
    let answer = client.answer().await;
    assert!(answer.whole);
    assert_eq!(answer.body.len(), BULK);
}

#[actix_rt::test]
async fn a_client_that_writes_byte_by_byte_is_served() {
    let gateway = Gateway::start();
    let instance = Instance::answering(|request| ok(request.text())).await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    for byte in post("slowly").chars() {
        client.send(&byte.to_string()).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.answer().await.text(), "slowly");
}

#[actix_rt::test]
async fn an_answer_that_breaks_midway_is_not_ended_as_if_complete() {
    let gateway = Gateway::start();
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let instance = Instance::start(move |mut connection| async move {
            connection.head().await.unwrap();
            connection.send(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n")).await;
        })
        .await;
        gateway.serve(&[&instance]);
        let mut client = gateway.client().await;
        client.send(&get("/")).await;
        let answer = soon(client.try_message(false)).await;
        assert!(answer.is_none_or(|answer| !answer.whole), "{head}");
    }
}

#[actix_rt::test]
async fn a_request_that_breaks_midway_is_not_ended_as_if_complete() {
    let gateway = Gateway::start();
    let (sender, mut bodies) = tokio::sync::mpsc::unbounded_channel();
    let instance = Instance::start(move |mut connection| {
        let sender = sender.clone();
        async move {
            let message = connection.try_message(false).await;
            sender.send(message.is_some_and(|message| message.whole)).unwrap();
        }
    })
    .await;
    gateway.serve(&[&instance]);
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let mut client = gateway.client().await;
        client.send(&format!("POST / HTTP/1.1\r\nHost: hello.localhost\r\n{head}\r\n\r\n5\r\nhello\r\n")).await;
        drop(client);
        assert!(!soon(bodies.recv()).await.unwrap(), "{head}");
    }
}

#[actix_rt::test]
async fn an_early_answer_to_an_unfinished_upload_arrives() {
    let gateway = Gateway::start();
    let instance = Instance::start(|mut connection| async move {
        connection.head().await.unwrap();
        connection.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!").await;
        connection.rest().await;
    })
    .await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 1000000\r\n\r\npart").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.text()), (413, "no!"));
    assert_eq!(answer.header("connection"), Some("close"));
}
