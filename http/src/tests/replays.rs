//! `Idempotency-Key`.

use std::time::{Duration, Instant};

use callboard_messages::{
    Caller, DeploymentId, Failure,
    deploy::{DeployError, Restart},
};
use callboard_supervisors::{Clock, Handle, Outcome};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::fixture::{By, Deploy, TestGateway, User, deployment, refused};

fn create(gateway: &TestGateway, user: &User, key: &str, name: &str) -> RequestBuilder {
    gateway.post("/api/v1/projects", &json!({"name": name})).by(user).header("idempotency-key", key)
}

async fn bytes(request: RequestBuilder) -> (u16, Option<String>, Vec<u8>, bool) {
    let response = request.send().await.unwrap();
    let location = response.headers().get("location").map(|location| location.to_str().unwrap().to_owned());
    let replayed = response.headers().contains_key("idempotent-replayed");
    (response.status().as_u16(), location, response.bytes().await.unwrap().to_vec(), replayed)
}

#[actix_rt::test]
async fn the_same_request_has_one_effect_and_one_answer_also_after_a_restart() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let first = bytes(create(&gateway, &user, "k-1", "shop")).await;
    assert_eq!((first.0, first.3), (201, false));
    let again = bytes(create(&gateway, &user, "k-1", "shop")).await;
    assert_eq!((again.0, &again.1, &again.2, again.3), (first.0, &first.1, &first.2, true));

    let reused = refused(create(&gateway, &user, "k-1", "other")).await;
    assert_eq!((reused.0, reused.1.as_str()), (422, "idempotency_key_reused"));
    assert_eq!(refused(create(&gateway, &user, &"k".repeat(256), "other")).await.0, 400);

    let stranger = gateway.user("stranger@example.com").await;
    assert_eq!(refused(create(&gateway, &stranger, "k-1", "shop")).await.0, 409, "a key is its owner's alone");

    let folder = gateway.end().await;
    let gateway = TestGateway::start(folder, |_| {}).await;
    let later = bytes(create(&gateway, &user, "k-1", "shop")).await;
    assert_eq!((later.0, later.1, later.2, later.3), (first.0, first.1, first.2, true));
    gateway.end().await;
}

/// Sends a request, and resets the connection `after` its last byte.
async fn reset(gateway: &TestGateway, user: &User, key: &str, name: &str, after: Duration) {
    let body = json!({"name": name}).to_string();
    let request = format!(
        "POST /api/v1/projects HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nIdempotency-Key: {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        user.token(),
        body.len(),
    );
    let mut socket = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    socket.set_zero_linger().unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(after).await;
}

#[actix_rt::test]
async fn a_client_that_resets_its_connection_finds_its_key_free_or_answered() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    for number in 0..12 {
        let (key, name) = (format!("k-{number}"), format!("shop-{number}"));
        reset(&gateway, &user, &key, &name, Duration::from_millis(number % 6)).await;
        let patience = Instant::now() + Duration::from_secs(10);
        loop {
            let (status, ..) = bytes(create(&gateway, &user, &key, &name)).await;
            if status == 201 {
                break;
            }
            assert_eq!(status, 409, "{key}");
            assert!(Instant::now() < patience, "{key} is reserved, and nothing is carried out");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    gateway.end().await;
}

#[actix_rt::test]
async fn a_refusal_is_not_kept() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    assert_eq!(refused(create(&gateway, &user, "k-1", "Not A Name")).await.0, 400);
    assert_eq!(bytes(create(&gateway, &user, "k-1", "a-name")).await.0, 201);
    assert_eq!(refused(create(&gateway, &user, "k-2", "a-name")).await.0, 409);
    assert_eq!(bytes(create(&gateway, &user, "k-2", "another-name")).await.0, 201);
    gateway.end().await;
}

