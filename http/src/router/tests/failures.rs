//! Who did not answer, and what the client is told.

use super::*;

#[actix_rt::test]
async fn an_unknown_app_is_a_404_that_names_it() {
    let gateway = Gateway::start();
    let answer = gateway.ask("GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n").await;
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(answer.text().contains("There is no such app") && answer.text().contains("nobody"), "{}", answer.text());
    assert!(answer.text().contains(answer.header("x-request-id").unwrap()));

    let answer = gateway.ask("GET / HTTP/1.1\r\nHost: <script>.localhost\r\n\r\n").await;
    assert!(answer.status() >= 400 && !answer.text().contains("<script>"), "{}", answer.text());
}

#[actix_rt::test]
async fn a_client_that_accepts_json_gets_a_problem_document() {
    let gateway = Gateway::start();
    let answer = gateway.ask("GET / HTTP/1.1\r\nHost: nobody.localhost\r\nAccept: application/json\r\n\r\n").await;
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(problem["status"], 404);
    assert_eq!(problem["code"], "not_found");
    assert_eq!(problem["app"], "nobody");
    assert_eq!(problem["request_id"], answer.header("x-request-id").unwrap());
}

#[actix_rt::test]
async fn an_app_without_an_instance_is_a_503_that_says_why_and_when_to_retry() {
    let gateway = Gateway::start();
    for (state, words) in [
        (RouteState::Stopped, "stopped, scaled to zero"),
        (RouteState::NoRelease, "Nothing has been deployed"),
        (RouteState::Deploying, "being deployed"),
        (RouteState::Unhealthy, "health checks"),
        (RouteState::Serving, "ready to take requests"),
    ] {
        gateway.route(&[], state);
        let mut client = gateway.client().await;
        client.send(&get("/")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status(), 503);
        assert!(answer.text().contains(words) && answer.text().contains("hello"), "{}", answer.text());
        assert!(answer.header("retry-after").is_some());
        client.send("HEAD / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n").await;
        assert_eq!(client.answer_without_body().await.status(), 503);
        client.send(&get("/")).await;
        assert_eq!(client.answer().await.status(), 503, "the connection is still usable");
    }
    assert_eq!(gateway.table.get("hello").unwrap().metrics().count(5), 0, "what never ran has no series");
}

#[actix_rt::test]
async fn an_instance_that_refuses_is_a_502() {
    let gateway = Gateway::start();
    let refusing = Instance::refusing().await;
    gateway.serve(&[&refusing]);
    let answer = gateway.get("/").await;
    assert_eq!(answer.status(), 502);
    assert!(answer.text().contains("refused"), "{}", answer.text());
}

#[actix_rt::test]
async fn a_refused_request_goes_to_another_instance_whatever_its_method() {
    let gateway = Gateway::start();
    let (refusing, first, second) = (
        Instance::refusing().await,
        Instance::refusing().await,
        Instance::answering(|request| ok(request.text())).await,
    );
    gateway.serve(&[&refusing, &first, &second]);
    for _ in 0..20 {
        let answer = gateway.ask(&post("precious")).await;
        assert_eq!((answer.status(), answer.text()), (200, "precious"));
    }
}

#[actix_rt::test]
async fn no_valid_answer_is_a_502_that_says_what_came_instead() {
    let gateway = Gateway::start();
    let large: &'static str = format!("HTTP/1.1 200 OK\r\nX-Large: {}\r\n\r\n", "x".repeat(1 << 20)).leak();
    for (said, words) in [
        ("", "closed the connection without an answer"),
        ("HTTP/1.1 200 OK\r\nX-Ha", "before the head of its answer was complete"),
        ("SMTP ready\r\n\r\n", "not valid HTTP"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", "not valid HTTP"),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "without being asked"),
        (large, "too large"),
    ] {
        let instance = Instance::start(move |mut connection| async move {
            connection.head().await.unwrap();
            // The router may hang up while this is being written.
            let _ = connection.stream.write_all(said.as_bytes()).await;
        })
        .await;
        gateway.serve(&[&instance]);
        let answer = gateway.ask(&post("x")).await;
        assert_eq!(answer.status(), 502, "{said:.40}");
        assert!(answer.text().contains(words), "{said:.40}: {}", answer.text());
    }
}

#[actix_rt::test]
async fn an_instance_that_says_nothing_is_a_504() {
    let settings = Settings { response_timeout: Duration::from_millis(50), ..Settings::default() };
    let gateway = Gateway::with(settings);
    let instance = Instance::start(|mut connection| async move {
        connection.rest().await;
    })
    .await;
    gateway.serve(&[&instance]);
    let answer = gateway.get("/").await;
    assert_eq!(answer.status(), 504);
    assert!(answer.text().contains("within 0.05 s"), "{}", answer.text());
    let answer = gateway.ask(&post("all of it")).await;
    assert_eq!(answer.status(), 504);
    let unfinished = "POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 9\r\n\r\npart";
    assert_eq!(gateway.ask(unfinished).await.status(), 408, "here the instance waits for the client");
}

#[actix_rt::test]
async fn the_timeout_counts_from_the_last_piece_of_the_body() {
    let settings = Settings { response_timeout: Duration::from_millis(1500), ..Settings::default() };
    let gateway = Gateway::with(settings);
    let instance = Instance::answering(|request| ok(request.text())).await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    client.send("POST / HTTP/1.1\r\nHost: hello.localhost\r\nContent-Length: 8\r\n\r\n").await;
    for byte in "streamed".chars() {
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.send(&byte.to_string()).await;
    }
    assert_eq!(client.answer().await.text(), "streamed");
}

/// Answers the first request of each connection, and hangs up when it reads the second one.
async fn forgetful() -> Instance {
    Instance::start(|mut connection| async move {
        connection.try_message(false).await.unwrap();
        connection.send(&ok("once")).await;
        connection.try_message(false).await;
    })
    .await
}

#[actix_rt::test]
async fn a_kept_connection_that_dies_costs_an_idempotent_request_nothing() {
    let gateway = Gateway::start();
    let instance = forgetful().await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    for _ in 0..4 {
        client.send(&get("/")).await;
        assert_eq!(client.answer().await.text(), "once");
    }
    assert_eq!(instance.accepted(), 4);
}

#[actix_rt::test]
async fn a_request_that_may_have_been_acted_on_is_not_sent_again() {
    let gateway = Gateway::start();
    let instance = forgetful().await;
    gateway.serve(&[&instance]);
    let mut client = gateway.client().await;
    client.send(&get("/")).await;
    assert_eq!(client.answer().await.text(), "once");
    client.send(&post("pay")).await;
    assert_eq!(client.answer().await.status(), 502);
    assert_eq!(instance.accepted(), 1);
}
