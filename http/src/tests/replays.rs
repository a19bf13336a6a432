//! `Idempotency-Key`.

use reqwest::RequestBuilder;
use serde_json::json;

use super::stage::{By, Stage, User, refused};

fn create(stage: &Stage, user: &User, key: &str, name: &str) -> RequestBuilder {
    stage.post("/api/v1/projects", &json!({"name": name})).by(user).header("idempotency-key", key)
}

async fn bytes(request: RequestBuilder) -> (u16, Option<String>, Vec<u8>, bool) {
    let response = request.send().await.unwrap();
    let location = response.headers().get("location").map(|location| location.to_str().unwrap().to_owned());
    let replayed = response.headers().contains_key("idempotent-replayed");
    (response.status().as_u16(), location, response.bytes().await.unwrap().to_vec(), replayed)
}

#[actix_rt::test]
async fn the_same_request_has_one_effect_and_one_answer_also_after_a_restart() {
    let stage = Stage::new().await;
    let user = stage.administrator().await;
    let first = bytes(create(&stage, &user, "k-1", "shop")).await;
    assert_eq!((first.0, first.3), (201, false));
    let again = bytes(create(&stage, &user, "k-1", "shop")).await;
    assert_eq!((again.0, &again.1, &again.2, again.3), (first.0, &first.1, &first.2, true));

    let reused = refused(create(&stage, &user, "k-1", "other")).await;
    assert_eq!((reused.0, reused.1.as_str()), (422, "idempotency_key_reused"));
    assert_eq!(refused(create(&stage, &user, &"k".repeat(256), "other")).await.0, 400);

    let stranger = stage.user("stranger@example.com").await;
    assert_eq!(refused(create(&stage, &stranger, "k-1", "shop")).await.0, 409, "a key is its owner's alone");

    let folder = stage.end().await;
    let stage = Stage::start(folder, |_| {}).await;
    let later = bytes(create(&stage, &user, "k-1", "shop")).await;
    assert_eq!((later.0, later.1, later.2, later.3), (first.0, first.1, first.2, true));
    stage.end().await;
}

#[actix_rt::test]
async fn a_refusal_is_not_kept() {
    let stage = Stage::new().await;
    let user = stage.administrator().await;
    assert_eq!(refused(create(&stage, &user, "k-1", "Not A Name")).await.0, 400);
    assert_eq!(bytes(create(&stage, &user, "k-1", "a-name")).await.0, 201);
    assert_eq!(refused(create(&stage, &user, "k-2", "a-name")).await.0, 409);
    assert_eq!(bytes(create(&stage, &user, "k-2", "another-name")).await.0, 201);
    stage.end().await;
}

#[actix_rt::test]
async fn of_many_at_once_one_is_carried_out() {
    let stage = Stage::new().await;
    let user = stage.administrator().await;
    let all = (0..20).map(|_| bytes(create(&stage, &user, "k-1", "shop")));
    let answers = futures_util::future::join_all(all).await;
    let created: Vec<_> = answers.iter().filter(|answer| answer.0 == 201).collect();
    assert!(!created.is_empty());
    assert_eq!(created.iter().filter(|answer| !answer.3).count(), 1);
    assert!(created.iter().all(|answer| answer.2 == created[0].2));
    assert!(answers.iter().all(|answer| matches!(answer.0, 201 | 409)), "{answers:?}");
    stage.end().await;
}

#[actix_rt::test]
async fn a_place_that_a_crash_left_is_free_after_its_lease_and_secrets_are_not_stored() {
    let stage = Stage::new().await;
    let user = stage.administrator().await;
    let body = json!({"name": "ci", "scopes": ["project:read"]});
    let request = || stage.post("/api/v1/auth/api-keys", &body).by(&user).header("idempotency-key", "k-1");
    let first = bytes(request()).await;
    assert_eq!(bytes(request()).await.2, first.2);
    let database = stage.databases.open("gateway").await.unwrap();
    let stored: Vec<u8> = database.query("SELECT answer FROM idempotency_keys").fetch_scalar().await.unwrap();
    assert!(!String::from_utf8_lossy(&stored).contains("cb_"), "an API key lies in the clear");

    // As a node would leave it that died at work.
    let now = chrono::Utc::now();
    let sql = "UPDATE idempotency_keys SET answer = NULL, lease_until = $1";
    database.query(sql).bind(now + chrono::TimeDelta::minutes(1)).execute().await.unwrap();
    assert_eq!(refused(request()).await.0, 409);
    database.query(sql).bind(now - chrono::TimeDelta::minutes(1)).execute().await.unwrap();
    assert_eq!(bytes(request()).await.0, 201);
    stage.end().await;
}
