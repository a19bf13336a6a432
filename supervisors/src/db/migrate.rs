//! Migrations of schemas.

use std::{sync::LazyLock, time::Duration};

use futures_util::future::LocalBoxFuture;
use sqlx::{
    ConnectOptions, Connection, PgConnection,
    migrate::{Migrate, MigrateError, Migrator},
};
use tokio::time::{Instant, interval_at, timeout};

use super::{DatabaseSettings, Databases, Error, MigrationError, PostgresSettings, names::quoted, pools::Pools};

/// The tables that the runtime itself keeps beside those of each domain: outbox, inbox, leases, sagas, schedules.
static RUNTIME: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("../migrations/runtime");
    migrator.dangerous_set_table_name(OF_RUNTIME);
    migrator
});

/// Tables that record the applied migrations of the runtime and of a domain.
const OF_RUNTIME: &str = "_runtime_migrations";
const OF_DOMAIN: &str = "_sqlx_migrations";

/// Time limit of a connection for migrations.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Time limit of migrations, including the wait for another node's.
const MIGRATE_WITHIN: Duration = Duration::from_secs(15 * 60);

/// Interval of the log line while they run.
const SAID_EVERY: Duration = Duration::from_secs(10);

impl Databases {
    /// Brings the schema of `domain` up to date, and the runtime's own tables in it. Nodes that start together wait for
    /// one another.
    ///
    /// # Errors
    /// When the database can't be opened, is newer than this program, or a migration fails.
    pub fn migrate<'a>(
        &'a self,
        domain: &'a str,
        migrator: &'a Migrator,
    ) -> LocalBoxFuture<'a, Result<(), MigrationError>> {
        Box::pin(self.migrate_now(domain, migrator))
    }

    async fn migrate_now(&self, domain: &str, migrator: &Migrator) -> Result<(), MigrationError> {
        let open = |source: Error| MigrationError::Open { domain: domain.to_owned(), source };
        let both = [(&*RUNTIME, OF_RUNTIME), (migrator, OF_DOMAIN)];
        let outcome = match self.settings() {
            DatabaseSettings::Sqlite { .. } => {
                let database = self.open(domain).await.map_err(open)?;
                let Pools::Sqlite(pools) = &database.opened().pools else { return Ok(()) };
                apply(both, async |(migrator, _)| migrator.run(&pools.writer).await).await
            }
            DatabaseSettings::Postgres(settings) => {
                let mut connection = self.connect(settings.url_of(domain), domain).await.map_err(open)?;
                self.create_schema(&mut connection, domain).await.map_err(open)?;
                let work = async {
                    if settings.is_pooled {
                        return through_pooler(&mut connection, &self.schema(domain), both).await;
                    }
                    apply(both, async |(migrator, table)| {
                        if is_applied(&mut connection, migrator, table).await {
                            return Ok(());
                        }
                        // sqlx holds a lock of the server while it compares and migrates.
                        migrator.run(&mut connection).await
                    })
                    .await
                };
                let outcome = timeout(MIGRATE_WITHIN, logging_progress(domain, work)).await;
                let _ = timeout(CONNECT_WITHIN, connection.close()).await;
                outcome.map_err(|_| MigrationError::Late { domain: domain.to_owned() })?
            }
        };
        outcome.map_err(|error| match error {
            MigrateError::VersionMissing(version) => MigrationError::TooNew { domain: domain.to_owned(), version },
            source => MigrationError::Failed { domain: domain.to_owned(), source },
        })
    }

    /// Checks once whether the server of `domain` admits this node. A folder is not checked.
    ///
    /// # Errors
    /// When it can't be reached, or refuses.
    pub async fn check(&self, domain: &str) -> Result<(), Error> {
        let DatabaseSettings::Postgres(settings) = self.settings() else { return Ok(()) };
        let connection = self.connect(settings.url_of(domain), domain).await?;
        let _ = timeout(CONNECT_WITHIN, connection.close()).await;
        Ok(())
    }

    /// Checks once whether the replica admits this node, if there is one.
    ///
    /// # Errors
    /// When it can't be reached, or refuses.
    pub async fn check_replica(&self) -> Result<(), Error> {
        let DatabaseSettings::Postgres(PostgresSettings { read_url: Some(url), .. }) = self.settings() else {
            return Ok(());
        };
        let connection = self.connect(url, "").await?;
        let _ = timeout(CONNECT_WITHIN, connection.close()).await;
        Ok(())
    }

    /// A connection without the limits of requests, because a migration, and the wait for another node's, may take
    /// long. Keepalives let the server notice that the node's machine is gone, and release its lock.
    async fn connect(&self, url: &str, domain: &str) -> Result<PgConnection, Error> {
        let options = self.postgres_options(url)?;
        let options = match self.settings() {
            DatabaseSettings::Postgres(settings) if settings.is_pooled => options.statement_cache_capacity(0),
            _ => options.options([
                ("statement_timeout", "0".to_owned()),
                ("lock_timeout", "0".to_owned()),
                ("tcp_keepalives_idle", "10".to_owned()),
                ("tcp_keepalives_interval", "5".to_owned()),
                ("tcp_keepalives_count", "3".to_owned()),
                ("search_path", self.schema(domain)),
            ]),
        };
        let connected = timeout(CONNECT_WITHIN, options.connect()).await;
        Ok(connected.map_err(|_| sqlx::Error::PoolTimedOut)??)
    }

    async fn create_schema(&self, connection: &mut PgConnection, domain: &str) -> Result<(), Error> {
        let statement = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(&self.schema(domain)));
        let created = timeout(CONNECT_WITHIN, sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(connection)).await;
        match created.map_err(|_| sqlx::Error::PoolTimedOut).flatten() {
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
        let mut connection = self.connect(settings.url_of(domain), domain).await?;
        let statement = format!("DROP SCHEMA IF EXISTS {} CASCADE", quoted(&self.schema(domain)));
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }
}