#[actix_rt::test]
async fn of_many_at_once_one_is_carried_out() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let all = (0..20).map(|_| bytes(create(&gateway, &user, "k-1", "shop")));
    let answers = futures_util::future::join_all(all).await;
    let created: Vec<_> = answers.iter().filter(|answer| answer.0 == 201).collect();
    assert!(!created.is_empty());
    assert_eq!(created.iter().filter(|answer| !answer.3).count(), 1);
    assert!(created.iter().all(|answer| answer.2 == created[0].2));
    assert!(answers.iter().all(|answer| matches!(answer.0, 201 | 409)), "{answers:?}");
    gateway.end().await;
}

/// As a node leaves its places that died at work.
async fn crash(gateway: &TestGateway, lease_until: DateTime<Utc>) {
    let database = gateway.databases.open("gateway").await.unwrap();
    let sql = "UPDATE idempotency_keys SET answer = NULL, lease_until = $1";
    database.query(sql).bind(lease_until).execute().await.unwrap();
}

#[actix_rt::test]
async fn a_place_that_a_crash_left_is_free_after_its_lease_and_secrets_are_not_stored() {
    let clock = Clock::manual(Utc::now());
    let gateway = TestGateway::with_clock(&clock).await;
    let user = gateway.administrator().await;
    let body = json!({"name": "ci", "scopes": ["project:read"]});
    let request = || gateway.post("/api/v1/auth/api-keys", &body).by(&user).header("idempotency-key", "k-1");
    let first = bytes(request()).await;
    assert_eq!(bytes(request()).await.2, first.2);
    let database = gateway.databases.open("gateway").await.unwrap();
    let stored: Vec<u8> = database.query("SELECT answer FROM idempotency_keys").fetch_scalar().await.unwrap();
    assert!(!String::from_utf8_lossy(&stored).contains("cb_"), "an API key lies in the clear");

    // By its clock the lease is over, or is not for long: this node's own waiting counts.
    for minutes in [-1, 60] {
        crash(&gateway, clock.now() + TimeDelta::minutes(minutes)).await;
        assert_eq!(refused(request()).await.0, 409);
        clock.advance(Duration::from_secs(39));
        assert_eq!(refused(request()).await.0, 409);
        clock.advance(Duration::from_secs(2));
        assert_eq!(bytes(request()).await.0, 201);
    }
    gateway.end().await;
}

#[actix_rt::test]
async fn what_a_try_made_whose_answer_was_lost_is_found_by_the_next() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    for (path, body) in [
        ("/api/v1/organizations", json!({"name": "acme"})),
        ("/api/v1/projects", json!({"name": "shop"})),
        ("/api/v1/auth/api-keys", json!({"name": "ci", "scopes": ["project:read"]})),
        ("/api/v1/auth/invitations", json!({})),
    ] {
        let request = || gateway.post(path, &body).by(&user).header("idempotency-key", "k-1");
        let count = async || match path {
            "/api/v1/auth/invitations" => {
                let database = gateway.databases.open("auth").await.unwrap();
                let sql = "SELECT COUNT(*) FROM invitations WHERE NOT setup";
                usize::try_from(database.query(sql).fetch_scalar::<i64>().await.unwrap()).unwrap()
            }
            _ => {
                let list: Value = gateway.get(path).by(&user).send().await.unwrap().json().await.unwrap();
                list.get("items").unwrap_or(&list).as_array().unwrap().len()
            }
        };
        let before = count().await;
        let first = bytes(request()).await;
        crash(&gateway, DateTime::UNIX_EPOCH).await;
        let second = bytes(request()).await;
        assert_eq!((first.0 / 100, first.0, second.3), (2, second.0, false), "{path}");
        assert_eq!(first.2, second.2, "{path}");
        assert_eq!(bytes(request()).await.2, second.2, "{path}");
        assert_eq!(count().await, before + 1, "{path}");
    }
    gateway.end().await;
}

