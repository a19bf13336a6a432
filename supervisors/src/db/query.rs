//! One statement with its values.

use futures_util::TryFutureExt;
use sqlx::{
    Arguments, Encode, FromRow, PgConnection, Postgres, Sqlite, SqliteConnection, Type,
    postgres::{PgArguments, PgRow},
    sqlite::{SqliteArguments, SqliteRow},
};
use tracing::{Instrument, Span, field};

use super::{
    Error, file,
    pool::{Pool, is_broken},
    pools::Pools,
    transaction::{Connection, Transaction},
};
use crate::{
    breaker::{Breaker, Verdict},
    trace,
};

/// What both engines can store.
pub trait Bind:
    for<'q> Encode<'q, Postgres> + Type<Postgres> + for<'q> Encode<'q, Sqlite> + Type<Sqlite> + Send
{
}

impl<T> Bind for T where
    T: for<'q> Encode<'q, Postgres> + Type<Postgres> + for<'q> Encode<'q, Sqlite> + Type<Sqlite> + Send
{
}

/// What both engines can be read into: derive `sqlx::FromRow`, or use a tuple.
pub trait Row: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}

impl<T> Row for T where T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}

enum Target<'c> {
    Pools(&'c Pools),
    /// The replica, if there is one; for reads only.
    Replica(&'c Pools),
    Transaction(&'c mut Transaction),
}

enum Values {
    Postgres(PgArguments),
    Sqlite(SqliteArguments),
}

/// A second server that has what the first one had a moment ago.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    pub(super) pool: Pool,
    pub(super) breaker: Breaker,
}

/// A statement that waits for its values and its execution.
#[must_use = "a query does nothing until it is executed or fetched"]
pub struct Query<'c> {
    sql: &'static str,
    target: Target<'c>,
    values: Result<Values, sqlx::Error>,
}

/// Runs one statement on whatever the target is: `$on` makes the future from a connection and values.
macro_rules! run {
    ($query:expr, |$sql:ident, $connection:ident, $values:ident| $on:expr) => {{
        let Query { sql: $sql, target, values } = $query;
        match (target, values?) {
            (Target::Replica(Pools::Postgres(pools)), Values::Postgres(values)) => {
                let first = match &pools.replica {
                    Some(replica) => {
                        let $values = values.clone();
                        replica.ask(async |$connection: &mut PgConnection| $on.await).await
                    }
                    None => None,
                };
                match first {
                    Some(rows) => Ok(rows),
                    None => {
                        read(&pools.primary, values, async |$connection: &mut PgConnection, $values| $on.await).await
                    }
                }
            }
            (Target::Pools(Pools::Postgres(pools)), Values::Postgres(values)) if is_read($sql) => {
                read(&pools.primary, values, async |$connection: &mut PgConnection, $values| $on.await).await
            }
            (Target::Pools(Pools::Postgres(pools)), Values::Postgres($values)) => {
                write(&pools.primary, async |$connection: &mut PgConnection| $on.await).await
            }
            (Target::Pools(Pools::Sqlite(pools)) | Target::Replica(Pools::Sqlite(pools)), Values::Sqlite($values)) => {
                let pool = if is_read($sql) { &pools.readers } else { &pools.writer };
                let mut held = file::Held::acquire(pool, &pools.disk).await?;
                held.run(async |$connection: &mut SqliteConnection| $on.await).await
            }
            (Target::Transaction(transaction), values) => {
                let outcome = match (&mut transaction.connection, values) {
                    (Some(Connection::Postgres(held)), Values::Postgres($values)) => {
                        held.run(async |$connection: &mut PgConnection| $on.await).await.map_err(Error::from)
                    }
                    (Some(Connection::Sqlite(held)), Values::Sqlite($values)) => {
                        held.run(async |$connection: &mut SqliteConnection| $on.await).await
                    }
                    _ => Err(mixed_engines().into()),
                };
                outcome.map_err(|error| transaction.note(error))
            }
            _ => Err(mixed_engines().into()),
        }
    }};
}

