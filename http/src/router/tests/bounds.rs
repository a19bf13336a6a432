//! What one app, one address and one body may have of the router.

use tokio::sync::Notify;

use super::*;

/// An instance whose answers wait for a word.
async fn waiting() -> (Instance, Rc<Notify>, Rc<Notify>) {
    let (asked, go) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
    let instance = Instance::start({
        let (asked, go) = (Rc::clone(&asked), Rc::clone(&go));
        move |mut connection| {
            let (asked, go) = (Rc::clone(&asked), Rc::clone(&go));
            async move {
                while connection.try_message(false).await.is_some() {
                    asked.notify_one();
                    go.notified().await;
                    connection.send(&ok("done")).await;
                }
            }
        }
    })
    .await;
    (instance, asked, go)
}

#[actix_rt::test]
async fn a_request_too_many_is_refused_until_another_one_ends() {
    for (settings, status, code) in [
        (Settings { app_requests: 1, ..Settings::default() }, 503, "overloaded"),
        (Settings { address_requests: 1, ..Settings::default() }, 429, "rate_limited"),
    ] {
        let gateway = Gateway::with(settings);
        let (instance, asked, go) = waiting().await;
        gateway.serve(&[&instance]);
        let mut client = gateway.client().await;
        client.send(&get("/")).await;
        soon(asked.notified()).await;
        let refused = gateway.ask("GET / HTTP/1.1\r\nHost: hello.localhost\r\nAccept: application/json\r\n\r\n").await;
        assert_eq!(refused.status(), status);
        assert!(refused.header("retry-after").is_some());
        let problem: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
        assert_eq!(problem["code"], code);
        go.notify_one();
        assert_eq!(client.answer().await.text(), "done");
        go.notify_one();
        assert_eq!(gateway.get("/").await.text(), "done");
    }
}

#[actix_rt::test]
async fn a_body_that_trickles_is_given_up() {
    let settings = Settings { body_timeout: Duration::from_millis(500), body_rate: 1000, ..Settings::default() };
    let gateway = Gateway::with(settings);
    let broke = Rc::new(Notify::new());
    let instance = Instance::start({
        let broke = Rc::clone(&broke);
        move |mut connection| {
            let broke = Rc::clone(&broke);
            async move {
                assert!(!connection.try_message(false).await.unwrap().whole);
                broke.notify_one();
            }
        }
    })
    .await;
    gateway.serve(&[&instance]);
    let (reading, mut writing) = gateway.client().await.stream.into_split();
    let head = "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 100000\r\n\r\n";
    writing.write_all(head.as_bytes()).await.unwrap();
    let trickle = actix_rt::spawn(async move {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut answer = String::new();
    let mut reading = tokio::io::BufReader::new(reading);
    soon(tokio::io::AsyncBufReadExt::read_line(&mut reading, &mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    soon(broke.notified()).await;
    trickle.abort();
}

#[actix_rt::test]
async fn a_body_that_comes_slowly_and_steadily_arrives() {
    let settings = Settings { body_timeout: Duration::from_millis(500), body_rate: 1000, ..Settings::default() };
    let gateway = Gateway::with(settings);
    let instance = Instance::answering(|request| ok(&request.body.len().to_string())).await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 8000\r\n\r\n").await;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.send(&"x".repeat(200)).await;
    }
    assert_eq!(client.answer().await.text(), "8000");
}
