//! Tests of the API on raw sockets: several requests in one packet, malformed ones, and ones without a route.

use std::time::Duration;

use callboard_platform::limits::Rate;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::fixture::TestGateway;

const PATIENCE: Duration = Duration::from_secs(10);

/// All bytes of the response to these bytes, until the connection closes.
async fn answers(gateway: &TestGateway, requests: &[u8]) -> String {
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    socket.write_all(requests).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("the connection stayed open").unwrap();
    String::from_utf8(answer).unwrap()
}

#[actix_rt::test]
async fn a_get_before_a_head_keeps_its_body() {
    let gateway = TestGateway::new().await;
    let head = "HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let get = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let last = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let all = answers(&gateway, format!("{get}{head}{get}{head}{head}{last}").as_bytes()).await;
    let answers: Vec<&str> = all.split("HTTP/1.1 200 OK\r\n").skip(1).collect();
    let bodies: Vec<&str> = answers.iter().map(|answer| answer.split_once("\r\n\r\n").unwrap().1).collect();
    let body = r#"{"status":"ok"}"#;
    assert_eq!(bodies, [body, "", body, "", "", body], "{all}");
    assert!(answers.iter().all(|answer| answer.contains("content-length: 15")), "{all}");
    gateway.end().await;
}

#[actix_rt::test]
async fn an_answer_is_written_before_the_next_request_is_read() {
    let gateway = TestGateway::new().await;
    // Each has a response of its own, and not all of them fit into a buffer.
    let request = "GET /api/v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    let requests = request.repeat(500);
    let (mut reading, mut writing) = socket.split();
    let mut received = 0;
    let read = async {
        let mut piece = vec![0; 64 * 1024];
        loop {
            match reading.read(&mut piece).await.unwrap() {
                0 => break,
                count => received += count,
            }
        }
    };
    let write = async {
        writing.write_all(requests.as_bytes()).await.unwrap();
        writing.shutdown().await.unwrap();
    };
    timeout(6 * PATIENCE, async { tokio::join!(read, write) }).await.expect("all are answered");
    let document = crate::openapi_document().to_string().len();
    assert!(received > 500 * document, "{received}");
    gateway.end().await;
}

#[actix_rt::test]
async fn what_is_no_request_is_told_why() {
    let gateway = TestGateway::with(|settings| settings.head_timeout_seconds = 1).await;
    for (request, status, reason) in [
        (b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n".as_slice(), 400, "write %C3"),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "write %FF"),
        (b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "write %20"),
        (b"GET / HTTP/1.1\r\nHost: localhost/x\r\n\r\n", 400, "the host is not"),
        (b"GET / HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", 400, "bare line feed"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "without TLS"),
        (b"GET / HTTP/1.1\r\nHost: loc", 408, "in time"),
        (b"", 408, "in time"),
    ] {
        let answer = answers(&gateway, request).await;
        let shown = String::from_utf8_lossy(request).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{shown:?}: {answer:?}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {head}");
        assert!(head.contains("application/problem+json") && head.contains("x-request-id: "), "{head}");
        let problem: Value = serde_json::from_str(body).unwrap();
        assert!(problem["detail"].as_str().unwrap().contains(reason), "{shown:?}: {body}");
    }
    let head = answers(&gateway, b"HEAD /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 400 ") && head.ends_with("\r\n\r\n"), "{head}");
    let metrics = gateway.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("callboard_http_refused_total 9"), "{metrics}");
    gateway.end().await;
}

#[actix_rt::test]
async fn a_second_head_has_no_more_time_than_the_first() {
    let gateway = TestGateway::with(|settings| settings.head_timeout_seconds = 1).await;
    let answer =
        answers(&gateway, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nHost: loc").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("HTTP/1.1 408 "), "{answer}");
    gateway.end().await;
}

#[actix_rt::test]
async fn what_leads_nowhere_is_limited() {
    let gateway = TestGateway::with(|settings| {
        settings.rate_limits.enabled = true;
        settings.rate_limits.address = Rate { per_minute: 1, burst: 4 };
    })
    .await;
    let (nowhere, wrong) = (("GET", "/nowhere", None), ("DELETE", "/health", None));
    let unknown = ("GET", "/", Some("nobody.localhost"));
    for ((method, path, host), status) in
        [(nowhere, 404), (unknown, 404), (wrong, 405), (unknown, 404), (unknown, 429), (nowhere, 429), (wrong, 429)]
    {
        let mut request = gateway.request(method, path);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{method} {path} {host:?}");
        assert_eq!(response.headers().contains_key("retry-after"), status == 429);
    }
    assert_eq!(gateway.get("/health").send().await.unwrap().status(), 200, "a probe is never limited");
    gateway.end().await;
}
