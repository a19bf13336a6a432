//! What passes, what is changed, what is refused.

use super::*;

/// An instance that answers with the head it received.
async fn mirror() -> Instance {
    Instance::answering(|request| ok(&request.head)).await
}

#[actix_rt::test]
async fn an_apps_host_is_proxied_and_all_others_reach_the_application() {
    let gateway = Gateway::start();
    let instance = Instance::saying("the app").await;
    gateway.serve(&[&instance]);
    for (host, expected) in [
        ("hello.localhost", "the app"),
        ("HeLLo.LOCALHOST:8080", "the app"),
        ("localhost:8080", "the control plane"),
        ("127.0.0.1", "the control plane"),
    ] {
        let answer = gateway.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!((answer.status(), answer.text()), (200, expected), "{host}");
    }
}

#[actix_rt::test]
async fn the_request_line_and_end_to_end_headers_are_kept() {
    let gateway = Gateway::start();
    let instance = mirror().await;
    gateway.serve(&[&instance]);
    let answer = gateway
        .ask("DELETE /a%2Fb//c?q=%20&r HTTP/1.1\r\nHost: hello.localhost:99\r\nCookie: a=1\r\nX-Own: 1\r\nX-Own: 2\r\n\r\n")
        .await;
    let request = Answer { head: answer.text().to_owned(), body: Vec::new(), whole: true };
    assert!(request.head.starts_with("DELETE /a%2Fb//c?q=%20&r HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("host"), Some("hello.localhost:99"));
    assert_eq!(request.header("cookie"), Some("a=1"));
    assert_eq!(request.headers("x-own"), ["1", "2"]);
    assert_eq!(request.header("x-forwarded-host"), Some("hello.localhost:99"));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.header("x-request-id"), answer.header("x-request-id"));
    assert!(request.header("x-request-id").is_some_and(|id| Uuid::parse_str(id).is_ok()));
}

#[actix_rt::test]
async fn the_authority_of_an_absolute_target_overrules_the_host() {
    let gateway = Gateway::start();
    let instance = mirror().await;
    gateway.serve(&[&instance]);
    let answer = gateway.ask("GET http://hello.localhost/x HTTP/1.1\r\nHost: other.localhost\r\n\r\n").await;
    assert!(answer.text().starts_with("GET /x HTTP/1.1\r\nhost: hello.localhost\r\n"), "{}", answer.text());
}

const SPOOFED: &str = "GET / HTTP/1.1\r\nHost: hello.localhost\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
     X-Forwarded-Host: evil\r\nX_Forwarded_For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
     X-Forwarded-Prefix: /x\r\nProxy: http://evil\r\nX-Request-Id: mine-1\r\n\r\n";

#[actix_rt::test]
async fn forwarded_headers_of_a_stranger_are_replaced() {
    let gateway = Gateway::start();
    let instance = mirror().await;
    gateway.serve(&[&instance]);
    let answer = gateway.ask(SPOOFED).await;
    for gone in ["6.6.6.6", "evil", "https", "prefix"] {
        assert!(!answer.text().contains(gone), "{}", answer.text());
    }
    assert!(answer.text().contains("x-forwarded-for: 127.0.0.1\r\n"), "{}", answer.text());
    assert_eq!(answer.header("x-request-id"), Some("mine-1"));
}

#[actix_rt::test]
async fn forwarded_headers_of_a_trusted_proxy_are_extended() {
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let gateway = Gateway::with(Settings { trusted_proxies, ..Settings::default() });
    let instance = mirror().await;
    gateway.serve(&[&instance]);
    let answer = gateway.ask(SPOOFED).await;
    for kept in
        ["x-forwarded-for: 6.6.6.6, 127.0.0.1\r\n", "x-forwarded-proto: https\r\n", "x-forwarded-host: evil\r\n"]
    {
        assert!(answer.text().contains(kept), "{}", answer.text());
    }
}

#[actix_rt::test]
async fn hop_by_hop_headers_end_at_the_router_in_both_directions() {
    let gateway = Gateway::start();
    let instance = Instance::answering(|request| {
        format!(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Drop\r\nKeep-Alive: timeout=5\r\nX-Drop: 1\r\nX-Keep: 1\r\n\
             Proxy-Authenticate: Basic\r\nTrailer: X\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
             Content-Length: {}\r\n\r\n{}",
            request.head.len(),
            request.head
        )
    })
    .await;
    gateway.serve(&[&instance]);
    let answer = gateway
        .ask(
            "GET / HTTP/1.1\r\nHost: hello.localhost\r\nConnection: keep-alive, X-Secret, X-Forwarded-For, Host\r\n\
             Keep-Alive: 300\r\nX-Secret: 1\r\nTE: trailers\r\nProxy-Authorization: x\r\nProxy-Connection: x\r\n\
             Upgrade: h2c\r\nX-Keep: 1\r\n\r\n",
        )
        .await;
    let seen = answer.text().to_lowercase();
    for gone in ["x-secret", "\r\nte:", "proxy-", "upgrade", "\r\nkeep-alive", "connection"] {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
    assert!(seen.contains("x-keep: 1") && seen.contains("x-forwarded-for") && seen.contains("host: hello.localhost"));
    for gone in ["connection", "keep-alive", "x-drop", "proxy-authenticate", "trailer"] {
        assert_eq!(answer.header(gone), None, "{}", answer.head);
    }
    assert_eq!(answer.header("x-keep"), Some("1"));
    assert_eq!(answer.headers("set-cookie"), ["a=1", "b=2"]);
}

#[actix_rt::test]
async fn both_sides_keep_their_connections() {
    let gateway = Gateway::start();
    let instance = Instance::saying("again").await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    for _ in 0..5 {
        client.send(&get("/")).await;
        assert_eq!(client.answer().await.text(), "again");
        client.send(&post("body")).await;
        assert_eq!(client.answer().await.text(), "again");
    }
    assert_eq!(instance.accepted(), 1);
}

#[actix_rt::test]
async fn an_instances_connection_is_not_kept_when_it_says_close() {
    let gateway = Gateway::start();
    let instance =
        Instance::answering(|_| "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi".to_owned()).await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    for _ in 0..3 {
        client.send(&get("/")).await;
        let answer = client.answer().await;
        assert_eq!((answer.text(), answer.header("connection")), ("hi", None));
    }
    assert_eq!(instance.accepted(), 3);
}

#[actix_rt::test]
async fn answers_without_a_body_keep_their_length_and_the_connection() {
    let gateway = Gateway::start();
    let instance = Instance::answering(|request| {
        let path = request.head.split(' ').nth(1).unwrap();
        match path {
            "/204" => "HTTP/1.1 204 No Content\r\nX-Own: 1\r\n\r\n".to_owned(),
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"x\"\r\n\r\n".to_owned(),
            "/empty" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nContent-Type: text/plain\r\n\r\n".to_owned(),
        }
    })
    .await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    client.send("HEAD / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n").await;
    let answer = client.answer_without_body().await;
    assert_eq!((answer.status(), answer.header("content-length")), (200, Some("1234")));
    client.send(&get("/204")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.header("content-length"), answer.header("x-own")), (204, None, Some("1")));
    client.send(&get("/304")).await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status(), answer.header("content-length"), answer.header("etag")),
        (304, Some("7"), Some("\"x\""))
    );
    client.send(&get("/empty")).await;
    assert_eq!(client.answer().await.header("content-length"), Some("0"));
    assert_eq!(instance.accepted(), 1);
}

