//! Bringing schemas up to date.

use std::{sync::LazyLock, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    migrate::{MigrateError, Migrator},
};
use tokio::time::timeout;

use super::{DatabaseSettings, Databases, Error, MigrationError, PostgresSettings, pools::Pools};

/// The tables that the runtime itself keeps beside those of each domain: outbox, inbox, leases, sagas, schedules.
static RUNTIME: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("../migrations/runtime");
    migrator.dangerous_set_table_name("_runtime_migrations");
    migrator
});

/// How long the server may take to let a migration begin.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How long migrations may take, the waiting for another node's included.
const MIGRATE_WITHIN: Duration = Duration::from_secs(15 * 60);

impl Databases {
    /// Brings the schema of `domain` up to date, and the runtime's own tables in it. Nodes that start together wait for
    /// one another.
    ///
    /// # Errors
    /// When the database can't be opened, is newer than this program, or a migration fails.
    pub async fn migrate(&self, domain: &str, migrator: &Migrator) -> Result<(), MigrationError> {
        let open = |source: Error| MigrationError::Open { domain: domain.to_owned(), source };
        let both = [&*RUNTIME, migrator];
        let outcome = match self.settings() {
            DatabaseSettings::Sqlite { .. } => {
                let database = self.open(domain).await.map_err(open)?;
                let Pools::Sqlite(pools) = &database.pools else { return Ok(()) };
                apply(both, async |migrator| migrator.run(&pools.writer).await).await
            }
            DatabaseSettings::Postgres(settings) => {
                let mut connection = self.connect(settings, domain).await.map_err(open)?;
                self.create_schema(&mut connection, domain).await.map_err(open)?;
                // sqlx holds a lock of the server while it looks what is to be done and does it.
                let work = apply(both, async |migrator| migrator.run(&mut connection).await);
                let outcome = timeout(MIGRATE_WITHIN, work).await;
                let late = |_| MigrateError::Execute(sqlx::Error::PoolTimedOut);
                let outcome = outcome.map_err(late).and_then(|outcome| outcome);
                let _ = timeout(CONNECT_WITHIN, connection.close()).await;
                outcome
            }
        };
        outcome.map_err(|error| match error {
            MigrateError::VersionMissing(version) => MigrationError::TooNew { domain: domain.to_owned(), version },
            source => MigrationError::Failed { domain: domain.to_owned(), source },
        })
    }

    /// Looks once whether the server of `domain` lets this node in. A folder is not looked at.
    ///
    /// # Errors
    /// When it can't be reached, or refuses.
    pub async fn check(&self, domain: &str) -> Result<(), Error> {
        let DatabaseSettings::Postgres(settings) = self.settings() else { return Ok(()) };
        let connection = self.connect(settings, domain).await?;
        let _ = timeout(CONNECT_WITHIN, connection.close()).await;
        Ok(())
    }

    /// A connection without the limits of requests: a migration, and the waiting for another node's, may take long.
    async fn connect(&self, settings: &PostgresSettings, domain: &str) -> Result<PgConnection, Error> {
        let options = self.postgres_options(settings.url_of(domain))?.options([
            ("statement_timeout", "0".to_owned()),
            ("lock_timeout", "0".to_owned()),
            ("search_path", self.schema(domain)),
        ]);
        let connected = timeout(CONNECT_WITHIN, options.connect()).await;
        Ok(connected.map_err(|_| sqlx::Error::PoolTimedOut)??)
    }

    async fn create_schema(&self, connection: &mut PgConnection, domain: &str) -> Result<(), Error> {
        let statement = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(&self.schema(domain)));
        match sqlx::query(sqlx::AssertSqlSafe(statement)).execute(connection).await {
            // Two nodes that start together: IF NOT EXISTS looks before it writes, and the other was faster.
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Removes the schema of `domain` with all that is in it. For tests.
    ///
    /// # Errors
    /// When the server can't be reached.
    pub(crate) async fn drop_schema(&self, domain: &str) -> Result<(), Error> {
        let DatabaseSettings::Postgres(settings) = self.settings() else { return Ok(()) };
        let mut connection = self.connect(settings, domain).await?;
        let statement = format!("DROP SCHEMA IF EXISTS {} CASCADE", quoted(&self.schema(domain)));
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }
}

async fn apply(
    migrators: [&Migrator; 2],
    mut run: impl AsyncFnMut(&Migrator) -> Result<(), MigrateError>,
) -> Result<(), MigrateError> {
    for migrator in migrators {
        run(migrator).await?;
    }
    Ok(())
}

fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
