//! A collector of traces: takes OTLP over HTTP as any collector does, and keeps the spans for the test to look at.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{Arc, Mutex},
};

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, web};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, KeyValue, any_value},
};
use prost::Message;

/// A span as it arrived, with what is asked about it.
#[derive(Debug, Clone)]
pub struct Span {
    pub name: String,
    /// Hexadecimal.
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub attributes: BTreeMap<String, String>,
    /// Of the process that made it: `service.instance.id` and the like.
    pub resource: BTreeMap<String, String>,
}

type Spans = Arc<Mutex<Vec<Span>>>;

/// Listens until it is dropped.
pub struct Collector {
    pub port: u16,
    spans: Spans,
    server: ServerHandle,
}

impl Collector {
    /// On a thread of its own.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let spans = Spans::default();
        let (kept, (tell, told)) = (spans.clone(), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let app = move || {
                    let limit = web::PayloadConfig::new(16 * 1024 * 1024);
                    App::new()
                        .app_data(limit)
                        .app_data(web::Data::from(kept.clone()))
                        .route("/v1/traces", web::post().to(take))
                };
                let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap().run();
                tell.send(server.handle()).unwrap();
                server.await.unwrap();
            });
        });
        Self { port, spans, server: told.recv().unwrap() }
    }

    /// Its address, for a node's configuration.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What has arrived so far of a trace.
    pub fn trace(&self, id: &str) -> Vec<Span> {
        self.all().into_iter().filter(|span| span.trace == id).collect()
    }

    /// What has arrived so far.
    pub fn all(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.server.stop(false));
    }
}

async fn take(spans: web::Data<Mutex<Vec<Span>>>, body: web::Bytes) -> HttpResponse {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return HttpResponse::BadRequest().finish() };
    let mut arrived = Vec::new();
    for of_process in request.resource_spans {
        let resource = attributes(of_process.resource.map(|resource| resource.attributes).unwrap_or_default());
        for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            arrived.push(Span {
                name: span.name,
                trace: hex::encode(&span.trace_id),
                id: hex::encode(&span.span_id),
                parent: hex::encode(&span.parent_span_id),
                attributes: attributes(span.attributes),
                resource: resource.clone(),
            });
        }
    }
    spans.lock().unwrap().extend(arrived);
    HttpResponse::Ok()
        .content_type("application/x-protobuf")
        .body(ExportTraceServiceResponse::default().encode_to_vec())
}

fn attributes(list: Vec<KeyValue>) -> BTreeMap<String, String> {
    list.into_iter().map(|pair| (pair.key, pair.value.map(text).unwrap_or_default())).collect()
}

fn text(value: AnyValue) -> String {
    match value.value {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(flag)) => flag.to_string(),
        other => format!("{other:?}"),
    }
}
