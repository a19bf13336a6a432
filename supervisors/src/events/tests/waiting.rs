//! The query for pending events, whatever the backlog.

use chrono::Utc;
use sqlx::migrate::Migrator;
use uuid::Uuid;

use crate::{
    db::{Database, Engine},
    events::outbox::{self, FIRST_OF_EACH},
    testing::on_both_engines,
};

async fn on_both(body: impl AsyncFn(Database)) {
    let none = Migrator::with_migrations(Vec::new());
    on_both_engines(&[("sample", &none)], async |databases| body(databases.open("sample").await.unwrap()).await).await;
}

/// Adds `count` events of one aggregate, and one of each of as many others. Returns the aggregates, in order.
async fn fill(database: &Database, count: i64) -> Vec<Uuid> {
    let busy = Uuid::now_v7();
    let mut others = Vec::new();
    let mut transaction = database.begin().await.unwrap();
    let insert = "INSERT INTO outbox (id, aggregate, position, type, event, created_at)
                  VALUES ($1, $2, $3, 'sample.happened', $4, $5)";
    for number in 0..count {
        let other = Uuid::now_v7();
        for (aggregate, position) in [(busy, number), (other, 1)] {
            let query = transaction.query(insert).bind(Uuid::now_v7()).bind(aggregate).bind(position);
            let event = sqlx::types::Json(event(aggregate));
            query.bind(event).bind(Utc::now()).execute().await.unwrap();
        }
        others.push(other);
    }
    transaction.commit().await.unwrap();
    others.insert(0, busy);
    others
}

fn event(aggregate: Uuid) -> serde_json::Value {
    serde_json::json!({
        "specversion": "1.0", "id": Uuid::now_v7(), "source": "sample", "type": "sample.happened", "subject": aggregate,
        "time": Utc::now(), "datacontenttype": "application/json", "correlationid": Uuid::nil(), "data": {},
    })
}

#[actix_rt::test]
async fn an_aggregate_with_many_events_hides_no_other() {
    on_both(async |database| {
        let aggregates = fill(&database, 200).await;
        let mut found = Vec::new();
        let mut after = Uuid::nil();
        loop {
            let page = outbox::first_of_each(&database, after, 64).await.unwrap();
            let Some(last) = page.last() else { break };
            after = last.aggregate;
            assert!(
                page.len() == 64 || found.len() + page.len() == aggregates.len(),
                "every page but the last is full"
            );
            found.extend(page.iter().map(|row| row.aggregate));
        }
        assert_eq!(found, aggregates);

        // The first of each aggregate, also when those before it are published.
        let busy = aggregates[0];
        let position = async |id: Uuid| -> i64 {
            database.query("SELECT position FROM outbox WHERE id = $1").bind(id).fetch_scalar().await.unwrap()
        };
        for expected in 0..3 {
            let first = outbox::first_of_each(&database, Uuid::nil(), 1).await.unwrap();
            assert_eq!((first.len(), first[0].aggregate, position(first[0].id).await), (1, busy, expected));
            outbox::mark(&database, &[first[0].id], Utc::now()).await.unwrap();
        }
        let only = outbox::first_of_each(&database, *aggregates.last().unwrap(), 64).await.unwrap();
        assert!(only.is_empty());
    })
    .await;
}

/// The engine's plan of the query.
async fn plan(database: &Database) -> String {
    let query = FIRST_OF_EACH.replace("$1", "'00000000-0000-0000-0000-000000000000'").replace("$2", "64");
    let (explain, rows) = match database.engine() {
        Engine::Postgres => (format!("EXPLAIN (COSTS OFF) {query}"), false),
        Engine::Sqlite => (format!("EXPLAIN QUERY PLAN {query}"), true),
    };
    let explain: &'static str = explain.leak();
    if rows {
        let steps: Vec<(i64, i64, i64, String)> = database.query(explain).fetch_all().await.unwrap();
        return steps.into_iter().map(|(.., step)| step + "\n").collect();
    }
    let steps: Vec<(String,)> = database.query(explain).fetch_all().await.unwrap();
    steps.into_iter().map(|(step,)| step + "\n").collect()
}

#[actix_rt::test]
async fn what_waits_is_found_by_its_index_whatever_the_statistics_say() {
    on_both(async |database| {
        fill(&database, 5000).await;
        for has_statistics in [false, true] {
            if has_statistics {
                database.query("ANALYZE outbox").execute().await.unwrap();
            }
            let plan = plan(&database).await;
            let reads_all = plan.lines().find(|step| {
                step.contains("Seq Scan on outbox")
                    || step.contains("Hash")
                    || step.contains("Merge")
                    || step.trim_start().starts_with("SCAN o")
            });
            assert_eq!(reads_all, None, "with statistics: {has_statistics}\n{plan}");
            assert!(plan.contains("outbox_pending_idx"), "{plan}");
        }
    })
    .await;
}
