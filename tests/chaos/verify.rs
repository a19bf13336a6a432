//! What must hold when all is well again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, PgPool, Row, postgres::PgPoolOptions};
use uuid::Uuid;

use super::{
    cluster::{Cluster, METRICS_TOKEN},
    leavers,
    load::Done,
};
use crate::harness::{
    answered_within,
    domains::{self, Domain},
    http, visit, within,
};

/// How long a cluster may take to settle once nothing breaks any more.
const SETTLE: Duration = Duration::from_secs(60);

/// What a cluster at rest has of what could leak.
pub struct Inventory {
    queues: usize,
    broker_connections: usize,
    database_connections: i64,
}

/// What three nodes use: three queues of each of them, one of each domain that answers and of each that reacts, and the
/// dead letters. Nodes that start slowly stand still on the way there, so standing still alone says nothing.
fn expected_queues() -> usize {
    let answer = domains::all().iter().filter(|domain| !domain.operations.is_empty()).count();
    let react = domains::all().iter().filter(|domain| !domain.reacts_to.is_empty()).count();
    3 * 3 + answer + react + 1
}

impl Inventory {
    /// Once it stands still: a node is ready before the last of its consumers has begun.
    pub async fn of(cluster: &Cluster) -> Self {
        let pool = connect(cluster).await;
        let connections = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
        let deadline = Instant::now() + SETTLE;
        let mut seen = Vec::new();
        loop {
            let queues = cluster.rabbitmq.queues().await.iter().filter(|queue| queue.consumers > 0).count();
            seen.push((queues, cluster.amqp.connections()));
            if let [.., first, second, third] = seen[..]
                && third.0 == expected_queues()
                && first == second
                && second == third
            {
                let (queues, broker_connections) = third;
                return Self { queues, broker_connections, database_connections: count(&pool, connections).await };
            }
            assert!(Instant::now() < deadline, "queues and connections come and go: {seen:?}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Everything.
pub async fn all(cluster: &Cluster, done: &Done, before: &Inventory) {
    assert!(done.wrong.is_empty(), "{} answers were wrong:\n{}", done.wrong.len(), done.wrong.join("\n"));
    let pool = connect(cluster).await;
    settled(&pool).await;
    acknowledged(&pool, done).await;
    signed_in(cluster, done).await;
    applied(&pool).await;
    served(cluster, &pool, done).await;
    run_as_asked(cluster, &pool).await;
    leavers::left(cluster).await;
    nothing_leaks(cluster, &pool, before).await;
}

async fn connect(cluster: &Cluster) -> PgPool {
    PgPoolOptions::new().max_connections(2).connect(&cluster.postgres.url()).await.unwrap()
}

async fn count(pool: &PgPool, query: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(pool).await.unwrap()
}

/// Waits until a query counts nothing.
async fn none(pool: &PgPool, what: &str, query: &str) {
    within(SETTLE, what, || async { (count(pool, query).await == 0).then_some(()) }).await;
}

/// No event waits, no saga and no deployment is under way, and nothing was given up.
async fn settled(pool: &PgPool) {
    for Domain { name: domain, .. } in domains::all() {
        let waiting = format!("SELECT count(*) FROM {domain}.outbox WHERE published_at IS NULL");
        none(pool, &format!("the outbox of {domain} is empty"), &waiting).await;
        let open = format!("SELECT count(*) FROM {domain}.sagas WHERE status IN ('running', 'undoing')");
        none(pool, &format!("no saga of {domain} is under way"), &open).await;
        let stuck = format!("SELECT count(*) FROM {domain}.sagas WHERE status = 'stuck'");
        assert_eq!(count(pool, &stuck).await, 0, "sagas of {domain} are stuck");
    }
    let running = "SELECT count(*) FROM deploy.deployments WHERE status NOT IN ('completed', 'failed', 'cancelled')";
    none(pool, "no deployment is under way", running).await;
    assert_eq!(count(pool, "SELECT count(*) FROM cluster.dead_letters").await, 0, "events were given up");
}

/// Each effect is there once.
async fn acknowledged(pool: &PgPool, done: &Done) {
    let rows = sqlx::query("SELECT name, id FROM project.projects").fetch_all(pool).await.unwrap();
    let mut projects: BTreeMap<String, Vec<Uuid>> = BTreeMap::new();
    for row in rows {
        projects.entry(row.get("name")).or_default().push(row.get("id"));
    }
    for (name, id) in &done.projects {
        assert_eq!(projects.get(name), Some(&vec![*id]), "project {name}");
    }
    let asked: BTreeSet<&String> = done.asked.iter().collect();
    for (name, ids) in &projects {
        assert!(asked.contains(name) && ids.len() == 1, "project {name} is there {} times", ids.len());
        assert!(!ids.iter().any(|id| done.deleted.contains(id)), "project {name} was deleted");
    }
    // The last step of a project's saga, and what its deletion takes away again.
    let apps: Vec<Uuid> = sqlx::query_scalar("SELECT project_id FROM deploy.apps").fetch_all(pool).await.unwrap();
    for (name, id) in &done.projects {
        assert!(apps.contains(id), "project {name} has no place to deploy to");
    }
    let of_nobody = "SELECT count(*) FROM deploy.apps AS app
                     WHERE NOT EXISTS (SELECT 1 FROM project.projects WHERE id = app.project_id)";
    none(pool, "every app has its project", of_nobody).await;
    for id in &done.deleted {
        let gone = format!("SELECT count(*) FROM deploy.apps WHERE project_id = '{id}'");
        none(pool, &format!("the app of the deleted project {id} is gone"), &gone).await;
    }
    let rows = sqlx::query("SELECT id, source::text AS source FROM deploy.deployments").fetch_all(pool).await.unwrap();
    let made: Vec<(Uuid, String)> = rows.iter().map(|row| (row.get("id"), row.get("source"))).collect();
    for (deployment, source, _) in &done.deployments {
        let of_it: Vec<Uuid> =
            made.iter().filter(|(_, of)| of.contains(&source.to_string())).map(|(id, _)| *id).collect();
        assert_eq!(of_it, [*deployment], "deployments of source {source}");
    }
    for email in &done.accounts {
        let accounts = format!("SELECT count(*) FROM auth.accounts WHERE email = '{email}'");
        assert_eq!(count(pool, &accounts).await, 1, "{email}");
        let personal = format!(
            "SELECT 1 - count(*) FROM organization.organizations
             WHERE personal_of = (SELECT id FROM auth.accounts WHERE email = '{email}')"
        );
        none(pool, &format!("{email} has an organization"), &personal).await;
    }
}

/// A session that somebody was given is one on every node.
async fn signed_in(cluster: &Cluster, done: &Done) {
    let client = http().build().unwrap();
    for (number, token) in done.tokens.iter().enumerate() {
        let port = cluster.nodes[number % cluster.nodes.len()].port;
        let what = format!("sign-in {number} of {} is known on port {port}", done.tokens.len());
        // A breaker may still be open for a while.
        answered_within(SETTLE, &what, || async {
            let request = client.get(format!("http://127.0.0.1:{port}/api/v1/auth/whoami")).bearer_auth(token);
            let status = request.send().await.map_err(|error| error.to_string())?.status();
            if status.is_success() { Ok(Some(())) } else { Err(status.to_string()) }
        })
        .await;
    }
}

/// Each event was applied once by each domain that reacts to it: the inbox knows none twice, so it must know all.
async fn applied(pool: &PgPool) {
    let outboxes = domains::all().iter().map(|of| format!("SELECT id, type FROM {}.outbox", of.name));
    let told = outboxes.collect::<Vec<_>>().join(" UNION ALL ");
    let reactions = domains::all().iter().flat_map(|domain| domain.reacts_to.iter().map(move |event| (domain, event)));
    for (Domain { name: domain, .. }, event) in reactions {
        let missing = format!(
            "SELECT count(*) FROM ({told}) AS told
             WHERE type = '{event}' AND NOT EXISTS (SELECT 1 FROM {domain}.inbox WHERE event_id = told.id)"
        );
        none(pool, &format!("{domain} has applied every {event}"), &missing).await;
        let told = format!("SELECT count(*) FROM ({told}) AS told WHERE type = '{event}'");
        let applied = format!("SELECT count(*) FROM {domain}.inbox WHERE type = '{event}'");
        assert_eq!(count(pool, &applied).await, count(pool, &told).await, "{event} at {domain}");
    }
}

/// The app answers on every node with the newest release that was completed.
async fn served(cluster: &Cluster, pool: &PgPool, done: &Done) {
    let Some((name, _)) = done.projects.iter().find(|(name, _)| name.ends_with("-app")) else { return };
    let completed = sqlx::query_scalar("SELECT id FROM deploy.deployments WHERE status = 'completed'");
    let completed: Vec<Uuid> = completed.fetch_all(pool).await.unwrap();
    let newest = done.deployments.iter().rev().find(|(id, ..)| completed.contains(id));
    let Some((_, _, newest)) = newest else { return };
    for node in &cluster.nodes {
        within(SETTLE, &format!("{name} answers on port {} with {newest}", node.port), || async {
            let answer = visit(node.port, name, "/").await.ok()?;
            if !answer.status().is_success() {
                return None;
            }
            (answer.text().await.ok()? == *newest).then_some(())
        })
        .await;
    }
}

/// Over all nodes, as many instances of each app take requests as it shall have.
async fn run_as_asked(cluster: &Cluster, pool: &PgPool) {
    let wanted = "SELECT name, COALESCE((formation ->> 'web')::bigint, 0) AS count FROM deploy.apps
                  WHERE state = 'running' AND release_id IS NOT NULL";
    answered_within(SETTLE, "each app has the instances that it shall have", || async {
        let rows = sqlx::query(wanted).fetch_all(pool).await.map_err(|error| error.to_string())?;
        let wanted: BTreeMap<String, i64> = rows.iter().map(|row| (row.get("name"), row.get("count"))).collect();
        let mut running: BTreeMap<String, i64> = wanted.keys().map(|name| (name.clone(), 0)).collect();
        for node in &cluster.nodes {
            for (app, count) in backends(&metrics(node.port).await?) {
                *running.entry(app).or_default() += count;
            }
        }
        running.retain(|app, count| *count > 0 || wanted.contains_key(app));
        if running == wanted { Ok(Some(())) } else { Err(format!("{running:?}, and not {wanted:?}")) }
    })
    .await;
}

/// The metrics of a node.
async fn metrics(port: u16) -> Result<String, String> {
    let client = http().build().unwrap();
    let request = client.get(format!("http://127.0.0.1:{port}/metrics")).bearer_auth(METRICS_TOKEN);
    let told = async { request.send().await?.error_for_status()?.text().await };
    told.await.map_err(|error| error.to_string())
}

/// How many instances of each app take requests on a node.
fn backends(metrics: &str) -> Vec<(String, i64)> {
    let told = |line: &str| {
        let (app, count) = line.strip_prefix("callboard_router_backends{app=\"")?.split_once("\"} ")?;
        Some((app.to_owned(), count.parse().ok()?))
    };
    metrics.lines().filter_map(told).collect()
}

/// Nothing is held by nobody.
async fn nothing_leaks(cluster: &Cluster, pool: &PgPool, before: &Inventory) {
    let idle = "SELECT count(*) FROM pg_stat_activity
                WHERE state LIKE 'idle in transaction%' AND state_change < now() - interval '5 seconds'";
    none(pool, "no transaction was left open", idle).await;
    // A pool grows with the load, up to its bound; a leak has none.
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
    let most = before.database_connections.max(60) * 2;
    assert!(count(pool, connections).await <= most, "more than {most} connections to PostgreSQL");

    within(SETTLE, "every node has its connections to the broker and no more", || async {
        (cluster.amqp.connections() == before.broker_connections).then_some(())
    })
    .await;
    let deadline = Instant::now() + SETTLE;
    loop {
        // What a node that died had to itself goes away when nobody has used it for a while.
        let queues = cluster.rabbitmq.queues().await;
        let (used, left): (Vec<_>, Vec<_>) = queues.iter().partition(|queue| queue.consumers > 0);
        let settled = used.len() == before.queues
            && used.iter().all(|queue| queue.messages == 0)
            && left.iter().all(|queue| queue.expires);
        if settled {
            break;
        }
        let found: Vec<_> = queues.iter().map(|queue| (&queue.name, queue.messages, queue.consumers)).collect();
        assert!(Instant::now() < deadline, "{} queues, all of them empty, and not {found:#?}", before.queues);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    for node in &cluster.nodes {
        answered_within(SETTLE, &format!("nothing is held at port {}", node.port), || async {
            let text = metrics(node.port).await?;
            let held = held(&text);
            if held.is_empty() { Ok(Some(())) } else { Err(format!("{held:#?}")) }
        })
        .await;
    }
}

/// The gauges of calls in flight, in queues, and of connections in use that are not zero.
fn held(metrics: &str) -> Vec<&str> {
    let is_held = |line: &&str| {
        let gauges = ["callboard_shard_in_flight{", "callboard_shard_queue_depth{"];
        let counts = gauges.iter().any(|gauge| line.starts_with(gauge))
            || (line.starts_with("callboard_database_connections{") && line.contains("state=\"in_use\""));
        counts && !line.ends_with(" 0")
    };
    metrics.lines().filter(is_held).collect()
}
