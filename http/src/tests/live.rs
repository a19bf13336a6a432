//! Live updates.

use std::time::{Duration, Instant};

use callboard_messages::{ProjectId, deploy::LogLine};
use callboard_supervisors::{Clock, LiveEvent, breaker::Force};
use chrono::{DateTime, Utc};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::fixture::{By, LONG, TestGateway, User, refused};

/// The events of a stream, one by one.
struct Events {
    response: reqwest::Response,
    text: String,
}

#[derive(Debug)]
struct Told {
    id: String,
    event: String,
    data: Value,
}

impl Events {
    async fn open(gateway: &TestGateway, user: &User, topics: &str, after: Option<&str>) -> Self {
        let mut request =
            gateway.get(&format!("/api/v1/live?topics={topics}")).by(user).header("accept", "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        Self { response, text: String::new() }
    }

    /// `None` when the stream has ended.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = block.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_default().to_owned()
                };
                let told = Told {
                    id: field("id: "),
                    event: field("event: "),
                    data: serde_json::from_str(&field("data: ")).unwrap_or_default(),
                };
                self.text = rest.to_owned();
                if told.event.is_empty() {
                    continue;
                }
                return Some(told);
            }
            let chunk =
                tokio::time::timeout(Duration::from_secs(10), self.response.chunk()).await.expect("nothing came");
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()?).unwrap());
        }
    }
}

fn publish(gateway: &TestGateway, topic: &str, kind: &'static str, n: u64) -> u64 {
    gateway.runtime.live().publish(topic, LiveEvent::new(kind, json!({"n": n})))
}

fn log(gateway: &TestGateway, topic: &str, id: u64) {
    let line = LogLine { id, at: DateTime::UNIX_EPOCH, from: "web.1".to_owned(), text: format!("line {id}") };
    gateway.runtime.live().publish(topic, LiveEvent::new("log", serde_json::to_value(line).unwrap()));
}

async fn project(gateway: &TestGateway, user: &User, name: &str) -> ProjectId {
    gateway.project(user, name).await["id"].as_str().unwrap().parse().unwrap()
}

#[actix_rt::test]
async fn a_reader_follows_and_resumes_where_it_was() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let (one, two) = (project(&gateway, &user, "one").await, project(&gateway, &user, "two").await);
    let topics = format!("project:{one},project:{two}");
    let mut events = Events::open(&gateway, &user, &topics, None).await;
    let first = publish(&gateway, &format!("project:{one}"), "deployment", 1);
    let told = events.next().await.unwrap();
    assert_eq!((told.event.as_str(), told.id.as_str()), ("deployment", format!("{first};").as_str()));
    assert_eq!(told.data["data"]["n"], 1);
    assert_eq!(told.data["topic"], format!("project:{one}"));
    drop(events);

    publish(&gateway, &format!("project:{two}"), "instance", 2);
    publish(&gateway, &format!("project:{one}"), "instance", 3);
    let mut events = Events::open(&gateway, &user, &topics, Some(&told.id)).await;
    // It resumes in the first topic only, so the second begins now.
    assert_eq!(events.next().await.unwrap().data["data"]["n"], 3);
    gateway.end().await;
}

#[actix_rt::test]
async fn a_log_is_resumed_from_the_store_without_loss_or_repetition() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let topic = format!("logs:{}", project(&gateway, &user, "one").await);
    let mut events = Events::open(&gateway, &user, &topic, Some("7")).await;
    log(&gateway, &topic, 10);
    log(&gateway, &topic, 11);
    for id in [8, 9, 10, 11] {
        let told = events.next().await.unwrap();
        assert_eq!((told.id, told.event.as_str()), (id.to_string(), "log"));
        assert_eq!(told.data["data"]["text"], format!("line {id}"));
    }
    gateway.end().await;
}

