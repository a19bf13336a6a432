//! The route table: one value that dispatch, the OpenAPI document and the coverage tests read, so that they can't
//! disagree.

use std::{collections::BTreeSet, ops::Range, rc::Rc};

use actix_web::{HttpResponse, http::Method};
use callboard_messages::{Access, Operation, auth::ValidateToken};
use futures_util::{FutureExt, future::LocalBoxFuture};

use crate::{
    limits::Class,
    metrics::{Metrics, RouteMetrics},
    openapi::Docs,
    problem::Problem,
    worker::Request,
};

/// What answers a request.
pub(crate) type Handler = Box<dyn Fn(Request) -> LocalBoxFuture<'static, Result<HttpResponse, Problem>>>;

/// One line of the table.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// The path's parameters, in order.
    pub(crate) names: Vec<&'static str>,
    pub(crate) endpoint: Endpoint,
}

impl Route {
    /// Whether a request has its fields in a body.
    pub(crate) fn has_body(&self) -> bool {
        matches!(self.method, Method::POST | Method::PUT | Method::PATCH)
    }
}

/// What a line of the table leads to.
pub(crate) struct Endpoint {
    /// `<domain>.<verb>`.
    pub(crate) operation: &'static str,
    /// The operations of domains that it asks, without which it answers nobody.
    pub(crate) asks: Vec<&'static str>,
    pub(crate) access: Access,
    /// What is counted for a caller without credentials; callers with credentials are counted by principal.
    pub(crate) class: Option<Class>,
    /// Absent for pages and probes.
    pub(crate) docs: Option<fn() -> Docs>,
    /// Takes `If-Match`.
    pub(crate) if_match: bool,
    /// Takes `Idempotency-Key`.
    pub(crate) keyed: bool,
    /// Answers 201.
    pub(crate) creates: bool,
    /// Answers 202, and in `Location` where to look, when its work goes on.
    pub(crate) accepts: bool,
    /// Tells in `Location` where that is.
    pub(crate) locates: bool,
    /// Tells a version in `ETag`, and answers 304 to a reader that has it.
    pub(crate) versioned: bool,
    /// Tells the page after this one in `Link`.
    pub(crate) paged: bool,
    /// Answers 101 to whoever asks for a WebSocket.
    pub(crate) upgrades: bool,
    /// A page of the dashboard: leads whoever is not signed in to where that is done.
    pub(crate) of_dashboard: bool,
    pub(crate) handler: Handler,
}

