//! Tests of the API with a careless or hostile client.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::fixture::{By, TestGateway, refused};

#[actix_rt::test]
async fn every_bad_body_is_refused_with_its_reason() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let send = |body: String| {
        gateway.request("POST", "/api/v1/projects").by(&user).header("content-type", "application/json").body(body)
    };
    for (body, reason) in [
        ("{\"name\":".to_owned(), "at line 1 column 8"),
        ("{\"name\":\"a\"}}".to_owned(), "trailing characters"),
        (json!({"name": "a", "organization_id": "x"}).to_string(), "unknown field `organization_id`"),
        (json!({"name": "a", "is_admin": true}).to_string(), "unknown field `is_admin`"),
        (json!({"name": 7}).to_string(), "expected a string"),
        (json!({"name": "a\0"}).to_string(), "U+0000"),
        (json!({"name": "a", "\0": 1}).to_string(), "U+0000"),
        (json!({"name": null}).to_string(), "expected a string"),
        (json!(["a"]).to_string(), "expected a JSON object"),
        ("null".to_owned(), "expected a JSON object"),
        ("{\"name\":\"a\",\"name\":\"b\"}".to_owned(), "duplicate key `name`"),
        ("[".repeat(10_000), "32 levels"),
        (format!("{{\"name\":{}{}}}", "[".repeat(100), "]".repeat(100)), "32 levels"),
        (String::new(), "missing field `name`"),
    ] {
        let (status, code, detail) = refused(send(body.clone())).await;
        assert_eq!((status, code.as_str()), (400, "invalid"), "{body:.60}");
        assert!(detail.contains(reason), "{body:.60}: {detail}");
    }
    let large = json!({"name": "a", "description": "x".repeat(2 * 1024 * 1024)}).to_string();
    let (status, code, _) = refused(send(large)).await;
    assert_eq!((status, code.as_str()), (413, "too_large"));
    for media in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let request = gateway.request("POST", "/api/v1/projects").by(&user).header("content-type", media).body("{}");
        assert_eq!(refused(request).await.1, "unsupported_media_type", "{media}");
    }
    let still: Value = gateway.get("/api/v1/projects").by(&user).send().await.unwrap().json().await.unwrap();
    assert_eq!(still["items"], json!([]));
    gateway.end().await;
}

#[actix_rt::test]
async fn every_bad_address_is_refused_with_its_reason() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    for (path, reason) in [
        ("/api/v1/projects/7", "`project_id`"),
        ("/api/v1/projects/%00", "`project_id`"),
        ("/api/v1/projects?name=%00", "U+0000"),
        ("/api/v1/live?topics=%00", "U+0000"),
        ("/api/v1/projects/%ff", "not UTF-8"),
        ("/api/v1/projects/0190b0a0-0000-7000-8000-00000000000g", "`project_id`"),
        ("/api/v1/projects?limit=many", "`limit`"),
        ("/api/v1/projects?limit=-1", "`limit`"),
        ("/api/v1/projects?limit=0", "`limit` must be 1 to 100"),
        ("/api/v1/organizations?limit=101", "`limit` must be 1 to 100"),
        ("/api/v1/projects?limit=1&limit=2", "duplicate field `limit`"),
        ("/api/v1/projects?cursor=1%20or%201=1", "`cursor`"),
        ("/api/v1/projects?organization_id=1", "unknown parameter `organization_id`"),
        ("/api/v1/projects?a%5Bb%5D=1", "unknown query parameter"),
    ] {
        let (status, code, detail) = refused(gateway.get(path).by(&user)).await;
        assert_eq!((status, code.as_str()), (400, "invalid"), "{path}");
        assert!(detail.contains(reason), "{path}: {detail}");
    }
    for path in [
        "/api/v1/projects/",
        "/api/v1//projects",
        "/API/v1/projects",
        "/api/v1/projects/../auth/whoami",
        "/api/v2/projects",
    ] {
        let response = raw(
            &gateway,
            &format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
                user.token()
            ),
        )
        .await;
        assert!(response.starts_with("HTTP/1.1 404"), "{path}: {response}");
    }
    let in_query = gateway.post("/api/v1/projects?name=x", &json!({"name": "a"})).by(&user);
    assert_eq!(refused(in_query).await.0, 400);
    gateway.end().await;
}

/// Writes to the socket and reads until it closes.
async fn raw(gateway: &TestGateway, request: &str) -> String {
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    // The server may close before it has read everything.
    let _ = socket.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection stayed open");
    String::from_utf8_lossy(&answer).into_owned()
}

#[actix_rt::test]
async fn requests_that_could_be_read_two_ways_are_refused() {
    let gateway = TestGateway::new().await;
    for (name, request) in [
        (
            "both lengths",
            "POST /api/v1/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\
             Connection: close\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
                .to_owned(),
        ),
        (
            "two lengths",
            "POST /api/v1/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x".to_owned(),
        ),
        ("folded header", "GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n c\r\nConnection: close\r\n\r\n".to_owned()),
        ("large head", format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: {}\r\n\r\n", "a".repeat(200 * 1024))),
        ("no request", "hello\r\n\r\n".to_owned()),
        (
            "two organizations",
            "GET /api/v1/auth/jwks HTTP/1.1\r\nHost: localhost\r\nCallboard-Organization: a\r\nCallboard-Organization: b\r\n\
             Connection: close\r\n\r\n"
                .to_owned(),
        ),
    ] {
        let answer = raw(&gateway, &request).await;
        assert!(!answer.contains("HTTP/1.1 200"), "{name}: {answer}");
    }
    gateway.end().await;
}

#[actix_rt::test]
async fn a_client_that_dawdles_is_cut_and_others_are_served() {
    let gateway = TestGateway::with(|settings| {
        settings.head_timeout_seconds = 1;
        settings.body_timeout_seconds = 1;
    })
    .await;
    let answer = raw(&gateway, "GET /health HTTP/1.1\r\nHost: loc").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{";
    let answer = raw(&gateway, head).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(gateway.get("/health").send().await.unwrap().status(), 200);
    gateway.end().await;
}