#[actix_rt::test]
async fn a_line_of_the_node_that_an_app_has_left_is_told_though_it_comes_late() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let topic = format!("logs:{}", project(&gateway, &user, "one").await);
    let mut events = Events::open(&gateway, &user, &topic, Some("9")).await;
    assert_eq!(events.next().await.unwrap().id, "10");
    log(&gateway, &topic, 40);
    log(&gateway, &topic, 30);
    let (first, late) = (events.next().await.unwrap(), events.next().await.unwrap());
    assert_eq!((first.id.as_str(), &first.data["data"]["text"]), ("40", &json!("line 40")));
    assert_eq!(
        (late.id.as_str(), &late.data["data"]["text"]),
        ("40", &json!("line 30")),
        "it resumes after the greatest"
    );
    gateway.end().await;
}

#[actix_rt::test]
async fn a_log_of_many_pages_is_resumed_without_a_hole() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let topic = format!("logs:{}", project(&gateway, &user, "long").await);
    let mut events = Events::open(&gateway, &user, &topic, Some("3")).await;
    log(&gateway, &topic, LONG);
    log(&gateway, &topic, LONG + 1);
    for id in 4..=LONG + 1 {
        assert_eq!(events.next().await.unwrap().id, id.to_string());
    }
    gateway.end().await;
}

#[actix_rt::test]
async fn a_reader_whose_last_line_the_store_has_forgotten_is_told_of_the_gap() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let topic = format!("logs:{}", project(&gateway, &user, "one").await);
    let mut events = Events::open(&gateway, &user, &topic, Some("20")).await;
    log(&gateway, &topic, 30);
    let (gap, line) = (events.next().await.unwrap(), events.next().await.unwrap());
    assert_eq!((gap.event.as_str(), gap.id.as_str()), ("gap", "20"));
    assert_eq!((line.event.as_str(), line.id.as_str()), ("log", "30"));
    gateway.end().await;
}

#[actix_rt::test]
async fn a_deployment_is_told_as_it_is_and_then_as_it_changes() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let topic = format!("deployment:{}", project(&gateway, &user, "one").await);
    let mut events = Events::open(&gateway, &user, &topic, Some("0")).await;
    let told = events.next().await.unwrap();
    assert_eq!((told.event.as_str(), &told.data["data"]["status"]), ("deployment", &json!("building")));
    for id in 1..=10 {
        assert_eq!(events.next().await.unwrap().id, id.to_string());
    }
    publish(&gateway, &topic, "deployment", 1);
    let told = events.next().await.unwrap();
    assert_eq!((told.event.as_str(), told.id.as_str()), ("deployment", "10"));
    gateway.end().await;
}

#[actix_rt::test]
async fn what_is_not_the_caller_s_can_t_be_followed() {
    let gateway = TestGateway::new().await;
    let owner = gateway.administrator().await;
    let stranger = gateway.user("stranger@example.com").await;
    let id = project(&gateway, &owner, "one").await;
    let follow = |topics: String, user: &User| {
        gateway.get(&format!("/api/v1/live?topics={topics}")).by(user).header("accept", "text/event-stream")
    };
    for topic in ["project", "deployment", "logs"] {
        assert_eq!(refused(follow(format!("{topic}:{id}"), &stranger)).await.0, 404, "{topic}");
    }
    for topics in ["", "project:", "everything", "project:%2A"] {
        assert_eq!(refused(follow(topics.to_owned(), &owner)).await.0, 400, "{topics}");
    }
    let many = vec![format!("project:{id}"); 65].join(",");
    assert_eq!(refused(follow(many, &owner)).await.0, 400);
    assert_eq!(refused(gateway.get(&format!("/api/v1/live?topics=project:{id}")).by(&owner)).await.0, 400);
    gateway.end().await;
}

#[actix_rt::test]
async fn a_stream_ends_with_its_session() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let topic = format!("project:{}", project(&gateway, &user, "one").await);
    let mut events = Events::open(&gateway, &user, &topic, None).await;
    assert_eq!(gateway.request("POST", "/api/v1/auth/logout").by(&user).send().await.unwrap().status(), 204);
    let told = events.next().await.unwrap();
    assert_eq!(told.event, "end");
    assert!(told.data["reason"].as_str().unwrap().contains("session"));
    assert_eq!(told.data["resume"], false);
    assert!(events.next().await.is_none());
    gateway.end().await;
}

