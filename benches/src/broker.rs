//! The RabbitMQ that the benchmarks share, and what is to be taken from it again.

use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};

use crate::Outcome;

/// Every domain that may have a queue of events.
const DOMAINS: [&str; 5] = ["auth", "organization", "project", "deploy", "cluster"];

/// `CALLBOARD_TEST_AMQP_URL`, or the local one.
#[must_use]
pub fn url() -> String {
    std::env::var("CALLBOARD_TEST_AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned())
}

/// Takes away what nodes with this prefix declared to last; the rest expires.
///
/// # Errors
/// When the broker can't be reached.
pub async fn remove(prefix: &str) -> Outcome {
    let connection = Connection::connect(&url(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let of_domains = DOMAINS.map(|domain| format!("{prefix}.events.{domain}"));
    for queue in of_domains.into_iter().chain([format!("{prefix}.dead")]) {
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
    }
    for exchange in ["operations", "live", "events", "dead"] {
        let exchange = format!("{prefix}.{exchange}");
        channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await?;
    }
    connection.close(200, "".into()).await?;
    Ok(())
}