#[actix_rt::test]
async fn what_the_app_sends_is_not_compressed_on_the_way() {
    let gateway = Gateway::start();
    let body: &'static str = "compressible ".repeat(500).leak();
    let instance = Instance::saying(body).await;
    gateway.serve(&[&instance]);
    let request = "GET / HTTP/1.1\r\nHost: hello.localhost\r\nAccept-Encoding: gzip\r\n\r\n";
    let answer = gateway.ask(request).await;
    assert_eq!((answer.header("content-encoding"), answer.text()), (None, body));
    assert_eq!(answer.header("content-length"), Some(body.len().to_string().as_str()));
}

#[actix_rt::test]
async fn a_client_of_http_1_0_gets_a_body_that_ends_with_the_connection() {
    let gateway = Gateway::start();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let instance = Instance::answering(|_| chunked.to_owned()).await;
    gateway.serve(&[&instance]);
    let request = "GET / HTTP/1.0\r\nHost: hello.localhost\r\nConnection: keep-alive\r\n\r\n";
    let answer = gateway.ask(request).await;
    assert!(answer.head.starts_with("HTTP/1.0 200"), "{}", answer.head);
    assert_eq!((answer.header("transfer-encoding"), answer.text()), (None, "abc"));
}

#[actix_rt::test]
async fn a_client_that_expects_continue_is_told_to() {
    let gateway = Gateway::start();
    let instance = Instance::answering(|request| {
        assert_eq!(request.header("expect"), None);
        ok(request.text())
    })
    .await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: hello.localhost\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 100);
    client.send("body").await;
    assert_eq!(client.answer().await.text(), "body");
}

