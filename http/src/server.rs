//! The gateway as a server: its parts, start and stop.

use std::{
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_cors::Cors;
use actix_service::{Service, ServiceFactory};
use actix_web::{
    App, Error, HttpMessage,
    body::BoxBody,
    dev::{Server, ServerHandle, ServiceRequest, ServiceResponse, Transform},
    http::Method,
    web::{self, ServiceConfig},
};
use bytes::Bytes;
use callboard_platform::{revocations::Revocations, routing::RoutingTable};
use callboard_supervisors::{Runtime, db::Databases};
use futures_util::{
    FutureExt, TryFutureExt,
    future::{LocalBoxFuture, MapOk},
};
use object_store::ObjectStore;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tracing_actix_web::{StreamSpan, TracingLogger};

use crate::{
    address::TrustedProxies,
    connection::{self, Edge},
    idempotency::Sightings,
    limits::{Limits, RateLimitStore},
    metrics::Metrics,
    openapi, pages,
    router::Router,
    routes,
    settings::GatewaySettings,
    span::{RequestSpan, Routed},
    worker::Worker,
};

/// Interval of removing expired rate limits.
const SWEEP: Duration = Duration::from_secs(60);

/// The parts of the gateway.
pub struct Gateway {
    /// The operator's settings.
    pub settings: GatewaySettings,
    /// The node's domains.
    pub runtime: Runtime,
    /// Has the gateway's own database, `gateway`.
    pub databases: Databases,
    /// Auth's count of revocations.
    pub revocations: Revocations,
    /// The store of uploads.
    pub objects: Arc<dyn ObjectStore>,
    /// The router, before everything else.
    pub router: Router,
    /// The platform's own URL, without a slash at its end; default: where the gateway listens.
    pub address: Option<String>,
    /// The issuer of auth's tokens, for OpenID discovery; default: the platform's own URL.
    pub issuer: Option<String>,
    /// Counts requests of several gateways together; default: in this process.
    pub rate_limits: Option<Arc<dyn RateLimitStore>>,
    /// Shows what is for who works on the pages themselves: the page of components.
    pub development: bool,
}

/// State that all worker threads share.
pub(crate) struct Shared {
    pub(crate) settings: GatewaySettings,
    pub(crate) runtime: Runtime,
    pub(crate) databases: Databases,
    pub(crate) revocations: Revocations,
    pub(crate) sightings: Sightings,
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// Where the apps answer.
    pub(crate) routes: RoutingTable,
    /// Whether the page of components is there.
    pub(crate) development: bool,
    /// The platform's own URL, without a slash at its end.
    pub(crate) address: String,
    pub(crate) issuer: String,
    pub(crate) proxies: TrustedProxies,
    pub(crate) limits: Arc<Limits>,
    pub(crate) metrics: Metrics,
    pub(crate) pages: pages::Templates,
    pub(crate) stopping: Stopping,
    /// Number of worker threads that accept requests.
    started: watch::Sender<usize>,
    /// Set while the node serves, but is not ready for traffic yet.
    pub(crate) held: Arc<AtomicBool>,
    document: OnceLock<Document>,
}

/// The OpenAPI document, made at first use.
pub(crate) struct Document {
    pub(crate) bytes: Bytes,
    pub(crate) etag: String,
}

impl Shared {
    pub(crate) fn document(&self) -> &Document {
        self.document.get_or_init(|| {
            let bytes = Bytes::from(openapi::document(&routes::all()).to_string());
            let mut etag = hex::encode(Sha256::digest(&bytes));
            etag.truncate(16);
            Document { bytes, etag: format!("\"{etag}\"") }
        })
    }
}

/// Whether the node drains.
#[derive(Clone)]
pub(crate) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    pub(crate) fn is_begun(&self) -> bool {
        *self.0.borrow()
    }

    pub(crate) async fn begun(&mut self) {
        if self.0.wait_for(|stopping| *stopping).await.is_err() {
            // The sender is gone, so that it will never drain.
            std::future::pending::<()>().await;
        }
    }
}

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A sentence for each mistake.
    #[error("the gateway's settings are not valid: {}", .0.join("; "))]
    Settings(Vec<String>),
    /// The address is in use, or not this machine's.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// Its database can't be opened or migrated.
    #[error(transparent)]
    Database(#[from] callboard_supervisors::db::MigrationError),
    /// A mistake in the program.
    #[error("{0}")]
    Internal(String),
}

