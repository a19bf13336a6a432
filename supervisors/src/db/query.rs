//! One statement with its values.
//!
//! The code that asks a server or a file has no type of a domain: it is compiled once, here. Only values and rows have
//! types, so that a domain adds only encoding and decoding.

use futures_util::future::BoxFuture;
use sqlx::{
    Arguments, AssertSqlSafe, Encode, Executor, FromRow, PgConnection, Postgres, SqlSafeStr, SqlStr, Sqlite,
    SqliteConnection, Type,
    postgres::{PgArguments, PgRow},
    sqlite::{SqliteArguments, SqliteRow},
};
use tracing::{Instrument, Span, field};

use super::{
    Error, file,
    pool::{Held, Share, is_broken},
    pools::{Pools, Shares},
    transaction::{Connection, Origin, Progress},
};
use crate::{
    breaker::{Breaker, Verdict},
    telemetry::trace,
};

/// Values that both engines can store.
pub trait Bind:
    for<'q> Encode<'q, Postgres> + Type<Postgres> + for<'q> Encode<'q, Sqlite> + Type<Sqlite> + Send
{
}

impl<T> Bind for T where
    T: for<'q> Encode<'q, Postgres> + Type<Postgres> + for<'q> Encode<'q, Sqlite> + Type<Sqlite> + Send
{
}

/// Rows that both engines can be read into: derive `sqlx::FromRow`, or use a tuple.
pub trait Row: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}

impl<T> Row for T where T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin {}

enum Target<'c> {
    Pools(&'c Pools),
    /// The replica, if there is one; for reads only.
    Replica(&'c Pools),
    Transaction(&'c mut Progress),
}

enum Values {
    Postgres(PgArguments),
    Sqlite(SqliteArguments),
}

/// The kind of result that is asked for.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// The first row.
    First,
    /// All rows.
    All,
    /// The number of changed rows.
    Count,
}

/// The result of a statement.
enum Answer {
    Postgres(Vec<PgRow>),
    Sqlite(Vec<SqliteRow>),
    Count(u64),
}

impl Answer {
    fn decode<R: Row>(self) -> Result<Vec<R>, Error> {
        let rows: Result<Vec<R>, sqlx::Error> = match self {
            Self::Postgres(rows) => rows.iter().map(R::from_row).collect(),
            Self::Sqlite(rows) => rows.iter().map(R::from_row).collect(),
            Self::Count(_) => Ok(Vec::new()),
        };
        Ok(rows?)
    }

    fn first<R: Row>(self) -> Result<Option<R>, Error> {
        let row = match &self {
            Self::Postgres(rows) => rows.first().map(R::from_row),
            Self::Sqlite(rows) => rows.first().map(R::from_row),
            Self::Count(_) => None,
        };
        Ok(row.transpose()?)
    }
}

/// A server with the primary's data of a moment ago.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    pub(super) share: Share,
    pub(super) breaker: Breaker,
}

/// A statement to which values are bound before it is executed.
#[must_use = "a query does nothing until it is executed or fetched"]
pub struct Query<'c> {
    sql: &'static str,
    target: Target<'c>,
    origin: &'c Origin,
    values: Result<Values, sqlx::Error>,
}

/// A statement as it is sent to PostgreSQL.
#[derive(Clone)]
struct Statement {
    sql: SqlStr,
    values: PgArguments,
    want: Want,
}

impl Statement {
    async fn run(self, connection: &mut PgConnection, is_persistent: bool) -> Result<Answer, sqlx::Error> {
        let query = sqlx::query_with(self.sql, self.values).persistent(is_persistent);
        Ok(match self.want {
            Want::First => Answer::Postgres(connection.fetch_optional(query).await?.into_iter().collect()),
            Want::All => Answer::Postgres(connection.fetch_all(query).await?),
            Want::Count => Answer::Count(connection.execute(query).await?.rows_affected()),
        })
    }

    /// Runs the statement in a transaction that has begun.
    async fn in_transaction(self, held: &mut Held) -> Result<Answer, sqlx::Error> {
        let is_persistent = !held.is_pooled();
        held.run(async move |connection| self.run(connection, is_persistent).await).await
    }

