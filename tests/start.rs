//! How a node begins and ends.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use crate::harness::{App, Node, PASSWORD, eventually, visit};

#[tokio::test]
async fn the_set_up_link_makes_the_first_administrator_once() {
    let node = Node::start().await;
    let link = node.announced["setup_url"].as_str().unwrap().to_owned();
    let anonymous = node.anonymous();
    let refused = anonymous.post("/auth/register", json!({ "email": "a@example.com", "password": PASSWORD })).await;
    assert_eq!(refused.refused(403)["code"], "forbidden");

    let path = link.split_once(&format!(":{}", node.port)).unwrap().1;
    let page = anonymous.send(anonymous.raw(Method::GET, path)).await;
    assert!(page.status.is_success() && page.text.contains("<form"), "{}", page.text);

    let admin = node.admin().await;
    let me = admin.get("/auth/whoami").await.ok();
    assert_eq!(me["account"]["email"], "admin@example.com");
    assert_eq!(me["account"]["administrator"], true);

    let token = path.split_once("token=").unwrap().1;
    let again = json!({ "email": "b@example.com", "password": PASSWORD, "invitation": token });
    assert_eq!(anonymous.post("/auth/register", again).await.refused(403)["code"], "forbidden");

    let tokens =
        anonymous.post("/auth/login", json!({ "email": "Admin@Example.com", "password": PASSWORD })).await.ok();
    let signed_in = anonymous.with_token(tokens["access_token"].as_str().unwrap());
    assert_eq!(signed_in.get("/auth/sessions").await.ok().as_array().unwrap().len(), 2);
    node.finish().await;
}

#[tokio::test]
async fn a_first_start_shows_a_running_sample_and_a_later_one_does_not_bring_it_back() {
    let mut node = Node::start_with(&[], &[]).await;
    let url = node.announced["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("http://"), "{url}");
    eventually("the sample app answers", || async {
        let answer = visit(node.port, "sample", "/").await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
    node.cli_json(&["destroy", "--app", "sample", "--yes"]).await;
    assert!(node.stop().await.0.success());
    node.start_again().await;
    assert_eq!(node.cli_json(&["projects"]).await, json!([]));
    node.finish().await;
}

#[tokio::test]
async fn a_second_node_on_the_same_folder_is_refused_and_a_killed_one_is_replaced() {
    let mut node = Node::start().await;
    let second = node.cli(&["dev", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.err.contains(&format!("process {}", node.pid())), "{second:?}");
    node.kill().await;
    node.start_again().await;
    node.finish().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_in_a_sentence() {
    let node = Node::start().await;
    let elsewhere = node.scratch("elsewhere");
    let listen = format!("127.0.0.1:{}", node.port);
    let ran = node.cli_elsewhere(&["dev", "--data", elsewhere.to_str().unwrap(), "--listen", &listen], "").await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains(&listen) && ran.err.contains("hint:"), "{ran:?}");
    node.finish().await;
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_all_that_is_wrong() {
    let node = Node::start().await;
    let file = node.scratch("config").join("callboard.toml");
    std::fs::write(&file, "workers = 5000\nkeep_alive = \"soon\"\nunheard_of = 1\n").unwrap();
    let ran = node.cli_elsewhere(&["config", "--config", file.to_str().unwrap()], "").await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    for part in ["CALLBOARD_WORKERS", "CALLBOARD_KEEP_ALIVE", "unheard_of"] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
    node.finish().await;
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_finishes_its_requests() {
    let node = Node::start().await;
    let app = App::web(&node, "slow", "1");
    app.deploy().await;
    let port = node.port;
    let asked = tokio::spawn(async move { visit(port, "slow", "/slow").await });
    eventually("the app has the request", || async { app.text("/asked").await.contains("slow").then_some(()) }).await;
    node.finish().await;
    assert_eq!(asked.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn health_readiness_and_metrics_answer_without_credentials() {
    let node = Node::start().await;
    let anonymous = node.anonymous();
    for path in ["/health", "/ready", "/metrics", "/docs", "/api/v1/openapi.json"] {
        let answer = anonymous.send(anonymous.raw(Method::GET, path)).await;
        assert!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.text);
    }
    node.finish().await;
}

/// Whether the accounts' database takes new invitations and keys.
async fn set_full(node: &Node, is_full: bool) {
    const TABLES: [&str; 2] = ["invitations", "api_keys"];
    const MESSAGE: &str = "database or disk is full";
    if let Some(ground) = node.shared() {
        let function = format!(
            "CREATE OR REPLACE FUNCTION auth.refuse() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION '{MESSAGE}' USING ERRCODE = '53100'; END $$;"
        );
        let of_table = |table: &str| match is_full {
            true => format!(
                "CREATE TRIGGER full_{table} BEFORE INSERT ON auth.{table} FOR EACH ROW EXECUTE FUNCTION auth.refuse();"
            ),
            false => format!("DROP TRIGGER full_{table} ON auth.{table};"),
        };
        return ground.execute(function + &TABLES.map(of_table).concat()).await;
    }
    let of_table = |table: &str| match is_full {
        true => {
            format!("CREATE TRIGGER full_{table} BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, '{MESSAGE}'); END;")
        }
        false => format!("DROP TRIGGER full_{table};"),
    };
    let path = node.data().join("databases/auth.sqlite");
    let mut database = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(TABLES.map(of_table).concat())).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
}

#[tokio::test]
async fn a_node_that_can_write_nothing_serves_its_apps_and_issues_its_key_later() {
    let mut node = Node::start().await;
    App::web(&node, "shop", "one").deploy().await;
    assert!(node.stop().await.0.success());
    let file = node.data().join("cli.json");
    std::fs::remove_file(&file).unwrap();
    set_full(&node, true).await;

    node.start_again().await;
    assert_eq!(node.announced["setup_url"], Value::Null);
    assert!(!file.exists());
    eventually("it says so", || async { node.log().contains("make room on the disk").then_some(()) }).await;
    eventually("the app answers", || async {
        let answer = visit(node.port, "shop", "/").await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
    set_full(&node, false).await;
    eventually("the key is issued", || async { file.exists().then_some(()) }).await;
    assert_eq!(node.cli_json(&["projects"]).await[0]["name"], "shop");
    node.finish().await;
}
