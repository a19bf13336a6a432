//! How nodes begin, and when they refuse to.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Api, Node, PASSWORD, cli, domains};

pub(super) async fn nodes_that_start_together_on_an_empty_database_are_one_platform(node: &Node) {
    for number in 0..3 {
        let member = node.member(number);
        member.operator().get("/auth/whoami").await.ok();
        assert!(member.announced["setup_url"].is_string(), "{}", member.announced);
        let ready = Api::new(member.port, None);
        let ready = ready.send(ready.raw(Method::GET, "/ready")).await.ok();
        let told: Vec<&str> =
            ready["domains"].as_array().unwrap().iter().map(|domain| domain["domain"].as_str().unwrap()).collect();
        for domain in domains::all().iter().filter(|domain| !domain.operations.is_empty()) {
            assert!(told.contains(&domain.name.as_str()), "{}: {told:?}", domain.name);
        }
    }
    // One link makes the administrator; the others are worth nothing then.
    let token_of = |number: usize| {
        let link = reqwest::Url::parse(node.member(number).announced["setup_url"].as_str().unwrap()).unwrap();
        link.query_pairs().find(|(name, _)| name == "token").unwrap().1.into_owned()
    };
    let register = async |number: usize, email: &str| {
        let body = json!({ "email": email, "password": PASSWORD, "invitation": token_of(number) });
        Api::new(node.member(number).port, None).post("/auth/register", body).await
    };
    let first = register(1, "first@example.com").await.ok();
    let first = Api::new(node.member(2).port, Some(first["access_token"].as_str().unwrap().to_owned()));
    assert_eq!(first.get("/auth/whoami").await.ok()["account"]["administrator"], true);
    register(2, "second@example.com").await.refused(403);
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_everything_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let run = async |environment: &[(&str, &str)]| {
        let mut command = cli::program(folder.path());
        command.args(arguments).envs(environment.iter().copied());
        cli::finish(command, "").await
    };
    let ran = run(&[]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    for variable in ["DATABASE_URL", "REDIS_URL", "AMQP_URL", "OBJECTS_URL", "CLUSTER_KEY", "MASTER_KEY"] {
        assert!(ran.err.contains(&format!("CALLBOARD_{variable} is not set")), "{variable}: {ran:?}");
    }

    let key = "d3JvbmcgY29uZmlndXJhdGlvbnMgYXJlIHRvbGQuLi4=";
    let objects = folder.path().join("file");
    std::fs::write(&objects, "no folder").unwrap();
    let objects = reqwest::Url::from_file_path(&objects).unwrap().to_string();
    let nobody = crate::harness::servers::free_port();
    let mut amqp = reqwest::Url::parse(&crate::harness::servers::amqp_url()).unwrap();
    amqp.set_password(Some("not the password")).unwrap();
    let ran = run(&[
        ("CALLBOARD_DATABASE_URL", &format!("postgres://postgres@127.0.0.1:{nobody}/postgres")),
        ("CALLBOARD_REDIS_URL", &format!("redis://127.0.0.1:{nobody}")),
        ("CALLBOARD_AMQP_URL", amqp.as_str()),
        ("CALLBOARD_OBJECTS_URL", &objects),
        ("CALLBOARD_CLUSTER_KEY", key),
        ("CALLBOARD_MASTER_KEY", key),
    ])
    .await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    for sentence in [
        "PostgreSQL can't be reached",
        "CALLBOARD_DATABASE_URL",
        "Redis can't be reached",
        "CALLBOARD_REDIS_URL",
        "RabbitMQ refuses this node",
        "CALLBOARD_AMQP_URL",
        &folder.path().join("file").display().to_string(),
    ] {
        assert!(ran.err.contains(sentence), "{sentence}: {ran:?}");
    }
    assert!(!ran.err.contains("not the password") && !ran.err.contains("panicked"), "{ran:?}");

    // Servers that answer, and let nobody in as it is written.
    let mut database = reqwest::Url::parse(&callboard_supervisors::testing::postgres_url()).unwrap();
    database.set_path("nobody_made_this_database");
    let mut redis = reqwest::Url::parse(&crate::harness::ground::redis_url()).unwrap();
    redis.set_password(Some("not the password")).unwrap();
    let mut environment = vec![
        ("CALLBOARD_DATABASE_URL", database.as_str()),
        ("CALLBOARD_DATABASE_READ_URL", database.as_str()),
        ("CALLBOARD_REDIS_URL", redis.as_str()),
        ("CALLBOARD_AMQP_URL", amqp.as_str()),
        ("CALLBOARD_OBJECTS_URL", &objects),
        ("CALLBOARD_CLUSTER_KEY", key),
        ("CALLBOARD_MASTER_KEY", key),
    ];
    let ran = run(&environment).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let said =
        ["PostgreSQL refuses this node", "the replica of PostgreSQL refuses", "READ_URL", "Redis refuses this node"];
    for sentence in said.into_iter().chain(["RabbitMQ refuses this node"]) {
        assert!(ran.err.contains(sentence), "{sentence}: {ran:?}");
    }
    assert!(!ran.err.contains("not the password"), "{ran:?}");

    // A key that is none is told with the rest, before any server is asked.
    environment[6].1 = "no key";
    environment[2].1 = "redis://host/no-number";
    let ran = run(&environment).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("CALLBOARD_MASTER_KEY") && ran.err.contains("CALLBOARD_REDIS_"), "{ran:?}");
}

#[tokio::test]
async fn a_variable_that_is_no_text_is_nobody_else_s_business_unless_it_is_ours() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let no_text = std::ffi::OsStr::from_bytes(b"\xff");
    let show = async |name: &str| {
        let mut command = cli::program(folder.path());
        command.args(["config"]).env(name, no_text);
        cli::finish(command, "").await
    };
    assert!(show("SOMEBODY_ELSES").await.success());
    let ran = show("CALLBOARD_NODE_NAME").await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("CALLBOARD_NODE_NAME is no UTF-8 text"), "{ran:?}");
}

pub(super) async fn a_schema_that_a_newer_version_made_is_refused(node: &Node) {
    let newer = "INSERT INTO project._sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (999912312359, 'of a later version', TRUE, 'x', 1)";
    node.ground().execute(newer.to_owned()).await;
    let data = node.scratch("other");
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let key = node.data().join("master.key");
    let mut environment = node.environment();
    environment.push(("CALLBOARD_MASTER_KEY_FILE", key.to_str().unwrap()));
    let ran = node.cli_with(&arguments, &environment).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("999912312359") && ran.err.contains("newer version"), "{ran:?}");
    let migrated = node.cli_with(&["migrate"], &environment).await;
    assert_eq!(migrated.code, Some(1), "{migrated:?}");
    // The older nodes go on.
    node.operator().get("/projects").await.ok();
}
