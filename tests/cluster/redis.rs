//! Redis is never the only copy of anything: nodes go on without it, and forget no revocation.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Api, Node, PASSWORD, servers::Redis, within};

/// Sign-ins of one address that may come at once. More of them take minutes.
const BURST: u32 = 12;
/// How soon a server that answers again is used, and what a busy machine needs beside it.
const BACK: Duration = Duration::from_secs(3);
/// A request that needs no other node.
const PROMPT: Duration = Duration::from_secs(3);

async fn whoami(api: &Api) -> StatusCode {
    let asked = Instant::now();
    let status = api.get("/auth/whoami").await.status;
    assert!(asked.elapsed() < PROMPT, "it hung for {:?}", asked.elapsed());
    status
}

#[tokio::test]
async fn without_redis_sessions_hold_revocations_count_and_each_node_keeps_the_limits() {
    let mut redis = Redis::start().await;
    let (url, burst) = (redis.url(), BURST.to_string());
    let settings = [
        ("CALLBOARD_REDIS_URL", url.as_str()),
        ("CALLBOARD_RATE_SIGN_IN", "1"),
        ("CALLBOARD_RATE_SIGN_IN_BURST", &burst),
    ];
    let node = Node::start_cluster_with(&["--no-sample"], &settings).await;
    let person = node.user("person").await;
    let login = json!({ "email": "person@example.com", "password": PASSWORD });
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let tokens = person.post("/auth/login", login.clone()).await.ok();
        sessions.push(tokens["access_token"].as_str().unwrap().to_owned());
    }
    let on = |number: usize, token: &str| Api::new(node.member(number).port, Some(token.to_owned()));

    for (fault, session) in ["flushed", "silent", "dead"].into_iter().zip(&sessions) {
        match fault {
            "flushed" => redis.flush().await,
            "silent" => redis.pause(),
            _ => {
                redis.resume();
                redis.kill();
            }
        }
        for number in 0..3 {
            assert_eq!(whoami(&on(number, session)).await, 200, "{fault}: it holds on node {number}");
        }
        on(0, session).post("/auth/logout", json!({})).await;
        let revoked = tokio::time::Instant::now();
        assert_eq!(whoami(&on(0, session)).await, 401, "{fault}");
        tokio::time::sleep_until(revoked + Duration::from_secs(1)).await;
        for number in 0..3 {
            assert_eq!(whoami(&on(number, session)).await, 401, "{fault}: it is dead on node {number}");
        }
        assert_eq!(whoami(&person).await, 200, "{fault}: another session is not touched");
    }

    for number in 0..3 {
        let stranger = Api::new(node.member(number).port, None);
        let mut refused = None;
        for _ in 0..2 * BURST {
            let request = stranger.request(Method::POST, "/auth/login");
            let request =
                request.json(&json!({ "email": format!("nobody{number}@example.com"), "password": PASSWORD }));
            let answer = request.send().await.unwrap();
            if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                refused = Some(answer);
                break;
            }
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        }
        let refused = refused.unwrap_or_else(|| panic!("node {number} keeps no limit without Redis"));
        assert!(refused.headers().contains_key("retry-after"));
    }

    redis.start_again().await;
    let back = Instant::now();
    assert_eq!(whoami(&person).await, 200);
    for number in 0..3 {
        let lines = |what: &str| {
            node.member(number).log().lines().filter(|line| line.contains("Redis at") && line.contains(what)).count()
        };
        within(BACK, "an outage is one line when it begins and one when it is over", || async {
            let [began, over] = [lines("does not answer; this node goes on without it"), lines("answers again")];
            (began == over && over > 0).then_some(())
        })
        .await;
    }
    assert!(back.elapsed() < BACK, "after {:?}", back.elapsed());
    node.finish().await;
}
