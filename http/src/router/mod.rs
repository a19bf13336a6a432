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
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_http::{
    Request, Response,
    body::{EitherBody, MessageBody},
};
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use actix_web::dev::AppConfig;
use callboard_supervisors::{Bus, Live, cluster::Members, routing::RoutingTable};
use futures_util::future::LocalBoxFuture;
use ipnet::IpNet;

use body::ResponseBody;
use hop::Hops;
use pool::Pool;

pub use host::app_of;

/// What an operator can set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Apps answer at `<app>.<base domain>`. Default `localhost`.
    pub base_domain: String,
    /// Peers whose `X-Forwarded-*` and `Forwarded` headers are believed and extended. Default none.
    pub trusted_proxies: Vec<IpNet>,
    /// How long an instance may take to begin its answer once it has the request. Default 60 s.
    pub response_timeout: Duration,
    /// How long an instance may take to accept a connection. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a connection to an instance is kept without use. Default 30 s.
    pub idle_timeout: Duration,
    /// Unused connections kept per instance and worker thread. Default 128.
    pub idle_connections: usize,
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
        }
    }
}

impl Settings {
    /// One sentence per mistake.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        let base = self.base_domain.as_str();
        let mut mistakes = Vec::new();
        if base.is_empty() || base.starts_with('.') || base.contains([':', '/', ' ', '*']) {
            mistakes.push(format!("the base domain must be a host name without a port, not {base:?}"));
        }
        if self.response_timeout.is_zero() || self.connect_timeout.is_zero() {
            mistakes.push("the router's timeouts must be longer than zero".to_owned());
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
}

impl Router {
    /// A router over the table that the node's deploy domain writes.
    pub fn new(table: RoutingTable, mut settings: Settings) -> Self {
        settings.base_domain = settings.base_domain.trim_end_matches('.').to_ascii_lowercase();
        Self { table, settings: Arc::new(settings), hops: None }
    }

    /// Among other nodes, which have the same key: requests for their apps are forwarded to them, and theirs taken.
    ///
    /// # Errors
    /// A sentence, when the key can't be used.
    pub fn among(mut self, members: Members, key: &[u8]) -> Result<Self, String> {
        self.hops = Some(Arc::new(Hops::new(members, key)?));
        Ok(self)
    }

    /// Learns for as long as it is polled which apps other nodes run; of a node alone, nothing.
    pub async fn follow(&self, bus: Bus, live: Live) {
        if let Some(hops) = &self.hops {
            follow::follow(self.table.clone(), hops.members.clone(), bus, live).await;
        }
    }

    /// The table, for its writer and for `/metrics` (it is a Prometheus collector).
    pub fn table(&self) -> &RoutingTable {
        &self.table
    }

    /// Puts the router before an application, in the factory of an `HttpServer`: requests to an app's host are
    /// proxied, all others reach the application.
    ///
    /// ```ignore
    /// HttpServer::new(move || router.in_front_of(App::new().configure(api)))
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
    B: MessageBody,
{
    type Response = Response<EitherBody<ResponseBody, B>>;
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

/// What one worker thread needs to proxy a request.
struct Worker {
    router: Router,
    pool: Rc<Pool>,
}

/// Sends a request to the app it names, or else to the application.
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
    B: MessageBody,
{
    type Response = Response<EitherBody<ResponseBody, B>>;
    type Error = S::Error;
    type Future = Answer<S::Future, S::Error, B>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.application.poll_ready(cx)
    }

    fn call(&self, request: Request) -> Self::Future {
        match host::of_request(&request, &self.worker.router.settings.base_domain) {
            Some((app, host)) => {
                let worker = Rc::clone(&self.worker);
                Answer::App(Box::pin(async move { worker.forward(request, app, host).await }), PhantomData)
            }
            None => Answer::Application(Box::pin(self.application.call(request))),
        }
    }
}

/// The future of [`Dispatch`].
pub enum Answer<F, E, B> {
    /// Proxied to an app; never fails, a failure is a page.
    App(LocalBoxFuture<'static, Response<ResponseBody>>, PhantomData<(fn() -> E, B)>),
    /// Left to the application.
    Application(std::pin::Pin<Box<F>>),
}

impl<F, R, E, B> Future for Answer<F, E, B>
where
    F: Future<Output = Result<R, E>>,
    R: Into<Response<B>>,
    B: MessageBody,
{
    type Output = Result<Response<EitherBody<ResponseBody, B>>, E>;

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match unpin(self) {
            Answer::App(answer, _) => {
                answer.as_mut().poll(cx).map(|response| Ok(response.map_body(|_, body| EitherBody::left(body))))
            }
            Answer::Application(answer) => answer
                .as_mut()
                .poll(cx)
                .map(|response| response.map(|response| response.into().map_body(|_, body| EitherBody::right(body)))),
        }
    }
}

impl<F, E, B> Unpin for Answer<F, E, B> {}

fn unpin<T: Unpin>(pinned: std::pin::Pin<&mut T>) -> &mut T {
    pinned.get_mut()
}
