//! The database of a reacting domain.

use callboard_supervisors::db::{DatabaseSettings, Databases};
use sqlx::migrate::Migrator;
use uuid::Uuid;

/// A database of the test's own, removed with it.
pub struct Store {
    pub databases: Databases,
    folder: std::path::PathBuf,
}

impl Store {
    pub async fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("callboard-bridge-{}", Uuid::now_v7().simple()));
        let databases = Databases::new(DatabaseSettings::Sqlite { folder: folder.clone() });
        for domain in ["target", "second"] {
            databases.migrate(domain, &Migrator::with_migrations(Vec::new())).await.unwrap();
        }
        Self { databases, folder }
    }
}

impl Drop for Store {
    #[expect(clippy::disallowed_methods, reason = "the test is over, and nothing waits for its thread")]
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