async fn apply<'m>(
    migrators: [(&'m Migrator, &'static str); 2],
    mut run: impl AsyncFnMut((&'m Migrator, &'static str)) -> Result<(), MigrateError>,
) -> Result<(), MigrateError> {
    for migrator in migrators {
        run(migrator).await?;
    }
    Ok(())
}

/// Migrates through a pooler, which keeps no session: all in one transaction, which holds the lock. sqlx leaves
/// prepared statements on a connection that others get next, so they are deallocated before and after.
async fn through_pooler(
    connection: &mut PgConnection,
    schema: &str,
    migrators: [(&Migrator, &'static str); 2],
) -> Result<(), MigrateError> {
    let within = format!(
        "DEALLOCATE ALL; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SET LOCAL search_path = {}",
        quoted(schema)
    );
    let within = || sqlx::raw_sql(sqlx::AssertSqlSafe(within.clone()));
    let mut are_applied = true;
    for (migrator, table) in migrators {
        let mut look = connection.begin().await?;
        within().execute(&mut *look).await?;
        are_applied &= is_applied(&mut look, migrator, table).await;
        look.rollback().await?;
    }
    if are_applied {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    within().execute(&mut *transaction).await?;
    let lock = "SELECT pg_advisory_xact_lock(hashtext('callboard migrations'), hashtext(current_schemas(false)::text))";
    sqlx::raw_sql(lock).execute(&mut *transaction).await?;
    for (migrator, _) in migrators {
        let mut migrator = Migrator {
            migrations: migrator.migrations.clone(),
            table_name: migrator.table_name.clone(),
            ..Migrator::DEFAULT
        };
        migrator.set_locking(false).run(&mut *transaction).await?;
    }
    sqlx::raw_sql("DEALLOCATE ALL").execute(&mut *transaction).await?;
    Ok(transaction.commit().await?)
}

/// Whether exactly these migrations are applied. Takes no lock, so that a node with nothing to migrate starts also
/// while another, which froze during a migration, holds it. An error of the look-up shows again in the migration.
async fn is_applied(connection: &mut PgConnection, migrator: &Migrator, table: &str) -> bool {
    let Ok(None) = connection.dirty_version(table).await else { return false };
    let Ok(applied) = connection.list_applied_migrations(table).await else { return false };
    applied.len() == migrator.iter().count()
        && migrator
            .iter()
            .zip(&applied)
            .all(|(known, applied)| known.version == applied.version && known.checksum == applied.checksum)
}

/// Runs `work`, and logs at intervals that it takes long.
async fn logging_progress<T>(domain: &str, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let mut say = interval_at(began + SAID_EVERY, SAID_EVERY);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = say.tick() => tracing::info!(
                domain,
                seconds = began.elapsed().as_secs(),
                "migrating a schema, or waiting for another node to do it"
            ),
        }
    }
}