#[actix_rt::test]
async fn what_is_no_request_is_refused_with_a_reason_and_reaches_nobody() {
    let gateway = Gateway::start();
    let instance = mirror().await;
    gateway.serve(&[&instance]);
    for (request, status, reason) in [
        ("GET /caf\u{e9} HTTP/1.1\r\nHost: hello.localhost\r\n\r\n", 400, "write %C3"),
        ("GET /a b HTTP/1.1\r\nHost: hello.localhost\r\n\r\n", 400, "write %20"),
        ("GET / HTTP/1.1\r\nHost: hello.localhost/admin\r\n\r\n", 400, "the host is not"),
        ("GET / HTTP/1.1\r\nHost: hello.localhost\nX-A: b\r\n\r\n", 400, "bare line feed"),
        ("GET / HTTP/3\r\nHost: hello.localhost\r\n\r\n", 505, "HTTP/1.1"),
    ] {
        let mut client = gateway.client().await;
        // What was asked properly before is answered first.
        client.send(&format!("{}{request}{}", get("/before"), get("/behind"))).await;
        assert!(client.answer().await.text().starts_with("GET /before"));
        let answer = client.answer().await;
        assert_eq!((answer.status(), answer.header("connection")), (status, Some("close")), "{request}");
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(problem["detail"].as_str().unwrap().contains(reason), "{request}: {problem}");
        assert_eq!(problem["request_id"], answer.header("x-request-id").unwrap());
        assert!(soon(client.rest()).await.is_empty(), "nothing is answered behind it");
    }
    for target in ["/a|b", "/%C3%A9?q=^`{}|\\", "/{\"json\":1}"] {
        let answer = gateway.get(target).await;
        assert!(answer.text().starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{target}: {}", answer.text());
    }
}

#[actix_rt::test]
async fn ambiguous_and_oversized_requests_never_reach_an_instance() {
    let gateway = Gateway::start();
    let instance = mirror().await;
    gateway.serve(&[&instance]);
    let large = format!("X-Large: {}\r\n", "x".repeat(200_000));
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    for (fields, status) in [
        ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", 400..=400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", 400..=400),
        ("Content-Length: 4\r\nContent-Length: 5\r\n", 400..=400),
        ("Content-Length: +4\r\n", 400..=400),
        ("Transfer-Encoding: gzip, chunked\r\n", 400..=400),
        ("Transfer-Encoding : chunked\r\n", 400..=400),
        ("Host: other.localhost\r\n", 400..=400),
        ("X-Fold: a\r\n b\r\n", 400..=400),
        (large.as_str(), 431..=431),
        (many.as_str(), 400..=431),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: hello.localhost\r\n{fields}\r\n0\r\n\r\n");
        let answer = gateway.ask(&request).await;
        assert!(status.contains(&answer.status()), "{} for {:.60}", answer.status(), fields);
    }
    for request in [
        "CONNECT hello.localhost:80 HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n",
    ] {
        assert_eq!(gateway.ask(request).await.status(), 501);
    }
    assert_eq!(instance.accepted(), 0);
}
