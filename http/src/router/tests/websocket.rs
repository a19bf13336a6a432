//! Upgrades.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

use super::{
    streams::{HELD, write_until_held},
    *,
};

async fn echo() -> Instance {
    Instance::start(|connection| async move {
        let mut socket = tokio_tungstenite::accept_async(connection.stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                break;
            }
        }
    })
    .await
}

#[actix_rt::test]
async fn messages_pass_both_ways_until_either_side_closes() {
    let gateway = Gateway::start();
    let instance = echo().await;
    gateway.serve(&[&instance]);
    let client = gateway.client().await;
    let request = "ws://hello.localhost/chat?room=1".into_client_request().unwrap();
    let (mut socket, answer) = soon(tokio_tungstenite::client_async(request, client.stream)).await.unwrap();
    assert_eq!(answer.status(), 101);
    for message in [Message::text("hello"), Message::binary(vec![7; 1 << 20]), Message::text("again")] {
        soon(socket.send(message.clone())).await.unwrap();
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), message);
    }

    let id = instance.backend.instance_id;
    assert_eq!(gateway.table.drain(id, Duration::from_millis(20)).await, 1, "an open WebSocket is in flight");
    soon(socket.send(Message::text("still there"))).await.unwrap();
    assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::text("still there"));
    soon(socket.close(None)).await.unwrap();
    while soon(socket.next()).await.is_some_and(|message| message.is_ok()) {}
    drop(socket);
    assert_eq!(gateway.table.drain(id, PATIENCE).await, 0);
    assert_eq!(gateway.table.get("hello").unwrap().metrics().count(1), 1);
}

const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: hello.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[actix_rt::test]
async fn the_end_of_the_clients_side_is_passed_on_and_the_instance_may_finish() {
    let gateway = Gateway::start();
    let instance = Instance::start(|mut connection| async move {
        let head = connection.head().await.unwrap().to_lowercase();
        assert!(head.contains("connection: upgrade") && head.contains("upgrade: websocket"), "{head}");
        connection.send(&format!("{SWITCHED}first bytes,")).await;
        let received = connection.rest().await;
        connection.send(&format!("{} bytes received", received.len())).await;
    })
    .await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    client.send(HANDSHAKE).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.header("upgrade")), (101, Some("websocket")));
    assert_eq!(answer.header("connection"), Some("upgrade"));
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client.send("12345").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(String::from_utf8(soon(client.rest()).await).unwrap(), "first bytes,5 bytes received");
    assert_eq!(gateway.table.drain(instance.backend.instance_id, PATIENCE).await, 0);
}

#[actix_rt::test]
async fn a_side_that_does_not_read_holds_the_other_one_back() {
    for is_client_writing in [false, true] {
        // The end of a client is not seen behind what nobody reads: that takes as long as a stream may stand still.
        let edge = Edge { stream_idle: Duration::from_secs(3), ..Edge::default() };
        let gateway = Gateway::with_edge(edge, |table| Router::new(table, Settings::default()));
        let (written, read) = tokio::sync::oneshot::channel();
        let written = Rc::new(std::cell::RefCell::new(Some(written)));
        let instance = Instance::start(move |mut connection| {
            let written = written.take();
            async move {
                connection.head().await.unwrap();
                connection.send(SWITCHED).await;
                if !is_client_writing {
                    let count = write_until_held(&mut connection.stream, 2 * HELD).await;
                    written.unwrap().send(count).unwrap();
                }
                std::future::pending::<()>().await;
            }
        })
        .await;
        gateway.serve(&[&instance]);
        let mut client = gateway.client().await;
        client.send(HANDSHAKE).await;
        assert_eq!(client.answer().await.status(), 101);
        let count = if is_client_writing {
            // A frame that announces a terabyte, and as much of it as is taken.
            client.stream.write_all(&[0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4]).await.unwrap();
            write_until_held(&mut client.stream, 2 * HELD).await
        } else {
            soon(read).await.unwrap()
        };
        assert!(count < HELD, "{count} bytes were taken for a side that reads none");
        drop(client);
        assert_eq!(gateway.table.drain(instance.backend.instance_id, PATIENCE).await, 0, "nothing stays behind");
    }
}

#[actix_rt::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let gateway = Gateway::start();
    let chunked = "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nno way\r\n0\r\n\r\n";
    for said in ["HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nno way", chunked] {
        let instance = Instance::answering(|_| said.to_owned()).await;
        gateway.serve(&[&instance]);
        let answer = gateway.ask(HANDSHAKE).await;
        assert_eq!((answer.status(), answer.text(), answer.header("connection")), (403, "no way", Some("close")));
    }
}

#[actix_rt::test]
async fn half_an_upgrade_request_is_refused_before_it_can_confuse_anyone() {
    let gateway = Gateway::start();
    let instance = Instance::saying("never").await;
    gateway.serve(&[&instance]);
    for request in [
        HANDSHAKE.replace("Connection: Upgrade\r\n", ""),
        HANDSHAKE.replace("GET", "POST"),
        HANDSHAKE.replace("Upgrade: websocket", "Upgrade: websocket\r\nContent-Length: 5"),
        HANDSHAKE.replace("Upgrade: websocket", "Upgrade: websocket\r\nTransfer-Encoding: chunked"),
    ] {
        let answer = gateway.ask(&request).await;
        assert_eq!((answer.status(), answer.header("connection")), (400, Some("close")), "{request}");
    }
    assert_eq!(instance.accepted(), 0);
}
