//! One statement with its values.

use sqlx::{
    Arguments, Encode, FromRow, Postgres, Sqlite, Type,
    postgres::{PgArguments, PgRow},
    sqlite::{SqliteArguments, SqliteRow},
};
use tracing::{Instrument, Span, field};

use super::{
    Error,
    pools::Pools,
    transaction::{Connection, Transaction},
};
use crate::trace;

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
    Transaction(&'c mut Transaction),
}

enum Values {
    Postgres(PgArguments),
    Sqlite(SqliteArguments),
}

/// A statement that waits for its values and its execution.
#[must_use = "a query does nothing until it is executed or fetched"]
pub struct Query<'c> {
    sql: &'static str,
    target: Target<'c>,
    values: Result<Values, sqlx::Error>,
}

/// Runs one `query_as` on whatever the target is; `$fetch` is the method of sqlx.
macro_rules! fetch {
    ($query:expr, $row:ty, $fetch:ident) => {{
        let Query { sql, target, values } = $query;
        match (target, values?) {
            (Target::Pools(Pools::Postgres(pool)), Values::Postgres(values)) => {
                let again = is_read(sql).then(|| values.clone());
                match sqlx::query_as_with::<_, $row, _>(sql, values).$fetch(pool).await {
                    // A reader whose connection was broken while it lay idle has seen no row yet.
                    Err(error @ (sqlx::Error::Io(_) | sqlx::Error::Protocol(_))) => match again {
                        Some(values) => sqlx::query_as_with::<_, $row, _>(sql, values).$fetch(pool).await,
                        None => Err(error),
                    },
                    other => other,
                }
            }
            (Target::Pools(Pools::Sqlite(pools)), Values::Sqlite(values)) => {
                let pool = if is_read(sql) { &pools.readers } else { &pools.writer };
                sqlx::query_as_with::<_, $row, _>(sql, values).$fetch(pool).await
            }
            (Target::Transaction(transaction), values) => {
                let outcome = match (&mut transaction.connection, values) {
                    (Connection::Postgres(connection), Values::Postgres(values)) => {
                        sqlx::query_as_with::<_, $row, _>(sql, values).$fetch(&mut **connection).await
                    }
                    (Connection::Sqlite(connection), Values::Sqlite(values)) => {
                        sqlx::query_as_with::<_, $row, _>(sql, values).$fetch(&mut **connection).await
                    }
                    _ => Err(mixed_engines()),
                };
                outcome.map_err(|error| transaction.note(error))
            }
            _ => Err(mixed_engines()),
        }
        .map_err(Error::from)
    }};
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

    pub(super) fn on_transaction(transaction: &'c mut Transaction, sql: &'static str) -> Self {
        let values = match transaction.connection {
            Connection::Postgres(_) => Values::Postgres(PgArguments::default()),
            Connection::Sqlite(_) => Values::Sqlite(SqliteArguments::default()),
        };
        Self { sql, target: Target::Transaction(transaction), values: Ok(values) }
    }

    fn span(&self) -> Span {
        let is_postgres = match &self.target {
            Target::Pools(pools) => matches!(pools, Pools::Postgres(_)),
            Target::Transaction(transaction) => matches!(transaction.connection, Connection::Postgres(_)),
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
        traced(span, async { fetch!(self, R, fetch_optional) }).await
    }

    /// The one row.
    ///
    /// # Errors
    /// When there is none, the statement fails, or the row does not fit `R`.
    pub async fn fetch_one<R: Row>(self) -> Result<R, Error> {
        let span = self.span();
        traced(span, async { fetch!(self, R, fetch_one) }).await
    }

    /// Every row. Only for lists with a limit.
    ///
    /// # Errors
    /// When the statement fails or a row does not fit `R`.
    pub async fn fetch_all<R: Row>(self) -> Result<Vec<R>, Error> {
        let span = self.span();
        traced(span, async { fetch!(self, R, fetch_all) }).await
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
        let Self { sql, target, values } = self;
        let changed = match (target, values?) {
            (Target::Pools(Pools::Postgres(pool)), Values::Postgres(values)) => {
                sqlx::query_with(sql, values).execute(pool).await?.rows_affected()
            }
            (Target::Pools(Pools::Sqlite(pools)), Values::Sqlite(values)) => {
                sqlx::query_with(sql, values).execute(&pools.writer).await?.rows_affected()
            }
            (Target::Transaction(transaction), values) => {
                let changed = match (&mut transaction.connection, values) {
                    (Connection::Postgres(connection), Values::Postgres(values)) => {
                        sqlx::query_with(sql, values).execute(&mut **connection).await.map(|done| done.rows_affected())
                    }
                    (Connection::Sqlite(connection), Values::Sqlite(values)) => {
                        sqlx::query_with(sql, values).execute(&mut **connection).await.map(|done| done.rows_affected())
                    }
                    _ => return Err(mixed_engines().into()),
                };
                changed.map_err(|error| transaction.note(error))?
            }
            _ => return Err(mixed_engines().into()),
        };
        Ok(changed)
    }
}