/// A statement that only reads. A connection that was broken while it lay idle has shown no row yet: once more, then.
async fn read<T>(
    pool: &Pool,
    values: PgArguments,
    statement: impl AsyncFn(&mut PgConnection, PgArguments) -> Result<T, sqlx::Error>,
) -> Result<T, Error> {
    let again = values.clone();
    let mut held = pool.acquire().await?;
    match held.run(async |connection| statement(connection, values).await).await {
        Err(error) if is_broken(&error) => {
            drop(held);
            let mut held = pool.acquire().await?;
            Ok(held.run(async |connection| statement(connection, again).await).await?)
        }
        other => Ok(other?),
    }
}

/// A statement that may write: once it was sent, a broken connection does not tell what became of it.
async fn write<T>(
    pool: &Pool,
    statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T, Error> {
    let mut held = pool.acquire().await?;
    let outcome = held.run(statement).await;
    outcome
        .inspect(|_| pool.server().note_written())
        .map_err(|error| if held.is_in_step() { error.into() } else { Error::unknown(error) })
}

impl Replica {
    /// The rows, unless the replica could not be asked or did not give them.
    async fn ask<T>(&self, statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>) -> Option<T> {
        let permit = self.breaker.admit().ok()?;
        let (outcome, failed) = match self.pool.acquire().await.map_err(Error::from) {
            Ok(mut held) => {
                let outcome = held.run(statement).await.map_err(Error::from);
                // It also ends what conflicts with what it must copy (40001): the primary does not.
                let failed = outcome.as_ref().is_err_and(|error| error.is_connection() || error.is_clash());
                (outcome, failed)
            }
            Err(error) => {
                if error.is_refusal() {
                    tracing::warn!(%error, "the replica does not let this node in; the primary answers its reads");
                }
                (Err(error), true)
            }
        };
        permit.record(if failed { Verdict::Fails } else { Verdict::Works });
        // It may also lack what the primary has just got: a row, a table.
        outcome.inspect_err(|error| tracing::debug!(%error, "the replica did not answer a read; the primary does")).ok()
    }
}

/// The first word of a statement.
fn verb(sql: &str) -> &str {
    sql.split_whitespace().next().unwrap_or_default()
}

/// A statement has a span with its text, in which values are placeholders.
pub(super) fn statement_span(is_postgres: bool, sql: &str) -> Span {
    tracing::debug_span!(
        target: trace::SQL,
        "sql",
        otel.name = verb(sql),
        otel.kind = "client",
        otel.status_code = field::Empty,
        db.system = if is_postgres { "postgresql" } else { "sqlite" },
        db.statement = sql,
    )
}

/// Awaits a statement within its span, which costs next to nothing unless somebody wants spans.
pub(super) async fn traced<T>(span: Span, statement: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let outcome = statement.instrument(span.clone()).await;
    if outcome.is_err() {
        span.record("otel.status_code", "ERROR");
    }
    outcome
}

fn is_read(sql: &str) -> bool {
    sql.trim_start().get(..6).is_some_and(|verb| verb.eq_ignore_ascii_case("select"))
}

/// The values are made for the engine of the target, so this answers a mistake in this module only.
fn mixed_engines() -> sqlx::Error {
    sqlx::Error::InvalidArgument("values of one engine for a statement on the other".to_owned())
}

impl<'c> Query<'c> {
    pub(super) fn on_pools(pools: &'c Pools, sql: &'static str) -> Self {
        let values = match pools {
            Pools::Postgres(_) => Values::Postgres(PgArguments::default()),
            Pools::Sqlite(_) => Values::Sqlite(SqliteArguments::default()),
        };
        Self { sql, target: Target::Pools(pools), values: Ok(values) }
    }

    pub(super) fn on_replica(pools: &'c Pools, sql: &'static str) -> Self {
        let Self { sql, values, .. } = Self::on_pools(pools, sql);
        if is_read(sql) {
            return Self { sql, target: Target::Replica(pools), values };
        }
        let wrong =
            sqlx::Error::InvalidArgument("a statement that is no SELECT, among those that only read".to_owned());
        Self { sql, target: Target::Replica(pools), values: Err(wrong) }
    }

    pub(super) fn on_transaction(transaction: &'c mut Transaction, sql: &'static str) -> Self {
        let values = match transaction.connection {
            Some(Connection::Sqlite(_)) => Values::Sqlite(SqliteArguments::default()),
            _ => Values::Postgres(PgArguments::default()),
        };
        Self { sql, target: Target::Transaction(transaction), values: Ok(values) }
    }

    fn span(&self) -> Span {
        let is_postgres = match &self.target {
            Target::Pools(pools) | Target::Replica(pools) => matches!(pools, Pools::Postgres(_)),
            Target::Transaction(transaction) => matches!(transaction.connection, Some(Connection::Postgres(_))),
        };
        statement_span(is_postgres, self.sql)
    }

    /// Gives the next placeholder (`$1`, `$2`, …) its value.
    pub fn bind<T: Bind>(mut self, value: T) -> Self {
        if let Ok(values) = &mut self.values {
            let added = match values {
                Values::Postgres(arguments) => arguments.add(value),
                Values::Sqlite(arguments) => arguments.add(value),
            };
            if let Err(error) = added {
                self.values = Err(sqlx::Error::Encode(error));
            }
        }
        self
    }

    /// The row, if there is one.
    ///
    /// # Errors
    /// When the statement fails or the row does not fit `R`.
    pub async fn fetch_optional<R: Row>(self) -> Result<Option<R>, Error> {
        let span = self.span();
        traced(span, async {
            run!(self, |sql, connection, values| sqlx::query_as_with::<_, R, _>(sql, values).fetch_optional(connection))
        })
        .await
    }

    /// The one row.
    ///
    /// # Errors
    /// When there is none, the statement fails, or the row does not fit `R`.
    pub async fn fetch_one<R: Row>(self) -> Result<R, Error> {
        let span = self.span();
        traced(span, async {
            run!(self, |sql, connection, values| sqlx::query_as_with::<_, R, _>(sql, values).fetch_one(connection))
        })
        .await
    }

    /// Every row. Only for lists with a limit.
    ///
    /// # Errors
    /// When the statement fails or a row does not fit `R`.
    pub async fn fetch_all<R: Row>(self) -> Result<Vec<R>, Error> {
        let span = self.span();
        traced(span, async {
            run!(self, |sql, connection, values| sqlx::query_as_with::<_, R, _>(sql, values).fetch_all(connection))
        })
        .await
    }

    /// The one column of the one row.
    ///
    /// # Errors
    /// When there is no row, the statement fails, or the value does not fit `T`.
    pub async fn fetch_scalar<T>(self) -> Result<T, Error>
    where
        (T,): Row,
    {
        let (value,) = self.fetch_one::<(T,)>().await?;
        Ok(value)
    }

    /// How many rows the statement changed.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn execute(self) -> Result<u64, Error> {
        let span = self.span();
        traced(span, self.run()).await
    }

    async fn run(self) -> Result<u64, Error> {
        // The two engines count in types of their own.
        trait Changed {
            fn changed(&self) -> u64;
        }
        impl Changed for sqlx::postgres::PgQueryResult {
            fn changed(&self) -> u64 {
                self.rows_affected()
            }
        }
        impl Changed for sqlx::sqlite::SqliteQueryResult {
            fn changed(&self) -> u64 {
                self.rows_affected()
            }
        }
        run!(self, |sql, connection, values| sqlx::query_with(sql, values)
            .execute(connection)
            .map_ok(|done| Changed::changed(&done)))
    }
}