#[actix_rt::test]
async fn a_web_socket_that_sends_all_the_time_ends_with_its_session() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let topic = format!("project:{}", project(&gateway, &user, "one").await);
    let mut request = format!("ws://{}/api/v1/live?topics={topic}", gateway.address).into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {}", user.token()).parse().unwrap());
    let (mut socket, mut messages) = connect_async(request).await.unwrap().0.split();
    let pings = async { while socket.send(Message::Ping(Default::default())).await.is_ok() {} };
    let ended = async {
        assert!(messages.next().await.unwrap().unwrap().is_pong());
        assert_eq!(gateway.request("POST", "/api/v1/auth/logout").by(&user).send().await.unwrap().status(), 204);
        while messages.next().await.unwrap().unwrap().is_pong() {}
    };
    // Less than it may go on while its session can't be checked.
    tokio::time::timeout(Duration::from_secs(4), async { tokio::join!(pings, ended) }).await.expect("it does not end");
    gateway.end().await;
}

/// A stream with a manual clock, while auth is away.
async fn without_auth() -> (TestGateway, Clock, String, Events) {
    let clock = Clock::manual(Utc::now());
    let gateway = TestGateway::with_clock(&clock).await;
    let user = gateway.administrator().await;
    let topic = format!("project:{}", project(&gateway, &user, "one").await);
    let events = Events::open(&gateway, &user, &topic, None).await;
    assert!(gateway.runtime.force_breaker("auth", Some(Force::Open)));
    (gateway, clock, topic, events)
}

#[actix_rt::test]
async fn a_stream_does_not_outlive_its_token_while_auth_is_away() {
    let (gateway, clock, _, mut events) = without_auth().await;
    clock.advance(Duration::from_secs(3600));
    let told = events.next().await.unwrap();
    assert_eq!((told.event.as_str(), &told.data["resume"]), ("end", &json!(true)), "{told:?}");
    assert!(events.next().await.is_none());
    gateway.end().await;
}

#[actix_rt::test]
async fn a_stream_goes_on_for_seconds_only_while_nobody_can_say_whether_its_session_was_revoked() {
    let (gateway, clock, topic, mut events) = without_auth().await;
    gateway.revocations.doubt();
    let (step, patience) = (Duration::from_millis(100), Instant::now() + Duration::from_secs(30));
    let mut passed = Duration::ZERO;
    loop {
        assert!(Instant::now() < patience, "it goes on for ever");
        publish(&gateway, &topic, "instance", 1);
        let told = events.next().await.unwrap();
        if told.event == "end" {
            assert_eq!(told.data["resume"], true);
            break;
        }
        clock.advance(step);
        passed += step;
        tokio::time::sleep(step / 2).await;
    }
    assert!(passed >= Duration::from_secs(5), "auth may be back in a moment, and it ended after {passed:?}");
    gateway.end().await;
}

#[actix_rt::test]
async fn a_node_that_drains_says_so_and_ends_its_streams() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let topic = format!("project:{}", project(&gateway, &user, "one").await);
    let mut events = Events::open(&gateway, &user, &topic, None).await;
    gateway.stop.drain();
    assert_eq!(events.next().await.unwrap().event, "end");
    let ready = gateway.get("/ready").send().await.unwrap();
    assert_eq!(ready.status(), 503);
    assert_eq!(ready.json::<Value>().await.unwrap()["status"], "draining");
    assert_eq!(gateway.get("/api/v1/projects").by(&user).send().await.unwrap().status(), 200);
    gateway.end().await;
}

