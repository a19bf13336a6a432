//! What the nodes of one test share: a database, names in Redis and RabbitMQ, and a folder of objects, all their own on
//! the servers of the tests, and gone afterwards.

use std::path::Path;

use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::{
    domains::{self, Domain},
    servers::amqp_url,
};

/// What the nodes sign with: at least 32 characters.
const KEY: &str = "dGVzdHMgdGVzdHMgdGVzdHMgdGVzdHMgdGVzdHM5OTk=";

/// The Redis that tests share, each with keys of its own.
pub fn redis_url() -> String {
    std::env::var("CALLBOARD_TEST_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned())
}

/// A name that no other test has, in every server.
pub struct Ground {
    name: String,
}

impl Ground {
    pub async fn new() -> Self {
        let name = format!("callboard_e2e_{}", uuid::Uuid::now_v7().simple());
        execute(format!("CREATE DATABASE {name}")).await;
        Self { name }
    }

    /// What each node is told; the first of them listens on this port.
    pub fn environment(&self, folder: &Path, port: u16) -> Vec<(String, String)> {
        let mut database = url::Url::parse(&callboard_supervisors::testing::postgres_url()).unwrap();
        database.set_path(&self.name);
        let objects = url::Url::from_directory_path(folder.join("objects")).unwrap();
        [
            ("CALLBOARD_DATABASE_URL", database.to_string()),
            // The server lets a hundred connections in, and other tests need some.
            ("CALLBOARD_DATABASE_CONNECTIONS", "2".to_owned()),
            ("CALLBOARD_WORKERS", "1".to_owned()),
            ("CALLBOARD_REDIS_URL", redis_url()),
            ("CALLBOARD_REDIS_PREFIX", self.name.clone()),
            ("CALLBOARD_AMQP_URL", amqp_url()),
            ("CALLBOARD_AMQP_PREFIX", self.name.clone()),
            ("CALLBOARD_OBJECTS_URL", objects.to_string()),
            ("CALLBOARD_CLUSTER_KEY", KEY.to_owned()),
            ("CALLBOARD_PUBLIC_URL", format!("http://localhost:{port}")),
            ("CALLBOARD_LOG_FORMAT", "pretty".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Before the names of its queues and exchanges, and of its keys.
    pub fn prefix(&self) -> &str {
        &self.name
    }

    async fn connect(&self) -> PgConnection {
        let mut url = url::Url::parse(&callboard_supervisors::testing::postgres_url()).unwrap();
        url.set_path(&self.name);
        PgConnection::connect(url.as_str()).await.unwrap()
    }

    /// The one number that a query of its database gives.
    pub async fn count(&self, query: &'static str) -> i64 {
        let mut database = self.connect().await;
        let (count,): (i64,) = sqlx::query_as(query).fetch_one(&mut database).await.unwrap();
        database.close().await.unwrap();
        count
    }

    /// Runs a statement in its database.
    pub async fn execute(&self, statement: String) {
        let mut database = self.connect().await;
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut database).await.unwrap();
        database.close().await.unwrap();
    }

    /// Removes all of it. The nodes, by their ids, have ended. On a thread of its own, because a test that panics drops
    /// it outside of everything asynchronous.
    pub fn remove(self, nodes: Vec<String>) {
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let name = &self.name;
                execute(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
                remove_keys(name).await;
                remove_queues(name, &nodes).await;
            });
        });
        if removed.join().is_err() {
            eprintln!("something of a test was left on PostgreSQL, Redis or RabbitMQ");
        }
    }
}

async fn execute(statement: String) {
    let mut server = PgConnection::connect(&callboard_supervisors::testing::postgres_url()).await.unwrap();
    sqlx::query(AssertSqlSafe(statement)).execute(&mut server).await.unwrap();
    server.close().await.unwrap();
}

async fn remove_keys(prefix: &str) {
    let client = redis::Client::open(redis_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(1000);
        let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await.unwrap();
        if !keys.is_empty() {
            redis::cmd("DEL").arg(keys).exec_async(&mut connection).await.unwrap();
        }
        if next == 0 {
            return;
        }
        cursor = next;
    }
}

async fn remove_queues(prefix: &str, nodes: &[String]) {
    let connection = Connection::connect(&amqp_url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let of_domains = domains::all()
        .iter()
        .flat_map(|Domain { name, .. }| [format!("{prefix}.operations.{name}"), format!("{prefix}.events.{name}")]);
    let of_nodes = nodes.iter().flat_map(|node| ["node", "replies", "live"].map(|of| format!("{prefix}.{of}.{node}")));
    for queue in of_domains.chain(of_nodes).chain([format!("{prefix}.dead")]) {
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    }
    for exchange in ["operations", "live", "events", "dead"] {
        let exchange = format!("{prefix}.{exchange}");
        channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    }
    connection.close(200, "".into()).await.unwrap();
}
