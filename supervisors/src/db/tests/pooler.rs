//! PgBouncer in transaction mode before the server.

use std::time::Duration;

use futures_util::future::join_all;

use super::{insert, migrator, on_postgres, things};
use crate::{
    db::{DatabaseSettings, Databases, Error, PostgresSettings},
    testing::Pooler,
};

#[actix_rt::test]
async fn everything_works_behind_a_pooler_that_keeps_nothing_between_transactions() {
    on_postgres(async |settings| {
        let pooler = Pooler::before(&settings.url, 2);
        let pooled = PostgresSettings {
            url: pooler.url().to_owned(),
            read_url: Some(format!("{}&application_name=reads", pooler.url())),
            is_pooled: true,
            statement_timeout: Duration::from_secs(2),
            connections: 16,
            ..settings.clone()
        };
        let databases = Databases::new(DatabaseSettings::Postgres(pooled));
        databases.check("thing").await.unwrap();
        databases.check_replica().await.unwrap();
        assert!(databases.occupancy("thing").await.unwrap().unwrap().allowed > 0);
        // First without the schema, then with it.
        databases.migrate("thing", &things()).await.unwrap();
        let more = migrator(&[(1, "CREATE TABLE things (id BIGINT)"), (2, "CREATE TABLE more (id BIGINT)")]);
        databases.migrate("other", &more).await.unwrap();
        databases.migrate("other", &more).await.unwrap();

        // More clients than connections, so that each transaction may get another.
        let database = databases.open("thing").await.unwrap();
        let work = async |number: i64| {
            let thing = insert(&databases, &number.to_string(), number).await?;
            let taken = insert(&databases, &number.to_string(), number).await.unwrap_err();
            assert!(taken.violates("things_name_key", "things.name"), "{taken}");
            let mut transaction = database.begin().await?;
            let raise = "UPDATE things SET stock = stock + 1 WHERE id = $1";
            assert_eq!(transaction.query(raise).bind(thing.id).execute().await?, 1);
            transaction.commit().await?;
            let mut dropped = database.begin().await?;
            dropped.query(raise).bind(thing.id).execute().await?;
            drop(dropped);
            let stock = "SELECT stock FROM things WHERE id = $1";
            assert_eq!(database.query(stock).bind(thing.id).fetch_scalar::<i64>().await?, number + 1);
            assert_eq!(database.read().query(stock).bind(thing.id).fetch_scalar::<i64>().await?, number + 1);
            Ok::<_, Error>(())
        };
        for outcome in join_all((0..24).map(work)).await {
            outcome.unwrap();
        }
        let late = database.query("SELECT pg_sleep(20)").execute().await.unwrap_err();
        assert!(late.is_late(), "{late}");
        databases.drop_schema("other").await.unwrap();
        databases.close().await;
    })
    .await;
}
