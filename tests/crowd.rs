//! Many people at once.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::{
    harness::{Api, Node},
    postgres::OwnDatabase,
};

const CLIENTS: usize = 24;
/// Of each client, unless `CALLBOARD_TEST_PAIRS` says otherwise.
const PAIRS: usize = 10;
/// The same on three nodes, where each takes longer.
const FEW_PAIRS: usize = 4;
/// Of a pair: nothing is deployed, so that nothing takes its time to end.
const WITHIN: Duration = Duration::from_secs(15);

fn pairs(unless_told: usize) -> usize {
    std::env::var("CALLBOARD_TEST_PAIRS").ok().map_or(unless_told, |pairs| pairs.parse().unwrap())
}

async fn create_and_delete(operator: &Api, client: usize, pairs: usize) {
    for pair in 0..pairs {
        let began = Instant::now();
        let id = operator.create_project(&format!("app-{client}-{pair}")).await;
        let deleted = operator.delete(&format!("/projects/{id}")).await;
        assert_eq!(deleted.status, 204, "{}", deleted.text);
        assert!(began.elapsed() < WITHIN, "a pair took {:?}", began.elapsed());
    }
}

/// All clients of a node, or each third of them of one of three.
async fn crowd(node: Node, nodes: usize, pairs: usize) {
    let token = node.operator().token;
    let began = Instant::now();
    join_all((0..CLIENTS).map(async |client| {
        let operator = Api::new(node.member(client % nodes).port, token.clone());
        create_and_delete(&operator, client, pairs).await;
    }))
    .await;
    eprintln!("{} pairs in {:?}", CLIENTS * pairs, began.elapsed());
    assert_eq!(node.operator().get("/projects").await.ok()["items"], serde_json::json!([]));
    node.finish().await;
}

/// The clients are one principal.
const UNLIMITED: (&str, &str) = ("CALLBOARD_RATE_LIMITS", "false");

#[tokio::test]
async fn projects_are_created_and_deleted_by_many_at_once() {
    let node = Node::start_with(&["--no-sample"], &[UNLIMITED]).await;
    crowd(node, 1, pairs(PAIRS)).await;
}

#[tokio::test]
async fn projects_are_created_and_deleted_by_many_at_once_with_one_connection_or_two() {
    for connections in ["1", "2"] {
        let database = OwnDatabase::new().await;
        let settings = [
            UNLIMITED,
            ("CALLBOARD_DATABASE_URL", database.url.as_str()),
            ("CALLBOARD_DATABASE_CONNECTIONS", connections),
        ];
        crowd(Node::start_with(&["--no-sample"], &settings).await, 1, pairs(PAIRS)).await;
    }
}

#[tokio::test]
async fn projects_are_created_and_deleted_by_many_at_once_on_three_nodes_with_two_connections() {
    let node = Node::start_cluster_with(&["--no-sample"], &[UNLIMITED, ("CALLBOARD_DATABASE_CONNECTIONS", "2")]).await;
    crowd(node, 3, pairs(FEW_PAIRS)).await;
}