/// An endpoint that is more than one question to a domain.
pub(crate) fn endpoint<F, Fut>(operation: &'static str, access: Access, handler: F) -> Endpoint
where
    F: Fn(Request) -> Fut + 'static,
    Fut: Future<Output = Result<HttpResponse, Problem>> + 'static,
{
    Endpoint {
        operation,
        asks: Vec::new(),
        access,
        class: Some(Class::Address),
        docs: None,
        if_match: false,
        keyed: false,
        creates: false,
        accepts: false,
        locates: false,
        versioned: false,
        paged: false,
        upgrades: false,
        of_dashboard: false,
        handler: Box::new(move |request| handler(request).boxed_local()),
    }
}

impl Endpoint {
    pub(crate) fn documented(self, docs: fn() -> Docs) -> Self {
        Self { docs: Some(docs), ..self }
    }

    /// Asks a domain for this.
    pub(crate) fn asking<M: Operation>(mut self) -> Self {
        self.asks.push(M::NAME);
        self
    }

    /// Makes something, and answers 201.
    pub(crate) fn creating(self) -> Self {
        Self { creates: true, ..self }
    }

    /// May become a WebSocket.
    pub(crate) fn upgrading(self) -> Self {
        Self { upgrades: true, ..self }
    }

    /// A page of the dashboard.
    pub(crate) fn of_dashboard(self) -> Self {
        Self { of_dashboard: true, ..self }
    }

    /// Never limited: probes.
    pub(crate) fn unlimited(self) -> Self {
        Self { class: None, ..self }
    }

    /// Limited as what takes passwords.
    pub(crate) fn limited_as_sign_in(self) -> Self {
        Self { class: Some(Class::SignIn), ..self }
    }
}

/// Lines under a common beginning.
pub(crate) struct Routes {
    prefix: &'static str,
    pub(crate) list: Vec<Route>,
}

impl Routes {
    pub(crate) const fn new(prefix: &'static str) -> Self {
        Self { prefix, list: Vec::new() }
    }

    fn route(mut self, method: Method, path: &'static str, endpoint: Endpoint) -> Self {
        let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        self.list.push(Route { method, path: format!("{}{path}", self.prefix), names, endpoint });
        self
    }

    pub(crate) fn get(self, path: &'static str, endpoint: impl Into<Endpoint>) -> Self {
        self.route(Method::GET, path, endpoint.into())
    }

    pub(crate) fn post(self, path: &'static str, endpoint: impl Into<Endpoint>) -> Self {
        self.route(Method::POST, path, endpoint.into())
    }

    pub(crate) fn put(self, path: &'static str, endpoint: impl Into<Endpoint>) -> Self {
        self.route(Method::PUT, path, endpoint.into())
    }

    pub(crate) fn patch(self, path: &'static str, endpoint: impl Into<Endpoint>) -> Self {
        self.route(Method::PATCH, path, endpoint.into())
    }

    pub(crate) fn delete(self, path: &'static str, endpoint: impl Into<Endpoint>) -> Self {
        self.route(Method::DELETE, path, endpoint.into())
    }
}

/// Finds the line of a request.
pub(crate) struct Table {
    paths: matchit::Router<Methods>,
}

#[derive(Default)]
struct Methods(Vec<Rc<Line>>);

/// A route with its metrics.
pub(crate) struct Line {
    pub(crate) route: Route,
    pub(crate) metrics: RouteMetrics,
    /// What the API's description says that it answers.
    #[cfg(debug_assertions)]
    statuses: std::cell::OnceCell<std::collections::BTreeSet<u16>>,
}

#[cfg(debug_assertions)]
impl Line {
    /// Whether the API's description tells of this status; pages and probes have none.
    pub(crate) fn describes(&self, status: u16) -> bool {
        let Some(docs) = self.route.endpoint.docs else { return true };
        self.statuses.get_or_init(|| crate::openapi::statuses(&self.route, &docs())).contains(&status)
    }
}

/// A line, and where in the path its parameters are.
pub(crate) struct Found {
    pub(crate) line: Rc<Line>,
    pub(crate) values: Vec<Range<usize>>,
}

impl Table {
    /// `Err` names two routes that can't be told apart: a mistake in the program.
    pub(crate) fn new(routes: Vec<Route>, metrics: &Metrics) -> Result<Self, String> {
        let mut grouped: Vec<(String, Methods)> = Vec::new();
        for route in routes {
            let line = Rc::new(Line {
                metrics: metrics.of_route(route.endpoint.operation),
                route,
                #[cfg(debug_assertions)]
                statuses: std::cell::OnceCell::new(),
            });
            match grouped.iter_mut().find(|(path, _)| *path == line.route.path) {
                Some((_, methods)) => methods.0.push(line),
                None => grouped.push((line.route.path.clone(), Methods(vec![line]))),
            }
        }
        let mut paths = matchit::Router::new();
        for (path, methods) in grouped {
            paths.insert(path.clone(), methods).map_err(|error| format!("{path}: {error}"))?;
        }
        Ok(Self { paths })
    }

    pub(crate) fn find(&self, method: &Method, path: &str) -> Result<Found, Problem> {
        let Ok(matched) = self.paths.at(path) else { return Err(Problem::not_found()) };
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        let Some(line) = matched.value.0.iter().find(|line| line.route.method == *wanted) else {
            return Err(Problem::method_not_allowed(matched.value.allow()));
        };
        let mut values = Vec::with_capacity(line.route.names.len());
        for (_, value) in matched.params.iter() {
            // The value is a slice of the path: keep where it is, not what it is.
            let start = value.as_ptr() as usize - path.as_ptr() as usize;
            values.push(start..start + value.len());
        }
        Ok(Found { line: Rc::clone(line), values })
    }
}

impl Methods {
    fn allow(&self) -> String {
        let mut allow: Vec<&str> = self.0.iter().map(|line| line.route.method.as_str()).collect();
        if allow.contains(&"GET") {
            allow.push("HEAD");
        }
        allow.join(", ")
    }
}

/// A line of the table, for tests that walk it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteView {
    /// `GET`, `POST`, ….
    pub method: String,
    /// With `{parameters}`.
    pub path: String,
    /// `<domain>.<verb>`.
    pub operation: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Whether it is part of the documented API, rather than a page or a probe.
    pub documented: bool,
}

/// The operations that routes ask for and that are not among those that domains answer: a gateway without these would
/// refuse requests that its description promises.
#[must_use]
pub fn unanswered<'a>(answered: impl IntoIterator<Item = &'a str>) -> Vec<&'static str> {
    let answered: BTreeSet<&str> = answered.into_iter().collect();
    let routed = crate::routes::all().into_iter().flat_map(|route| route.endpoint.asks);
    // Every request with credentials asks for this besides.
    let asked: BTreeSet<&str> = routed.chain([ValidateToken::NAME]).collect();
    asked.into_iter().filter(|operation| !answered.contains(operation)).collect()
}

/// Every route of the gateway.
#[must_use]
pub fn route_table() -> Vec<RouteView> {
    let view = |route: Route| RouteView {
        method: route.method.to_string(),
        path: route.path,
        operation: route.endpoint.operation,
        access: route.endpoint.access,
        documented: route.endpoint.docs.is_some(),
    };
    crate::routes::all().into_iter().map(view).collect()
}
