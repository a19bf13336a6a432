//! What a node tells of itself while it runs: its log on standard error, and traces to a collector.
//!
//! Without a collector no span is made, so that traces cost nothing. With one, spans leave on a thread of their own
//! through a bounded queue: a collector that is slow or gone costs spans, and never a request.

mod json;
mod panics;
mod traces;

use std::{io::IsTerminal, time::Duration};

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, prelude::*};

use crate::{
    config::{LogFormat, TelemetrySettings},
    error::{Error, Result},
};

/// How long the last spans may take to leave when the node stops.
const FLUSH: Duration = Duration::from_secs(2);

/// A part of the log or of the traces.
type Part = Box<dyn Layer<Registry> + Send + Sync>;

/// Held while the node runs; dropped, it sends the last spans. To be made before any asynchronous runtime, and dropped
/// after it: sending blocks its thread.
#[must_use = "the last spans are sent when it is dropped"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Starts it. `usual` is the log's format unless the settings tell, and `node` names the node in log and traces.
pub fn start(filter: &str, settings: &TelemetrySettings, usual: LogFormat, node: &str) -> Result<Telemetry> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Error::usage(format!("CALLBOARD_LOG is {filter:?}: {error}")).hint("for example: info"))?;
    let log = match settings.format.unwrap_or(usual) {
        LogFormat::Json => fmt::layer()
            .event_format(json::Format::new(node))
            .fmt_fields(fmt::format::JsonFields::new())
            .with_writer(std::io::stderr)
            .with_filter(filter)
            .boxed(),
        LogFormat::Pretty => {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            fmt::layer()
                .compact()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal() && !plain)
                .with_filter(filter)
                .boxed()
        }
    };
    let mut parts: Vec<Part> = vec![log];
    let provider = settings.otlp_endpoint.as_ref().map(|endpoint| traces::provider(endpoint, node)).transpose()?;
    if let Some(provider) = &provider {
        parts.push(traces::layer(provider));
    }
    let started = tracing_subscriber::registry().with(parts).try_init();
    started.map_err(|error| Error::failure(format!("could not start logging: {error}")))?;
    panics::log();
    Ok(Telemetry { traces: provider })
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.traces.take().map(|provider| provider.shutdown_with_timeout(FLUSH)) {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}
