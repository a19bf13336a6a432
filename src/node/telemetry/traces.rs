//! Traces to a collector, by OTLP over HTTP (protobuf).
//!
//! HTTP rather than gRPC, because the node has an HTTP client with its one TLS already. The sender is a thread of the
//! OpenTelemetry library with a queue of bounded length; what does not fit is dropped and told of by the library's own
//! count. The standard `OTEL_…` variables are honoured where the library reads them: headers, sampling, resource
//! attributes, the service's name and the queue's bounds.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::{Level, Metadata, level_filters::LevelFilter};
use tracing_subscriber::{Layer, filter::filter_fn};
use url::Url;

use super::{Part, filter::AskedEachTime};
use crate::{
    client::install_crypto_provider,
    error::{Context, Result},
};

/// Time limit of sending a batch.
const EXPORT: Duration = Duration::from_secs(5);
/// Interval of the log line about a collector that stays away.
const REMIND: Duration = Duration::from_secs(300);

/// Creates the sender of spans to this collector.
pub fn provider(endpoint: &Url, node: &str) -> Result<SdkTracerProvider> {
    install_crypto_provider();
    let sender = Sender::new(endpoint)?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(sender)
        .with_endpoint(traces_url(endpoint))
        .with_timeout(EXPORT)
        .build()
        .context(|| "set up traces".to_owned())?;
    let mut resource = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node.to_owned()),
    ]);
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("callboard");
    }
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build())
}

/// A collector is named by its base address, or by the whole address of its traces.
fn traces_url(endpoint: &Url) -> String {
    let base = endpoint.as_str().trim_end_matches('/');
    if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") }
}

/// Turns our own spans into spans of a trace, and errors and warnings within them into their events.
pub fn layer(provider: &SdkTracerProvider) -> Part {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("callboard"))
        .with_tracked_inactivity(false)
        .with_location(false)
        .with_threads(false)
        .with_filter(AskedEachTime(filter_fn(is_ours).with_max_level_hint(LevelFilter::DEBUG)))
        .boxed()
}

/// Spans of the libraries, and with them the sender's own, stay out.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("callboard")
        && if metadata.is_span() { *metadata.level() <= Level::DEBUG } else { *metadata.level() <= Level::WARN }
}

/// The outcome of sending a batch.
type Sent = std::result::Result<Response<Bytes>, HttpError>;

/// The client of the sender's thread, which it may block.
#[derive(Debug)]
struct Sender {
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    collector: String,
    trouble: Mutex<Option<Trouble>>,
}

/// Since when batches are lost, and when that was last logged.
#[derive(Debug)]
struct Trouble {
    batches: u64,
    said: Instant,
}

impl Sender {
    fn new(endpoint: &Url) -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(EXPORT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context(|| "make a client for traces".to_owned())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context(|| "make a runtime for traces".to_owned())?;
        let collector = endpoint.origin().ascii_serialization();
        Ok(Self { http, runtime, collector, trouble: Mutex::new(None) })
    }

    fn send(&self, request: Request<Bytes>) -> Sent {
        let request = reqwest::Request::try_from(request)?;
        self.runtime.block_on(async {
            let response = self.http.execute(request).await?.error_for_status()?;
            let status = response.status();
            Ok(Response::builder().status(status).body(response.bytes().await?)?)
        })
    }

    /// Logs the first loss, then one at intervals, then the end of the loss, so that an exporter's log does not become
    /// a storm.
    fn note(&self, outcome: &Sent) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (outcome, &mut *trouble) {
            (Ok(_), None) => {}
            (Ok(_), Some(Trouble { batches, .. })) => {
                tracing::info!(collector = self.collector, lost_batches = *batches, "traces are taken again");
                *trouble = None;
            }
            (Err(error), None) => {
                tracing::warn!(
                    collector = self.collector,
                    error = cause(&**error),
                    "traces can't be sent and are lost"
                );
                *trouble = Some(Trouble { batches: 1, said: Instant::now() });
            }
            (Err(error), Some(Trouble { batches, said })) => {
                *batches += 1;
                if said.elapsed() >= REMIND {
                    *said = Instant::now();
                    let (collector, lost) = (&self.collector, *batches);
                    tracing::warn!(collector, lost_batches = lost, error = cause(&**error), "traces are still lost");
                }
            }
        }
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Sent {
        let outcome = self.send(request);
        self.note(&outcome);
        outcome
    }
}

fn cause(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(deeper) = deepest.source() {
        deepest = deeper;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_by_its_base_or_by_the_whole_address() {
        let url = |text: &str| traces_url(&Url::parse(text).unwrap());
        assert_eq!(url("http://127.0.0.1:4318"), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(url("https://otlp.example.com/team/"), "https://otlp.example.com/team/v1/traces");
        assert_eq!(url("https://otlp.example.com/v1/traces"), "https://otlp.example.com/v1/traces");
    }
}
