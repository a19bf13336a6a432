//! Many people at once.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::{
    harness::{Api, Node},
    postgres::OwnDatabase,
};

const CLIENTS: usize = 24;
/// Of all clients together.
const PAIRS: usize = 240;
/// Of a pair: nothing is deployed, so that nothing takes its time to end.
const WITHIN: Duration = Duration::from_secs(15);

async fn create_and_delete(operator: &Api, client: usize) {
    for pair in 0..PAIRS / CLIENTS {
        let began = Instant::now();
        let id = operator.create_project(&format!("app-{client}-{pair}")).await;
        let deleted = operator.delete(&format!("/projects/{id}")).await;
        assert_eq!(deleted.status, 204, "{}", deleted.text);
        assert!(began.elapsed() < WITHIN, "a pair took {:?}", began.elapsed());
    }
}

async fn crowd(settings: &[(&str, &str)]) {
    // Its clients are one principal.
    let settings = [settings, &[("CALLBOARD_RATE_LIMITS", "false")]].concat();
    let node = Node::start_with(&["--no-sample"], &settings).await;
    let operator = node.operator();
    join_all((0..CLIENTS).map(|client| create_and_delete(&operator, client))).await;
    assert_eq!(operator.get("/projects").await.ok()["items"], serde_json::json!([]));
    node.finish().await;
}

#[tokio::test]
async fn projects_are_created_and_deleted_by_many_at_once() {
    crowd(&[]).await;
}

#[tokio::test]
async fn projects_are_created_and_deleted_by_many_at_once_with_one_connection_or_two() {
    for connections in ["1", "2"] {
        let database = OwnDatabase::new().await;
        crowd(&[("CALLBOARD_DATABASE_URL", database.url.as_str()), ("CALLBOARD_DATABASE_CONNECTIONS", connections)])
            .await;
    }
}