/// A gateway that serves.
pub struct Serving {
    /// Resolves when the server has stopped: await it, or spawn it.
    pub server: Server,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// Stops it.
    pub stop: Stop,
    /// Waits until it serves.
    pub ready: Ready,
}

/// Resolves when every worker thread has its shards and accepts requests, while the server is awaited.
pub struct Ready {
    started: watch::Receiver<usize>,
    workers: usize,
    held: Arc<AtomicBool>,
}

impl Ready {
    /// Waits. `false` when the server ended before it was ready.
    pub async fn wait(&mut self) -> bool {
        self.started.wait_for(|started| *started >= self.workers).await.is_ok()
    }

    /// Makes `/ready` answer 503 until [`release`](Self::release), whatever the domains' state.
    pub fn hold(&self) {
        self.held.store(true, Ordering::Release);
    }

    /// Makes `/ready` answer by the domains' state.
    pub fn release(&self) {
        self.held.store(false, Ordering::Release);
    }
}

/// Stops a gateway. Cheap to clone.
#[derive(Clone)]
pub struct Stop {
    handle: ServerHandle,
    begin: Arc<watch::Sender<bool>>,
}

impl Stop {
    /// Makes `/ready` answer 503 and ends live streams; everything else is still served.
    pub fn drain(&self) {
        self.begin.send_replace(true);
    }

    /// Drains, accepts nothing new, and waits for open requests, for as long as the settings say.
    pub async fn stop(&self) {
        self.drain();
        self.handle.stop(true).await;
    }

    /// Stops at once.
    pub async fn abort(&self) {
        self.drain();
        self.handle.stop(false).await;
    }
}

/// Starts serving. Every worker thread starts its shards, then accepts requests. Signals are the caller's to handle.
///
/// # Errors
/// A sentence for the operator; nothing serves then.
pub async fn serve(gateway: Gateway) -> Result<Serving, GatewayError> {
    let address = gateway.settings.listen;
    let listener = TcpListener::bind(address).map_err(|source| GatewayError::Listen { address, source })?;
    serve_on(listener, gateway).await
}

/// The same on a bound socket, for a caller that must know the port before anything serves.
///
/// # Errors
/// As [`serve`].
pub async fn serve_on(listener: TcpListener, gateway: Gateway) -> Result<Serving, GatewayError> {
    let development = gateway.development;
    let Gateway { settings, runtime, databases, revocations, objects, router, address, issuer, rate_limits, .. } =
        gateway;
    settings.validate().map_err(GatewayError::Settings)?;
    let bound = listener.local_addr().map_err(|source| GatewayError::Listen { address: settings.listen, source })?;
    let configured = settings.public_url.as_ref().map(|url| url.origin().ascii_serialization());
    let address = configured.or(address).unwrap_or_else(|| format!("http://{bound}"));
    databases.migrate(crate::DOMAIN, &crate::MIGRATIONS).await?;
    let internal = |error: &dyn std::fmt::Display| GatewayError::Internal(error.to_string());
    let (begin, begun) = watch::channel(false);
    let metrics = Metrics::new().map_err(|error| internal(&error))?;
    metrics.registry.register(Box::new(router.table().clone())).map_err(|error| internal(&error))?;
    let shared = Arc::new(Shared {
        proxies: TrustedProxies::new(settings.trusted_proxies.clone()),
        limits: Arc::new(Limits::new(&settings.rate_limits, rate_limits)),
        metrics,
        pages: pages::Templates::new().map_err(|error| internal(&error))?,
        stopping: Stopping(begun),
        started: watch::Sender::new(0),
        held: Arc::default(),
        document: OnceLock::new(),
        settings,
        runtime,
        databases,
        revocations,
        sightings: Sightings::default(),
        objects,
        routes: router.table().clone(),
        development,
        issuer: issuer.unwrap_or_else(|| address.clone()),
        address,
    });
    // A mistake in the route table shows here, not on a worker's thread.
    Worker::new(Arc::clone(&shared)).map_err(|error| internal(&error))?;

    let settings = &shared.settings;
    let workers = match settings.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let (follower, bus, live) = (router.clone(), shared.runtime.bus().clone(), shared.runtime.live().clone());
    let factory_shared = Arc::clone(&shared);
    let edge = Edge {
        workers,
        head_timeout: Duration::from_secs(settings.head_timeout_seconds),
        keep_alive: Duration::from_secs(settings.keep_alive_seconds),
        stream_idle: Duration::from_secs(settings.stream_idle_seconds),
        shutdown: Duration::from_secs(settings.shutdown_seconds),
        refused: Some(shared.metrics.refused.clone()),
    };
    let router = router.limited_by(Arc::clone(&shared.limits));
    let application = move || router.in_front_of(App::new().configure(application(&factory_shared)));
    let listening = connection::listen(listener, edge, application);
    let (server, address) = listening.map_err(|source| GatewayError::Listen { address: settings.listen, source })?;
    let handle = server.handle();
    actix_rt::spawn(sweep(Arc::clone(&shared)));
    actix_rt::spawn(async move { follower.follow(bus, live).await });
    let ready = Ready { started: shared.started.subscribe(), workers, held: Arc::clone(&shared.held) };
    Ok(Serving { server, addresses: vec![address], stop: Stop { handle, begin: Arc::new(begin) }, ready })
}

