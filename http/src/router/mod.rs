//! The reverse proxy in front of the apps: `http://<app>.<base domain>` on the gateway's own port.
//!
//! The router stands before the actix-web `App`, not in it ([`Router::in_front_of`]): a request for an app passes no
//! middleware of the API (no compression, limits, CORS or security headers that are not the app's own), and costs
//! neither its routing nor its spans. Which instance answers is in the shared [`RoutingTable`].
//!
//! Everything happens on the worker thread that accepted the client: its connections to the instances are its own
//! (`pool`), so a request crosses no thread and takes no lock. Bodies stream both ways, a slow reader holds back
//! the writer (`body`). What a client sees when no instance gave an answer is in `failure`.
//!
//! An app that another node runs is asked for there (`choose`, `hop`): the request goes to that node's router as the client
//! wrote it, at most one node further. Which node that is, `follow` keeps learning.
//!
//! Limits that follow from HTTP/1.1 as actix-web and hyper speak it: the only protocol to upgrade to is WebSocket;
//! trailers and interim responses (103) are not passed on; `100 Continue` is answered here, before the instance is
//! asked.

mod body;
mod census;
mod choose;
mod failure;
mod follow;
mod forward;
mod headers;
mod hop;
mod host;
mod pool;
#[cfg(test)]
mod tests;
mod upgrade;

use std::{
    future::Future,
    marker::PhantomData,
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_http::{
    Method, Request, RequestHead, Response, Version,
    body::{BodySize, EitherBody, MessageBody},
};
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use actix_web::dev::AppConfig;
use callboard_platform::{cluster::Members, routing::RoutingTable};
use callboard_supervisors::{Bus, Live};
use futures_util::future::LocalBoxFuture;
use ipnet::IpNet;

use body::{Answered, ResponseBody};
use census::{Census, Visit};
use hop::Hops;
use pool::Pool;

use crate::{
    address::TrustedProxies,
    connection::{Turn, Turns},
    limits::Limits,
};

pub use host::app_of;

/// Settings of the router.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Apps answer at `<app>.<base domain>`. Default: `localhost`.
    pub base_domain: String,
    /// Peers whose `X-Forwarded-*` and `Forwarded` headers are trusted and extended. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Time limit of the beginning of an instance's response once it has the request. Default: 60 s.
    pub response_timeout: Duration,
    /// Time limit of connecting to an instance. Default: 5 s.
    pub connect_timeout: Duration,
    /// How long an idle connection to an instance is kept. Default: 30 s.
    pub idle_timeout: Duration,
    /// Idle connections kept per instance and worker thread. Default: 128.
    pub idle_connections: usize,
    /// How long an instance may wait for a request's body, in all. Default: 30 s.
    pub body_timeout: Duration,
    /// For this many bytes of a body a second is added to its time. Default: 1 KiB.
    pub body_rate: u64,
    /// Requests, streams and WebSockets in flight of one app on this node. Default: 4,096.
    pub app_requests: usize,
    /// Of these, for all apps together, those of one client address (IPv6: each /64). Default: 1,024.
    pub address_requests: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            base_domain: "localhost".to_owned(),
            trusted_proxies: Vec::new(),
            response_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            idle_connections: 128,
            body_timeout: Duration::from_secs(30),
            body_rate: 1024,
            app_requests: 4096,
            address_requests: 1024,
        }
    }
}

impl Settings {
    /// A sentence for each invalid setting.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let base = self.base_domain.as_str();
        let mut mistakes = Vec::new();
        if base.is_empty() || base.starts_with('.') || base.contains([':', '/', ' ', '*']) {
            mistakes.push(format!("the base domain must be a host name without a port, not {base:?}"));
        }
        if self.response_timeout.is_zero() || self.connect_timeout.is_zero() {
            mistakes.push("the router's timeouts must be longer than zero".to_owned());
        }
        if self.app_requests == 0 || self.address_requests == 0 || self.body_rate == 0 {
            mistakes.push("the router's bounds must be above zero".to_owned());
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.is_some_and(|peer| self.trusted_proxies.iter().any(|network| network.contains(&peer.to_canonical())))
    }
}

/// Serves the apps of a [`RoutingTable`]; clones share it.
#[derive(Clone)]
pub struct Router {
    table: RoutingTable,
    settings: Arc<Settings>,
    hops: Option<Arc<Hops>>,
    proxies: TrustedProxies,
    census: Arc<Census>,
    /// Limits of requests for apps that do not exist.
    limits: Option<Arc<Limits>>,
}

impl Router {
    /// A router over the table that the node's deploy domain writes.
    pub fn new(table: RoutingTable, mut settings: Settings) -> Self {
        settings.base_domain = settings.base_domain.trim_end_matches('.').to_ascii_lowercase();
        let proxies = TrustedProxies::new(settings.trusted_proxies.clone());
        let census = Census::new(settings.address_requests);
        Self { table, settings: Arc::new(settings), hops: None, proxies, census, limits: None }
    }

    /// Counts requests for apps that do not exist against these limits.
    pub(crate) fn limited_by(self, limits: Arc<Limits>) -> Self {
        Self { limits: Some(limits), ..self }
    }

    /// Joins other nodes, which have the same key: requests for their apps are forwarded to them, and theirs accepted.
    ///
    /// # Errors
    /// A sentence, when the key can't be used.
    pub fn among(mut self, members: Members, key: &[u8]) -> Result<Self, String> {
        self.hops = Some(Arc::new(Hops::new(members, key)?));
        Ok(self)
    }

