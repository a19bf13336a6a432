//! The RabbitMQ that the benchmarks share, and what is to be taken from it again.

use std::process::Command;

use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};

use serde::Deserialize;

use crate::{Outcome, node::program};

/// A domain, as the node lists it.
#[derive(Deserialize)]
struct Domain {
    name: String,
}

/// `CALLBOARD_TEST_AMQP_URL`, or the local one.
#[must_use]
pub fn url() -> String {
    std::env::var("CALLBOARD_TEST_AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned())
}

/// The domains that may have a queue of events, as the node lists them.
///
/// # Errors
/// When the node was not built.
pub fn domains() -> Outcome<Vec<String>> {
    let listed = Command::new(program()?).args(["domains", "--json"]).output()?;
    let domains: Vec<Domain> = serde_json::from_slice(&listed.stdout)?;
    Ok(domains.into_iter().map(|domain| domain.name).collect())
}

/// Takes away what nodes with this prefix, which host these domains, declared to last; the rest expires.
///
/// # Errors
/// When the broker can't be reached.
pub async fn remove(prefix: &str, domains: &[String]) -> Outcome {
    let connection = Connection::connect(&url(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let of_domains = domains.iter().map(|domain| format!("{prefix}.events.{domain}"));
    for queue in of_domains.chain([format!("{prefix}.dead")]) {
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
    }
    for exchange in ["operations", "live", "events", "dead"] {
        let exchange = format!("{prefix}.{exchange}");
        channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await?;
    }
    connection.close(200, "".into()).await?;
    Ok(())
}