fn application(shared: &Arc<Shared>) -> impl FnOnce(&mut ServiceConfig) + use<> {
    let shared = Arc::clone(shared);
    move |config| {
        let origins = shared.settings.cors_origins.clone();
        let dispatch = Dispatch(shared);
        if origins.is_empty() {
            config.default_service(dispatch);
        } else {
            config.service(web::scope("").wrap(cors(&origins)).default_service(dispatch));
        }
    }
}

/// Named origins, without cookies.
fn cors(origins: &[String]) -> Cors {
    let cors = Cors::default()
        .allowed_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allowed_headers(["authorization", "content-type", "callboard-organization", "idempotency-key", "if-match"])
        .expose_headers(["etag", "link", "location", "retry-after", "x-request-id", "ratelimit"])
        .max_age(600);
    origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin))
}

/// Makes the service of a worker thread, once its shards run.
struct Dispatch(Arc<Shared>);

impl ServiceFactory<ServiceRequest> for Dispatch {
    type Response = ServiceResponse;
    type Error = Error;
    type Config = ();
    type Service = DispatchService;
    type InitError = ();
    type Future = LocalBoxFuture<'static, Result<DispatchService, ()>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let shared = Arc::clone(&self.0);
        async move {
            shared.runtime.attach().await;
            let worker = Worker::new(shared).map_err(|error| tracing::error!(error, "a worker could not start"))?;
            let answers = TracingLogger::<RequestSpan>::new().new_transform(Answers(Rc::clone(&worker))).await?;
            worker.shared.started.send_modify(|started| *started += 1);
            Ok(DispatchService { worker, answers })
        }
        .boxed_local()
    }
}

/// The service that routes a request, and answers it within its span.
struct DispatchService {
    worker: Rc<Worker>,
    answers: Traced,
}

type Traced = <TracingLogger<RequestSpan> as Transform<Answers, ServiceRequest>>::Transform;
type Boxed = fn(ServiceResponse<StreamSpan<BoxBody>>) -> ServiceResponse;

impl Service<ServiceRequest> for DispatchService {
    type Response = ServiceResponse;
    type Error = Error;
    type Future = MapOk<<Traced as Service<ServiceRequest>>::Future, Boxed>;

    actix_service::always_ready!();

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let found = self.worker.table.find(request.method(), request.path());
        request.extensions_mut().insert(Routed(found));
        self.answers.call(request).map_ok(ServiceResponse::map_into_boxed_body)
    }
}

/// Answers routed requests.
struct Answers(Rc<Worker>);

impl Service<ServiceRequest> for Answers {
    type Response = ServiceResponse;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<ServiceResponse, Error>>;

    actix_service::always_ready!();

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let worker = Rc::clone(&self.0);
        async move {
            let (http, payload) = request.into_parts();
            let routed = http.extensions_mut().remove();
            let Routed(found) = routed.unwrap_or_else(|| Routed(worker.table.find(http.method(), http.path())));
            let response = worker.serve(http.clone(), payload, found).await;
            Ok(ServiceResponse::new(http, response))
        }
        .boxed_local()
    }
}

/// Removes expired rate limits, until the node stops.
async fn sweep(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.clone();
    loop {
        tokio::select! {
            () = stopping.begun() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
        shared.limits.sweep();
    }
}
