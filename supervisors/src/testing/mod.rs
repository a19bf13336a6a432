//! Fixtures of every domain's tests: both engines, real, with nothing left behind.

#[expect(clippy::disallowed_methods, reason = "the thread of a test has nobody else to answer")]
mod pooler;

mod node;

pub use node::{TestNode, member, refusal};
pub use pooler::Pooler;

use std::{any::Any, fmt::Write as _, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use parking_lot::Mutex;
use sqlx::migrate::Migrator;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use uuid::Uuid;

use crate::db::{DatabaseSettings, Databases, PostgresSettings};

/// The PostgreSQL server of the tests: `CALLBOARD_TEST_POSTGRES_URL`, or the local one.
#[must_use]
pub fn postgres_url() -> String {
    std::env::var("CALLBOARD_TEST_POSTGRES_URL")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".to_owned())
}

/// Default of connections of one thread, of which a domain may have half.
const CONNECTIONS: u32 = 8;

/// Runs `body` on SQLite in a folder of its own, then on PostgreSQL with schemas of its own, each migrated by
/// `migrators` (domain and migrations) and removed afterwards, also when `body` panics.
///
/// # Panics
/// When a database can't be created, or `body` panics.
pub async fn on_both_engines(migrators: &[(&str, &Migrator)], body: impl AsyncFn(Databases)) {
    on_sqlite(migrators, &body).await;
    on_postgres(CONNECTIONS, migrators, &body).await;
}

/// The same where connections are scarce: on SQLite, which has one writer, and on PostgreSQL with one connection for
/// each thread, with two, of which a domain may have one, and with three, of which it may have two.
///
/// # Panics
/// When a database can't be created, or `body` panics.
pub async fn on_scarce_connections(migrators: &[(&str, &Migrator)], body: impl AsyncFn(Databases)) {
    on_sqlite(migrators, &body).await;
    for connections in [1, 2, 3] {
        on_postgres(connections, migrators, &body).await;
    }
}

async fn on_sqlite(migrators: &[(&str, &Migrator)], body: &impl AsyncFn(Databases)) {
    let folder = std::env::temp_dir().join(format!("callboard-test-{}", Uuid::now_v7().simple()));
    let sqlite = Databases::new(DatabaseSettings::Sqlite { folder: folder.clone() });
    let outcome = run(&sqlite, migrators, body).await;
    sqlite.close().await;
    if let Err(error) = tokio::fs::remove_dir_all(&folder).await {
        eprintln!("the folder {} is left behind: {error}", folder.display());
    }
    resume("SQLite", outcome);
}

async fn on_postgres(connections: u32, migrators: &[(&str, &Migrator)], body: &impl AsyncFn(Databases)) {
    let settings = PostgresSettings {
        schema_prefix: format!("test_{}_", Uuid::now_v7().simple()),
        connections,
        ..PostgresSettings::new(postgres_url())
    };
    let postgres = Databases::new(DatabaseSettings::Postgres(settings));
    let outcome = run(&postgres, migrators, body).await;
    postgres.close().await;
    for (domain, _) in migrators {
        if let Err(error) = postgres.drop_schema(domain).await {
            eprintln!("a schema of {domain} is left behind: {error}");
        }
    }
    resume(&format!("PostgreSQL with {connections} connections"), outcome);
}

type Panic = Box<dyn Any + Send>;

async fn run(
    databases: &Databases,
    migrators: &[(&str, &Migrator)],
    body: &impl AsyncFn(Databases),
) -> Result<(), Panic> {
    for (domain, migrator) in migrators {
        if let Err(error) = databases.migrate(domain, migrator).await {
            return Err(Box::new(error.to_string()));
        }
    }
    AssertUnwindSafe(body(databases.clone())).catch_unwind().await
}

fn resume(engine: &str, outcome: Result<(), Panic>) {
    if let Err(panic) = outcome {
        eprintln!("the panic above, or this, is from the run on {engine}");
        if let Some(error) = panic.downcast_ref::<String>() {
            eprintln!("{error}");
        }
        std::panic::resume_unwind(panic);
    }
}

/// Collects warnings and errors of the process, a line for each event.
#[derive(Clone, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Collects from now on, of all threads.
    ///
    /// # Panics
    /// When another collector is set: a test that collects is alone in its process.
    #[must_use]
    pub fn collect() -> Self {
        let warnings = Self::default();
        let set = tracing::subscriber::set_global_default(warnings.clone());
        assert!(set.is_ok(), "the log of this process goes elsewhere");
        warnings
    }

    /// The lines so far that contain this text.
    #[must_use]
    pub fn with(&self, text: &str) -> Vec<String> {
        self.0.lock().iter().filter(|line| line.contains(text)).cloned().collect()
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().push(line.0);
    }

    // No span is enabled.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string can't fail.
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}
