//! A node that keeps its data in PostgreSQL.

use std::time::{Duration, Instant};

use callboard_supervisors::testing::Pooler;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::harness::{Api, App, Node, cli, domains, eventually, get, proxy::Proxy, servers::Postgres};

/// No operation that reads may take longer.
const DEADLINE: Duration = Duration::from_secs(10);

/// A statement on the server of the tests.
async fn execute(statement: String) {
    let mut server = PgConnection::connect(&callboard_supervisors::testing::postgres_url()).await.unwrap();
    sqlx::query(AssertSqlSafe(statement)).execute(&mut server).await.unwrap();
    server.close().await.unwrap();
}

/// The one text that a query gives.
async fn text(url: &str, query: &str) -> String {
    let mut server = PgConnection::connect(url).await.unwrap();
    let text = sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut server).await.unwrap();
    server.close().await.unwrap();
    text
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

/// A database of its own, on the server of the tests; gone when it is dropped.
pub struct OwnDatabase {
    name: String,
    pub url: String,
}

impl OwnDatabase {
    pub async fn new() -> Self {
        let name = format!("callboard_e2e_{}", uuid::Uuid::now_v7().simple());
        execute(format!("CREATE DATABASE {name}")).await;
        let mut url = url::Url::parse(&callboard_supervisors::testing::postgres_url()).unwrap();
        url.set_path(&name);
        Self { name, url: url.into() }
    }

    /// The schemas in it that a domain could have made.
    async fn schemas(&self) -> String {
        let query = "SELECT coalesce(string_agg(nspname, ',' ORDER BY nspname), '') FROM pg_namespace \
                     WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('public', 'information_schema')";
        text(&self.url, query).await
    }
}

impl Drop for OwnDatabase {
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        // On a thread of its own, because a test that panics drops it outside of everything asynchronous.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(execute(statement));
        });
        if dropped.join().is_err() {
            eprintln!("the database {} was left on PostgreSQL", self.name);
        }
    }
}

#[tokio::test]
async fn a_node_works_behind_a_pooler_in_transaction_mode() {
    let database = OwnDatabase::new().await;
    let pooler = Pooler::before(&database.url, 4);
    let settings = [("CALLBOARD_DATABASE_URL", pooler.url()), ("CALLBOARD_DATABASE_POOLER", "transaction")];
    let mut node = Node::start_with(&["--no-sample"], &settings).await;
    {
        let app = App::web(&node, "shop", "one");
        app.deploy().await;
        assert_eq!(app.version().await, "one");
    }
    node.kill().await;
    node.start_again().await;
    let app = App::new(&node, "shop", &[]);
    app.settle("web", 1).await;
    assert_eq!(app.version().await, "one");
    let operator = node.operator();
    assert_eq!(operator.get("/projects").await.ok()["items"][0]["name"], "shop");
    node.finish().await;
}

#[tokio::test]
async fn a_gateway_without_its_own_database_says_so_and_refuses_nothing_but_idempotency_keys() {
    let (rest, own) = (OwnDatabase::new().await, OwnDatabase::new().await);
    let mut through = url::Url::parse(&own.url).unwrap();
    let proxy = Proxy::before(through.port().unwrap_or(5432)).await;
    through.set_port(Some(proxy.port)).unwrap();
    let settings =
        [("CALLBOARD_DATABASE_URL", rest.url.as_str()), ("CALLBOARD_GATEWAY_DATABASE_URL", through.as_str())];
    let node = Node::start_with(&["--no-sample"], &settings).await;
    let owner = node.user("owner").await;
    let create = async |name: &str, key: &str| {
        let request = owner.request(Method::POST, "/projects").header("Idempotency-Key", key);
        owner.send(request.json(&json!({ "name": name }))).await
    };
    create("first", "one").await.ok();
    shows_the_connections_of(&node, [&rest.url, through.as_str()]).await;

    let said = async || -> Option<(String, String)> {
        let ready: Value = get(format!("http://127.0.0.1:{}/ready", node.port)).await.unwrap().json().await.unwrap();
        let away: Vec<&Value> = ready["domains"].as_array()?.iter().filter(|domain| domain["ready"] == false).collect();
        let [gateway] = away.as_slice() else { return None };
        let text = |name: &str| gateway[name].as_str().unwrap().to_owned();
        (gateway["domain"] == "gateway" && ready["status"] == "impaired").then(|| (text("part"), text("reason")))
    };
    for fault in [Proxy::cut as fn(&Proxy), Proxy::black_hole] {
        fault(&proxy);
        let (part, reason) = eventually("the database of the gateway is missed", &said).await;
        assert_eq!(part, "database");
        assert!(reason.contains("PostgreSQL, which has the data of gateway, can't be reached"), "{reason}");
        let asked = Instant::now();
        assert_eq!(create("second", "two").await.refused(503)["code"], "unavailable");
        assert!(asked.elapsed() < Duration::from_secs(2), "it is known already: {:?}", asked.elapsed());
        let doctor = node.cli(&["doctor"]).await;
        assert!(
            !doctor.success() && doctor.out.contains("lacks a part: PostgreSQL, which has the data of gateway"),
            "{doctor:?}"
        );
        // What needs no key is taken.
        let other = owner.create_project("other").await;
        assert!(owner.delete(&format!("/projects/{other}")).await.status.is_success());
        proxy.heal();
        eventually("everything is there", || async { said().await.is_none().then_some(()) }).await;
    }
    let second = create("second", "two").await.ok();
    assert_eq!(create("second", "two").await.ok(), second, "the key holds");
    node.finish().await;
}