    /// Follows which apps other nodes run, for as long as it is polled; does nothing on a node that is alone.
    pub async fn follow(&self, bus: Bus, live: Live) {
        if let Some(hops) = &self.hops {
            follow::follow(self.table.clone(), hops.members.clone(), bus, live).await;
        }
    }

    /// The table, for its writer and for `/metrics` (it is a Prometheus collector).
    pub fn table(&self) -> &RoutingTable {
        &self.table
    }

    /// Puts the router before an application, in the factory of a server: requests to an app's host are proxied, all
    /// others reach the application.
    ///
    /// ```ignore
    /// callboard_http::listen(listener, edge, move || router.in_front_of(App::new().configure(api)))
    /// ```
    pub fn in_front_of<I, S, B>(&self, application: I) -> InFrontOf<S, B>
    where
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig>,
        S::Response: Into<Response<B>>,
        B: MessageBody,
    {
        InFrontOf { router: self.clone(), application: application.into_factory(), body: PhantomData }
    }
}

/// The factory that [`Router::in_front_of`] makes: one service per worker thread.
pub struct InFrontOf<S, B> {
    router: Router,
    application: S,
    body: PhantomData<B>,
}

impl<S, B> ServiceFactory<Request> for InFrontOf<S, B>
where
    S: ServiceFactory<Request, Config = AppConfig>,
    S::Response: Into<Response<B>>,
    S::Service: 'static,
    S::Future: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + Unpin + 'static,
{
    type Response = Response<Answered<B>>;
    type Error = S::Error;
    type Config = AppConfig;
    type Service = Dispatch<S::Service, B>;
    type InitError = S::InitError;
    type Future = LocalBoxFuture<'static, Result<Self::Service, Self::InitError>>;

    fn new_service(&self, config: AppConfig) -> Self::Future {
        let application = self.application.new_service(config);
        let router = self.router.clone();
        Box::pin(async move {
            let application = application.await?;
            let pool = Pool::start(&router.settings, &router.table);
            let worker = Rc::new(Worker { router, pool });
            Ok(Dispatch { worker, application, body: PhantomData })
        })
    }
}

/// The router's state on one worker thread.
struct Worker {
    router: Router,
    pool: Rc<Pool>,
}

/// The service that sends a request to the app it names, or else to the application.
pub struct Dispatch<S, B> {
    worker: Rc<Worker>,
    application: S,
    body: PhantomData<B>,
}

impl<S, B> Service<Request> for Dispatch<S, B>
where
    S: Service<Request>,
    S::Response: Into<Response<B>>,
    S::Future: 'static,
    B: MessageBody + Unpin + 'static,
{
    type Response = Response<Answered<B>>;
    type Error = S::Error;
    type Future = Answer<S::Future, S::Error, B>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.application.poll_ready(cx)
    }

    fn call(&self, request: Request) -> Self::Future {
        let turn = request.conn_data::<Turns>().map(Turns::take);
        let can_be_chunked = can_be_chunked(request.head());
        let source = match host::of_request(&request, &self.worker.router.settings.base_domain) {
            Some((app, host)) => {
                if let Some(turn) = &turn {
                    turn.watch();
                }
                let worker = Rc::clone(&self.worker);
                Source::App(Box::pin(async move { worker.forward(request, app, host).await }), PhantomData)
            }
            None => Source::Application(Box::pin(self.application.call(request))),
        };
        Answer { source, turn, can_be_chunked }
    }
}

fn can_be_chunked(head: &RequestHead) -> bool {
    head.version == Version::HTTP_11 && head.method != Method::HEAD && !headers::names_websocket(head)
}

/// The future of [`Dispatch`].
pub struct Answer<F, E, B> {
    source: Source<F, E, B>,
    turn: Option<Turn>,
    /// Whether the client understands chunks, and no other framing was agreed on.
    can_be_chunked: bool,
}

/// An app's response, and its client's count among those of one address.
type Proxied = (Response<ResponseBody>, Option<Visit>);

/// The source of the response.
enum Source<F, E, B> {
    /// An app; never fails, because a failure is a page.
    App(LocalBoxFuture<'static, Proxied>, PhantomData<(fn() -> E, B)>),
    /// The application behind the router.
    Application(Pin<Box<F>>),
}

impl<F, R, E, B> Future for Answer<F, E, B>
where
    F: Future<Output = Result<R, E>>,
    R: Into<Response<B>>,
    B: MessageBody + Unpin + 'static,
{
    type Output = Result<Response<Answered<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (response, visit) = match &mut this.source {
            Source::App(answer, _) => {
                let (response, visit) = ready!(answer.as_mut().poll(cx));
                (response.map_body(|_, body| EitherBody::left(body)), visit)
            }
            Source::Application(answer) => {
                (ready!(answer.as_mut().poll(cx))?.into().map_body(|_, body| EitherBody::right(body)), None)
            }
        };
        let turn = this.turn.take();
        if let Some(turn) = &turn {
            let head = response.head();
            let is_stream = response.body().size() == BodySize::Stream && !head.status.is_informational();
            turn.answer(this.can_be_chunked && is_stream && head.chunked());
        }
        Poll::Ready(Ok(response.map_body(|_, body| Answered::new(body, turn, visit))))
    }
}

impl<F, E, B> Unpin for Answer<F, E, B> {}
