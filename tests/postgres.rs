//! A node that keeps its data in PostgreSQL.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::harness::{App, Node};

/// A database of its own, on the server of the tests.
async fn execute(statement: String) {
    let mut server = PgConnection::connect(&callboard_supervisors::testing::postgres_url()).await.unwrap();
    sqlx::query(AssertSqlSafe(statement)).execute(&mut server).await.unwrap();
    server.close().await.unwrap();
}

#[tokio::test]
async fn a_node_on_postgresql_deploys_and_comes_back_after_it_was_killed() {
    let name = format!("callboard_e2e_{}", uuid::Uuid::now_v7().simple());
    execute(format!("CREATE DATABASE {name}")).await;
    let mut url = url::Url::parse(&callboard_supervisors::testing::postgres_url()).unwrap();
    url.set_path(&name);

    let mut node = Node::start_with(&["--no-sample"], &[("CALLBOARD_DATABASE_URL", url.as_str())]).await;
    {
        let app = App::web(&node, "shop", "one");
        app.deploy().await;
        app.set_version("two");
        app.deploy().await;
    }
    assert!(!node.data().join("databases").exists());
    node.kill().await;
    node.start_again().await;
    let app = App::new(&node, "shop", &[]);
    app.settle("web", 1).await;
    assert_eq!(app.version().await, "two");
    node.cli_json(&["rollback", "--app", "shop"]).await;
    assert_eq!(app.version().await, "one");
    node.finish().await;
    execute(format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_told_in_a_sentence() {
    let node = Node::start().await;
    let data = node.scratch("other");
    let nobody = node.scratch("socket");
    let url = format!("postgres://postgres@localhost/postgres?host={}", nobody.display());
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let ran = node.cli_with(&arguments, &[("CALLBOARD_DATABASE_URL", &url)]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("error: ") && ran.err.contains("CALLBOARD_DATABASE_URL"), "{ran:?}");
    node.finish().await;
}