/// Waits until the node shows the connections of the servers that are at these URLs.
async fn shows_the_connections_of(node: &Node, urls: [&str; 2]) {
    let allowed = "SELECT (current_setting('max_connections')::bigint
                           - current_setting('superuser_reserved_connections')::bigint)::text";
    let allowed: f64 = text(urls[0], allowed).await.parse().unwrap();
    for url in urls {
        let url = url::Url::parse(url).unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let series =
            |state: &str| format!("callboard_database_server_connections{{server=\"{server}\",state=\"{state}\"}}");
        let [all, used, may_open] = eventually("the connections of the servers are shown", || async {
            let metrics = get(format!("http://127.0.0.1:{}/metrics", node.port)).await.ok()?.text().await.ok()?;
            let value = |state: &str| -> Option<f64> {
                metrics.lines().find_map(|line| line.strip_prefix(&series(state))?.trim().parse().ok())
            };
            Some([value("allowed")?, value("used")?, value("node_limit")?])
        })
        .await;
        assert_eq!(all, allowed, "{server}");
        assert!(used >= 1.0 && used <= allowed && may_open >= 1.0, "{server}: {used} {may_open}");
    }
}

#[tokio::test]
async fn each_domain_can_have_a_database_of_its_own() {
    let rest = OwnDatabase::new().await;
    let mut settings = vec![("CALLBOARD_DATABASE_URL".to_owned(), rest.url.clone())];
    let mut databases = Vec::new();
    for domain in domains::all() {
        let database = OwnDatabase::new().await;
        settings.push((domain.database_variable.clone(), database.url.clone()));
        databases.push((domain.name.as_str(), database));
    }
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, url)| (name.as_str(), url.as_str())).collect();
    let mut node = Node::start_with(&["--no-sample"], &settings).await;
    App::web(&node, "shop", "one").deploy().await;
    for (domain, database) in &databases {
        assert_eq!(database.schemas().await, *domain);
    }
    let (_, project) = databases.iter().find(|(domain, _)| *domain == "project").unwrap();
    assert_eq!(rest.schemas().await, "", "nothing is left for the database of the rest");
    assert_eq!(text(&project.url, "SELECT string_agg(name, ',') FROM project.projects").await, "shop");

    node.kill().await;
    node.start_again().await;
    let app = App::new(&node, "shop", &[]);
    app.settle("web", 1).await;
    assert_eq!(app.version().await, "one");
    node.finish().await;
}

#[tokio::test]
async fn the_database_of_a_domain_that_does_not_answer_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = format!("postgres://postgres@127.0.0.1:{}/postgres", crate::harness::servers::free_port());
    let rest = callboard_supervisors::testing::postgres_url();
    let settings = [
        ("CALLBOARD_DATABASE_URL", rest.as_str()),
        ("CALLBOARD_DATABASE_SCHEMA_PREFIX", "never_made_"),
        // The first that is migrated, so that nothing is made for the others.
        ("CALLBOARD_ORGANIZATION_DATABASE_URL", &nobody),
    ];
    let mut command = cli::program(folder.path());
    command.args(["dev", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path().join("data")).envs(settings);
    let ran = cli::finish(command, "").await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("CALLBOARD_ORGANIZATION_DATABASE_URL must name"), "{ran:?}");
}