    /// Runs the statement as a transaction of its own. A pooler may let the next message of a client go to another connection unless a transaction holds it,
    /// and a statement with values is two.
    async fn autocommit(self, held: &mut Held) -> Result<Answer, sqlx::Error> {
        if !held.is_pooled() {
            return self.in_transaction(held).await;
        }
        held.begin().await?;
        let outcome = self.in_transaction(held).await;
        let end = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
        if outcome.is_ok() || held.is_in_step() {
            held.run(async |connection| sqlx::raw_sql(end).execute(connection).await).await?;
        }
        outcome
    }

    /// A statement that only reads. It is retried once if the connection broke before the first row.
    async fn read(self, share: &Share) -> Result<Answer, Error> {
        let again = self.clone();
        let mut held = share.acquire().await?;
        match self.autocommit(&mut held).await {
            Err(error) if is_broken(&error) => {
                drop(held);
                Ok(again.autocommit(&mut share.acquire().await?).await?)
            }
            other => Ok(other?),
        }
    }

    /// A statement that may write: its outcome is unknown when the connection breaks after it was sent.
    async fn write(self, share: &Share) -> Result<Answer, Error> {
        let mut held = share.acquire().await?;
        let outcome = self.autocommit(&mut held).await;
        outcome
            .inspect(|_| share.server().note_written())
            .map_err(|error| if held.is_in_step() { error.into() } else { Error::unknown(error) })
    }
}

