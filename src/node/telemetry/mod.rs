//! The log of a node on standard error, and its traces to a collector.
//!
//! Without a collector no span is made, so that traces cost nothing. With one, spans are sent by a thread of their own
//! through a bounded queue: a collector that is slow or gone costs spans, and never a request.

mod filter;
mod json;
mod panics;
mod traces;

use std::{io::IsTerminal, time::Duration};

use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{self, MakeWriter},
    prelude::*,
};

use self::filter::AskedEachTime;
use crate::{
    config::{LogFormat, TelemetrySettings},
    error::{Error, Result},
};

/// Time limit of sending the last spans when the node stops.
const FLUSH: Duration = Duration::from_secs(2);

/// A part of the log or of the traces.
type Part = Box<dyn Layer<Registry> + Send + Sync>;

/// Held while the node runs; dropped, it sends the last spans. To be made before any asynchronous runtime, and dropped
/// after it: sending blocks its thread.
#[must_use = "the last spans are sent when it is dropped"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// Starts log and traces. `usual` is the log's format unless the settings name one, and `node` identifies the node in
/// both.
pub fn start(filter: &str, settings: &TelemetrySettings, usual: LogFormat, node: &str) -> Result<Telemetry> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Error::usage(format!("CALLBOARD_LOG is {filter:?}: {error}")).hint("for example: info"))?;
    let log = log(settings.format.unwrap_or(usual), filter, node, std::io::stderr);
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

/// The log: what `filter` lets pass, as `format` has it.
fn log<W>(format: LogFormat, filter: EnvFilter, node: &str, writer: W) -> Part
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = AskedEachTime(filter);
    match format {
        LogFormat::Json => fmt::layer()
            .event_format(json::Format::new(node))
            .fmt_fields(fmt::format::JsonFields::new())
            .with_writer(writer)
            .with_filter(filter)
            .boxed(),
        LogFormat::Pretty => {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            fmt::layer()
                .compact()
                .with_writer(writer)
                .with_ansi(std::io::stderr().is_terminal() && !plain)
                .with_filter(filter)
                .boxed()
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.traces.take().map(|provider| provider.shutdown_with_timeout(FLUSH)) {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use serde_json::Value;
    use tracing::{Metadata, dispatcher, info_span, subscriber::with_default};
    use tracing_subscriber::registry;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `work` logs as JSON on `node-a`.
    pub(super) fn logged(filter: &str, others: Vec<Part>, work: impl FnOnce()) -> Vec<Value> {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let mut parts = vec![log(LogFormat::Json, EnvFilter::new(filter), "node-a", move || writer.clone())];
        parts.extend(others);
        with_default(registry().with(parts), work);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Asks as the `log` crate does for a library, which then logs nothing.
    fn ask(whether: &'static Metadata<'static>) {
        dispatcher::get_default(|subscriber| {
            subscriber.enabled(whether);
        });
    }

    #[test]
    fn a_library_that_asks_and_says_nothing_takes_no_line_of_another() {
        let query = with_default(registry(), || info_span!(target: "sqlx::query", "query").metadata()).unwrap();
        let provider = SdkTracerProvider::default();
        for others in [vec![], vec![traces::layer(&provider)]] {
            let lines = logged("info,sqlx=warn", others, || {
                for _ in 0..3 {
                    ask(query);
                    tracing::warn!("said");
                }
            });
            assert_eq!(lines.len(), 3, "{lines:?}");
        }
    }
}