/// The names of somebody's keys, which a replica may tell; it must be told in time.
async fn keys(owner: &Api) -> Vec<String> {
    let asked = Instant::now();
    let keys = owner.get("/auth/api-keys").await.ok();
    assert!(asked.elapsed() < DEADLINE, "a read took {:?}", asked.elapsed());
    let mut names: Vec<String> =
        keys.as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

async fn create_key(owner: &Api, name: &str) {
    owner.post("/auth/api-keys", json!({ "name": name, "scopes": ["project:read"] })).await.ok();
}

/// Waits until the replica has all that the primary has now. It is asked where it is, not for a row: a replica that has
/// just been started lets clients in before it knows the table.
async fn follow(replica: &Postgres, primary: &Postgres) {
    let written = text(&primary.url(), "SELECT pg_current_wal_insert_lsn()::text").await;
    let query = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{written}'::pg_lsn, false)::text");
    eventually("the replica has followed", || async { (text(&replica.url(), &query).await == "true").then_some(()) })
        .await;
}

/// From here on the replica is as old as it is now.
async fn hold(replica: &Postgres) {
    text(&replica.url(), "SELECT pg_wal_replay_pause()::text").await;
    eventually("the replica stands still", || async {
        let state = text(&replica.url(), "SELECT pg_get_wal_replay_pause_state()").await;
        (state == "paused").then_some(())
    })
    .await;
}

#[tokio::test]
async fn reads_are_answered_by_the_replica_and_by_the_primary_when_it_is_gone() {
    let primary = Postgres::start().await;
    let mut replica = primary.replicate().await;
    let (url, read_url) = (primary.url(), replica.url());
    let settings = [("CALLBOARD_DATABASE_URL", url.as_str()), ("CALLBOARD_DATABASE_READ_URL", read_url.as_str())];
    let node = Node::start_with(&["--no-sample"], &settings).await;
    let owner = node.user("owner").await;

    create_key(&owner, "one").await;
    follow(&replica, &primary).await;
    hold(&replica).await;
    create_key(&owner, "two").await;
    let written = "SELECT count(*)::text FROM auth.api_keys WHERE name IN ('one', 'two')";
    assert_eq!(text(&url, written).await, "2", "what writes goes to the primary");
    eventually("the replica answers", || async { (keys(&owner).await == ["one"]).then_some(()) }).await;

    // Silent, with connections that were used a moment ago.
    replica.pause();
    for _ in 0..20 {
        assert_eq!(keys(&owner).await, ["one", "two"], "the primary answers");
    }
    replica.resume();
    eventually("the replica is asked again", || async { (keys(&owner).await == ["one"]).then_some(()) }).await;

    replica.kill();
    for _ in 0..20 {
        assert_eq!(keys(&owner).await, ["one", "two"], "the primary answers");
    }
    create_key(&owner, "three").await;
    replica.start_again().await;
    follow(&replica, &primary).await;
    hold(&replica).await;
    create_key(&owner, "four").await;
    eventually("the replica is asked again", || async {
        (keys(&owner).await == ["one", "three", "two"]).then_some(())
    })
    .await;
    node.finish().await;
}

#[tokio::test]
async fn a_nul_in_one_tenant_s_request_costs_nobody_an_answer() {
    let database = OwnDatabase::new().await;
    let node = Node::start_with(&["--no-sample"], &[("CALLBOARD_DATABASE_URL", &database.url)]).await;
    let (one, other) = (node.user("one").await, node.user("other").await);
    let project = other.create_project("shop").await;
    let key = one.post("/auth/api-keys", json!({ "name": "reader", "scopes": ["project:read"] })).await.ok();
    let reader = one.with_token(key["secret"].as_str().unwrap());
    let own = one.create_project("mine").await;
    for _ in 0..40 {
        assert_eq!(reader.get("/projects?name=%00").await.refused(400)["code"], "invalid");
        for source in
            [json!({ "url": "https://example.com/\0" }), json!({ "url": "https://example.com/a", "reference": "\0" })]
        {
            let deployment = json!({ "source": { "git": source } });
            one.post(&format!("/projects/{own}/deployments"), deployment).await.refused(400);
        }
        one.delete(&format!("/projects/{own}/env/%00")).await.refused(400);
        assert_eq!(other.get("/projects").await.ok()["items"].as_array().unwrap().len(), 1);
        other.get(&format!("/projects/{project}/deployments")).await.ok();
    }
    node.finish().await;
}