impl Replica {
    /// The answer of the replica; `None` if it could not be asked or did not answer.
    async fn ask(&self, statement: Statement) -> Option<Answer> {
        let permit = self.breaker.admit().ok()?;
        let (outcome, failed) = match self.share.acquire().await.map_err(Error::from) {
            Ok(mut held) => {
                let outcome = statement.autocommit(&mut held).await.map_err(Error::from);
                // The replica also cancels reads that conflict with replication (40001), which the primary does not.
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
        // A row or table may not be replicated yet.
        outcome.inspect_err(|error| tracing::debug!(%error, "the replica did not answer a read; the primary does")).ok()
    }
}

/// The first word of a statement.
fn verb(sql: &str) -> &str {
    sql.split_whitespace().next().unwrap_or_default()
}

/// The span of a statement, with its text, in which values are placeholders.
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

/// Awaits a statement within its span; nearly free unless spans are collected.
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

/// Values are made for the target's engine, so this reports a mistake in this module.
fn mixed_engines() -> sqlx::Error {
    sqlx::Error::InvalidArgument("values of one engine for a statement on the other".to_owned())
}

impl<'c> Query<'c> {
    pub(super) fn on_pools(pools: &'c Pools, origin: &'c Origin, sql: &'static str) -> Self {
        let values = match pools {
            Pools::Postgres(_) => Values::Postgres(PgArguments::default()),
            Pools::Sqlite(_) => Values::Sqlite(SqliteArguments::default()),
        };
        Self { sql, target: Target::Pools(pools), origin, values: Ok(values) }
    }

    pub(super) fn on_replica(pools: &'c Pools, origin: &'c Origin, sql: &'static str) -> Self {
        let Self { sql, values, .. } = Self::on_pools(pools, origin, sql);
        if is_read(sql) {
            return Self { sql, target: Target::Replica(pools), origin, values };
        }
        let wrong =
            sqlx::Error::InvalidArgument("a statement that is no SELECT, among those that only read".to_owned());
        Self { sql, target: Target::Replica(pools), origin, values: Err(wrong) }
    }

    pub(super) fn on_transaction(progress: &'c mut Progress, origin: &'c Origin, sql: &'static str) -> Self {
        let values = match origin.names {
            None => Values::Sqlite(SqliteArguments::default()),
            Some(_) => Values::Postgres(PgArguments::default()),
        };
        Self { sql, target: Target::Transaction(progress), origin, values: Ok(values) }
    }

    /// Binds the value of the next placeholder (`$1`, `$2`, …).
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

    /// The first row, if there is one.
    ///
    /// # Errors
    /// When the statement fails or the row does not fit `R`.
    pub async fn fetch_optional<R: Row>(self) -> Result<Option<R>, Error> {
        self.ask(Want::First).await?.first()
    }

    /// The only row.
    ///
    /// # Errors
    /// When there is none, the statement fails, or the row does not fit `R`.
    pub async fn fetch_one<R: Row>(self) -> Result<R, Error> {
        Ok(self.fetch_optional().await?.ok_or(sqlx::Error::RowNotFound)?)
    }

    /// Every row. Only for lists with a limit.
    ///
    /// # Errors
    /// When the statement fails or a row does not fit `R`.
    pub async fn fetch_all<R: Row>(self) -> Result<Vec<R>, Error> {
        self.ask(Want::All).await?.decode()
    }

    /// The only column of the only row.
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

    /// The number of rows changed.
    ///
    /// # Errors
    /// When the statement fails.
    pub async fn execute(self) -> Result<u64, Error> {
        match self.ask(Want::Count).await? {
            Answer::Count(changed) => Ok(changed),
            Answer::Postgres(_) | Answer::Sqlite(_) => Ok(0),
        }
    }

    /// Boxed, so that the futures of callers stay small.
    fn ask(self, want: Want) -> BoxFuture<'c, Result<Answer, Error>> {
        let span = self.span();
        Box::pin(traced(span, self.run(want)))
    }

    fn span(&self) -> Span {
        statement_span(self.origin.names.is_some(), self.sql)
    }

    async fn run(self, want: Want) -> Result<Answer, Error> {
        let Self { sql, target, origin, values } = self;
        match (values?, &origin.names) {
            (Values::Postgres(values), Some(names)) => {
                let sql = AssertSqlSafe(names.qualify(sql)).into_sql_str();
                on_server(Statement { sql, values, want }, target).await
            }
            (Values::Sqlite(values), None) => on_file(sql, values, want, target).await,
            _ => Err(mixed_engines().into()),
        }
    }
}

async fn on_server(statement: Statement, target: Target<'_>) -> Result<Answer, Error> {
    match target {
        Target::Replica(Pools::Postgres(Shares { primary, replica: Some(replica) })) => {
            match replica.ask(statement.clone()).await {
                Some(answer) => Ok(answer),
                None => statement.read(primary).await,
            }
        }
        Target::Replica(Pools::Postgres(shares)) => statement.read(&shares.primary).await,
        Target::Pools(Pools::Postgres(shares)) if is_read(statement.sql.as_str()) => {
            statement.read(&shares.primary).await
        }
        Target::Pools(Pools::Postgres(shares)) => statement.write(&shares.primary).await,
        Target::Transaction(progress) => {
            let Some(Connection::Postgres(held)) = progress.connection() else { return Err(mixed_engines().into()) };
            statement.in_transaction(held).await.map_err(|error| progress.note(error.into()))
        }
        _ => Err(mixed_engines().into()),
    }
}

async fn on_file(sql: &'static str, values: SqliteArguments, want: Want, target: Target<'_>) -> Result<Answer, Error> {
    let query = sqlx::query_with(sql, values);
    let ask = async move |connection: &mut SqliteConnection| {
        Ok(match want {
            Want::First => Answer::Sqlite(connection.fetch_optional(query).await?.into_iter().collect()),
            Want::All => Answer::Sqlite(connection.fetch_all(query).await?),
            Want::Count => Answer::Count(connection.execute(query).await?.rows_affected()),
        })
    };
    match target {
        Target::Pools(Pools::Sqlite(pools)) | Target::Replica(Pools::Sqlite(pools)) => {
            let pool = if is_read(sql) { &pools.readers } else { &pools.writer };
            file::Held::acquire(pool, &pools.disk).await?.run(ask).await
        }
        Target::Transaction(progress) => {
            let Some(Connection::Sqlite(held)) = progress.connection() else { return Err(mixed_engines().into()) };
            held.run(ask).await.map_err(|error| progress.note(error))
        }
        _ => Err(mixed_engines().into()),
    }
}