#[actix_rt::test]
async fn an_answer_that_can_t_be_kept_is_not_told() {
    let clock = Clock::manual(Utc::now());
    let gateway = TestGateway::with_clock(&clock).await;
    let user = gateway.administrator().await;
    let body = json!({"name": "ci", "scopes": ["project:read"]});
    let request = || gateway.post("/api/v1/auth/api-keys", &body).by(&user).header("idempotency-key", "k-1");
    let keys = async || -> Value {
        gateway.get("/api/v1/auth/api-keys").by(&user).send().await.unwrap().json().await.unwrap()
    };
    let database = gateway.databases.open("gateway").await.unwrap();
    let sql = "CREATE TRIGGER full BEFORE UPDATE ON idempotency_keys BEGIN SELECT RAISE(ABORT, 'no room'); END";
    database.query(sql).execute().await.unwrap();
    let answered = actix_rt::spawn(refused(request()));
    // The key is made, and its answer is not told yet.
    let patience = Instant::now() + Duration::from_secs(20);
    while keys().await.as_array().unwrap().is_empty() {
        assert!(Instant::now() < patience, "it is not made");
    }
    while !answered.is_finished() {
        clock.advance(Duration::from_millis(100));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let answered = answered.await.unwrap();
    assert_eq!(answered.0, 504, "{answered:?}");
    assert_eq!(keys().await.as_array().unwrap().len(), 1);

    // Nobody has been given that key; the next try is.
    database.query("DROP TRIGGER full").execute().await.unwrap();
    assert_eq!(refused(request()).await.0, 409);
    clock.advance(Duration::from_secs(41));
    let second = bytes(request()).await;
    assert_eq!((second.0, second.3), (201, false));
    assert_eq!(bytes(request()).await.2, second.2);
    assert_eq!(keys().await.as_array().unwrap().len(), 1);
    gateway.end().await;
}

/// The first outcome is unknown, the second none, and the third a deployment with the request for its id.
impl Handle<Restart> for Deploy {
    async fn handle(&self, caller: &Caller, message: Restart) -> Outcome<Restart> {
        let request = caller.request.ok_or(Failure::Expired)?;
        match self.restarts.replace(self.restarts.get() + 1) {
            0 => Err(Failure::Unknown.into()),
            1 => Err(DeployError::Invalid(request.to_string()).into()),
            _ => Ok(deployment(DeploymentId(request), message.project_id)),
        }
    }
}

#[actix_rt::test]
async fn after_an_unknown_outcome_the_next_try_is_the_same_request() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let project = gateway.project(&user, "shop").await;
    let path = format!("/api/v1/projects/{}/restart", project["id"].as_str().unwrap());
    let restart = |key: &str| gateway.post(&path, &json!({})).by(&user).header("idempotency-key", key);
    assert_eq!(refused(restart("k-1")).await.0, 504);
    let (status, _, same) = refused(restart("k-1")).await;
    assert_eq!(status, 400);
    // A refusal is no reason to forget that the first try may have made something.
    let third: Value = restart("k-1").send().await.unwrap().json().await.unwrap();
    assert!(same.contains(third["id"].as_str().unwrap()), "{same} {third}");
    let kept: Value = restart("k-1").send().await.unwrap().json().await.unwrap();
    assert_eq!(kept, third);
    let other: Value = restart("k-2").send().await.unwrap().json().await.unwrap();
    assert_ne!(other["id"], third["id"]);
    gateway.end().await;
}

#[actix_rt::test]
async fn a_key_that_is_used_again_after_a_day_is_another_request() {
    let gateway = TestGateway::new().await;
    let user = gateway.administrator().await;
    let body = json!({"name": "ci", "scopes": ["project:read"]});
    let request = || gateway.post("/api/v1/auth/api-keys", &body).by(&user).header("idempotency-key", "k-1");
    assert_eq!(bytes(request()).await.0, 201);
    let database = gateway.databases.open("gateway").await.unwrap();
    let sql = "UPDATE idempotency_keys SET expires_at = $1, lease_until = $1";
    database.query(sql).bind(Utc::now()).execute().await.unwrap();
    let later = bytes(request()).await;
    assert_eq!((later.0, later.3), (201, false));
    let list: Value = gateway.get("/api/v1/auth/api-keys").by(&user).send().await.unwrap().json().await.unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2, "the key of the day before is in use: {list}");
    gateway.end().await;
}