#[actix_rt::test]
async fn a_reader_that_stands_still_is_cut() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let topic = format!("project:{}", project(&gateway, &user, "one").await);
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    let (path, token) = (format!("/api/v1/live?topics={topic}"), user.token());
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let streams = async |count: u32| {
        let metrics = gateway.get("/metrics").send().await.unwrap().text().await.unwrap();
        metrics.contains(&format!("\ncallboard_http_live_streams {count}\n"))
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !streams(1).await {
        assert!(Instant::now() < deadline, "no stream was opened");
    }
    while !streams(0).await {
        assert!(Instant::now() < deadline, "the reader was not cut");
        for _ in 0..20 {
            gateway.runtime.live().publish(&topic, LiveEvent::new("instance", json!("x".repeat(64 * 1024))));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(socket);
    gateway.end().await;
}

#[actix_rt::test]
async fn a_web_socket_tells_the_same_and_is_guarded() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let topic = format!("project:{}", project(&gateway, &user, "one").await);
    let connect = |origin: Option<String>, token: Option<&str>| {
        let url = format!("ws://{}/api/v1/live?topics={topic}", gateway.address);
        let mut request = url.into_client_request().unwrap();
        if let Some(token) = token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        connect_async(request)
    };
    for origin in ["https://evil.example.com", "null", "http://app.localhost:80"] {
        assert!(connect(Some(origin.to_owned()), Some(user.token())).await.is_err(), "{origin}");
    }
    assert!(connect(None, None).await.is_err());

    let (mut socket, _) = connect(Some(format!("http://{}", gateway.address)), Some(user.token())).await.unwrap();
    publish(&gateway, &topic, "instance", 5);
    let Message::Text(text) = socket.next().await.unwrap().unwrap() else { panic!("not a text") };
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&told["kind"], &told["data"]["n"]), (&json!("instance"), &json!(5)));
    // The server may answer before it has read everything.
    let _ = socket.send(Message::binary(vec![0_u8; 1024 * 1024])).await;
    let closed = tokio::time::timeout(Duration::from_secs(10), async {
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() {
                break;
            }
        }
    });
    closed.await.expect("a reader that sends a megabyte is closed");
    gateway.end().await;
}

/// A WebSocket on a raw socket, behind its handshake.
async fn raw_web_socket(gateway: &TestGateway, user: &User, topic: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // Little is on its way to a reader that does not read.
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(gateway.address).await.unwrap();
    let handshake = format!(
        "GET /api/v1/live?topics={topic} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {}\r\n\r\n",
        user.token()
    );
    socket.write_all(handshake.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    socket
}

#[actix_rt::test]
async fn a_frame_is_judged_by_its_head() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let topic = format!("project:{}", project(&gateway, &user, "one").await);
    const TERABYTE: [u8; 8] = (1_u64 << 40).to_be_bytes();
    for (name, frame, code) in [
        ("a binary frame of a terabyte", [&[0x82, 0xff], TERABYTE.as_slice()].concat(), 1003),
        ("a text in fragments", [&[0x01, 0xff], TERABYTE.as_slice()].concat(), 1003),
        ("a small text", vec![0x81, 0x85], 1003),
        ("the rest of a message that never began", vec![0x00, 0x80], 1003),
        ("a ping of a terabyte", [&[0x89, 0xff], TERABYTE.as_slice()].concat(), 1002),
        ("a frame of no kind", vec![0x83, 0x80], 1002),
    ] {
        let mut socket = raw_web_socket(&gateway, &user, &topic).await;
        socket.write_all(&frame).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{name} is waited for");
        assert_eq!(answer.first(), Some(&0x88), "{name} is answered with a close");
        assert_eq!(u16::from_be_bytes([answer[2], answer[3]]), code, "{name}");
    }
    gateway.end().await;
}

#[actix_rt::test]
async fn a_web_socket_whose_reader_only_pings_is_held_back_and_closed() {
    let gateway = TestGateway::with(|settings| settings.stream_idle_seconds = 1).await;
    let user = gateway.administrator().await;
    let topic = format!("project:{}", project(&gateway, &user, "one").await);
    let mut socket = raw_web_socket(&gateway, &user, &topic).await;
    let pings = [0x89_u8, 0x80, 0, 0, 0, 0].repeat(16 * 1024);
    let mut written = 0_usize;
    let closed = async {
        while socket.write_all(&pings).await.is_ok() {
            written += pings.len();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), closed).await.expect("it reads for ever what nobody answers");
    assert!(written < 32 << 20, "{written} bytes of pings were taken from a reader that takes no pong");
    gateway.end().await;
}
