//! The service that handles every request, on the worker thread that accepted it.
//!
//! It takes the place of a stack of middlewares: it names the request, admits the caller, catches panics, and sets the
//! response's headers. It is made for every worker thread, after that thread's shards.

use std::{
    cell::{Cell, RefCell},
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use actix_web::{HttpRequest, HttpResponse, dev::Payload, http::header};
use callboard_messages::{
    Access, Caller, Code, Failure, Principal,
    auth::{ADMINISTER, Tokens},
};
use callboard_supervisors::{
    Bus, Clock,
    db::Database,
    trace::{self, Scope, TraceId},
};
use futures_util::FutureExt;
use tokio::sync::OnceCell;
use tracing::{Span, field};
use uuid::Uuid;

use crate::{
    address::{self, Client},
    headers,
    limits::{Class, Left},
    message::{self, Fields},
    pages,
    problem::Problem,
    server::Shared,
    session::{self, Memory, Session, cookies},
    span,
    table::{Found, Line, Table},
};

/// Operation of requests without a route, in the log.
const UNROUTED: &str = "gateway.unrouted";

/// The gateway's state on one worker thread.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) table: Table,
    pub(crate) memory: Memory,
    database: OnceCell<Database>,
}

/// A request's identity and origin, before authentication.
pub(crate) struct Arrival {
    pub(crate) request_id: Uuid,
    /// One id through every hop: the trace of `traceparent`, or else the request's own.
    pub(crate) correlation_id: Uuid,
    pub(crate) client: Client,
    user_agent: Option<Arc<str>>,
    left: Cell<Option<Left>>,
    pub(crate) refreshed: RefCell<Option<Box<Tokens>>>,
    /// Set when the organization that the browser chose is none of the person's any more.
    pub(crate) chosen_is_gone: Cell<bool>,
}

/// An authenticated request for its handler.
pub(crate) struct Request {
    pub(crate) worker: Rc<Worker>,
    pub(crate) http: HttpRequest,
    pub(crate) payload: Payload,
    pub(crate) arrival: Rc<Arrival>,
    pub(crate) caller: Caller,
    pub(crate) found: Found,
}

impl Request {
    /// The path's parameters as fields of a message.
    pub(crate) fn fields(&self) -> Result<Fields<'_>, Problem> {
        let path = self.http.path();
        let mut fields = Fields::with_capacity(self.found.values.len() + 1);
        for (name, range) in self.found.line.route.names.iter().zip(&self.found.values) {
            fields.push((name, message::decode(path.get(range.clone()).unwrap_or_default(), false)?));
        }
        Ok(fields)
    }
}

impl Arrival {
    fn of(http: &HttpRequest, shared: &Shared, wants_agent: bool, span: &Span) -> Self {
        let client = shared.proxies.client(http);
        let given = || http.headers().get(headers::X_REQUEST_ID)?.to_str().ok()?.parse().ok();
        // Only a trusted proxy may set the id: any other client could pose as another request in the log.
        let request_id = client.proxied.then(given).flatten().unwrap_or_else(Uuid::now_v7);
        let given = || trace::trace_of(headers::traceparent(http.headers())?);
        let correlation_id = trace::trace_id(span).or_else(given).map_or(request_id, TraceId::as_uuid);
        let agent = || http.headers().get(header::USER_AGENT)?.to_str().ok();
        let user_agent =
            wants_agent.then(agent).flatten().map(|agent| agent.chars().take(256).collect::<String>().into());
        Self {
            request_id,
            correlation_id,
            client,
            user_agent,
            left: Cell::new(None),
            refreshed: RefCell::new(None),
            chosen_is_gone: Cell::new(false),
        }
    }

    /// A caller without credentials, at this address.
    pub(crate) fn anonymous(&self) -> Caller {
        Caller {
            correlation_id: self.correlation_id,
            request: Some(self.request_id),
            address: Some(self.client.address),
            user_agent: self.user_agent.clone(),
            ..Caller::default()
        }
    }

    /// An authenticated caller, with this request's ids.
    pub(crate) fn sign(&self, caller: Caller) -> Caller {
        Caller {
            correlation_id: self.correlation_id,
            request: Some(self.request_id),
            address: Some(self.client.address),
            ..caller
        }
    }
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Rc<Self>, String> {
        let table = Table::new(crate::routes::all(), &shared.metrics)?;
        Ok(Rc::new(Self { shared, table, memory: Memory::default(), database: OnceCell::new() }))
    }

    pub(crate) fn bus(&self) -> &Bus {
        self.shared.runtime.bus()
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.shared.runtime.clock()
    }

    /// Whether cookies are for TLS only.
    pub(crate) fn secure(&self) -> bool {
        self.shared.settings.is_https()
    }

    /// The gateway's own database, on this thread.
    pub(crate) async fn database(&self) -> Result<&Database, Failure> {
        self.database.get_or_try_init(|| self.shared.databases.open(crate::DOMAIN)).await.map_err(Failure::from)
    }

    /// Counts the request against its address.
    pub(crate) async fn admit(&self, class: Class, from: &Arrival) -> Result<(), Problem> {
        self.count(class, address::bucket(from.client.address), from).await
    }

    async fn count(&self, class: Class, subject: u128, from: &Arrival) -> Result<(), Problem> {
        match self.shared.limits.take(class, subject).await {
            Ok(left) => {
                from.left.set(left);
                Ok(())
            }
            Err(retry_after) => Err(Problem::rate_limited(retry_after)),
        }
    }

    /// Handles a request. There always is a response.
    pub(crate) async fn serve(
        self: Rc<Self>,
        http: HttpRequest,
        payload: Payload,
        found: Result<Found, Problem>,
    ) -> HttpResponse {
        let began = Instant::now();
        let public = found.as_ref().is_ok_and(|found| found.line.route.endpoint.access == Access::Public);
        let span = span::of(&http);
        let arrival = Rc::new(Arrival::of(&http, &self.shared, public, &span));
        let operation = found.as_ref().map_or(UNROUTED, |found| found.line.route.endpoint.operation);
        let scope = Scope::new(arrival.correlation_id, operation, &span);
        let (line, outcome) = match found {
            Ok(found) => {
                let line = Rc::clone(&found.line);
                let work = Rc::clone(&self).handle(found, http.clone(), payload, Rc::clone(&arrival));
                span.record("request_id", field::display(arrival.request_id));
                let outcome = scope.run(AssertUnwindSafe(work).catch_unwind()).await;
                (Some(line), outcome.unwrap_or_else(|panic| Err(Problem::internal(said(&*panic)))))
            }
            // A request without a route costs its address as much as a public one.
            Err(problem) => (None, Err(self.admit(Class::Address, &arrival).await.err().unwrap_or(problem))),
        };
        #[cfg(debug_assertions)]
        let outcome = described(line.as_deref(), outcome);
        // Log lines from here on belong to this request too.
        let _entered = scope.enter();
        let mut response = match outcome {
            Ok(response) => response,
            Err(problem) => self.refuse(&problem, &http, &arrival, line.as_deref()),
        };
        self.finish(&mut response, &arrival);
        let (status, took) = (response.status().as_u16(), began.elapsed());
        match &line {
            Some(line) => line.metrics.observe(status, took),
            None => self.shared.metrics.unrouted(),
        }
        tracing::debug!(
            target: "callboard::access",
            method = %http.method(),
            path = http.path(),
            status,
            micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            address = %arrival.client.address,
            request_id = %arrival.request_id,
        );
        response
    }

    async fn handle(
        self: Rc<Self>,
        found: Found,
        http: HttpRequest,
        payload: Payload,
        arrival: Rc<Arrival>,
    ) -> Result<HttpResponse, Problem> {
        let endpoint = &found.line.route.endpoint;
        headers::check_single(http.headers())?;
        let caller = match endpoint.access {
            Access::Public => {
                if let Some(class) = endpoint.class {
                    self.admit(class, &arrival).await?;
                }
                arrival.anonymous()
            }
            access => match self.admit_caller(&http, &arrival, access).await {
                Ok(session) => session.caller,
                Err(problem) if endpoint.of_dashboard && is_unauthenticated(&problem) && pages::wants_page(&http) => {
                    self.admit(Class::Address, &arrival).await?;
                    let caller = arrival.anonymous();
                    return pages::signed_out(Request { worker: self, http, payload, arrival, caller, found }).await;
                }
                Err(problem) => return Err(problem),
            },
        };
        let line = Rc::clone(&found.line);
        let request = Request { worker: self, http, payload, arrival, caller, found };
        (line.route.endpoint.handler)(request).await
    }

    async fn admit_caller(&self, http: &HttpRequest, arrival: &Arrival, access: Access) -> Result<Session, Problem> {
        let mut session = session::authenticate(self, http, arrival).await?;
        if let Some(tokens) = session.refreshed.take() {
            *arrival.refreshed.borrow_mut() = Some(tokens);
        }
        let caller = &session.caller;
        let key = caller.api_key_id.map(|id| id.0).or(caller.user_id.map(|id| id.0));
        let subject = key.map_or_else(|| address::bucket(arrival.client.address), |id| id.as_u128());
        self.count(Class::Principal, subject, arrival).await?;
        // The domain checks again; checking here first avoids reading a forbidden caller's body.
        match access {
            Access::Permission(permission) if !caller.scopes.allows(permission) => {
                Err(Failure::Forbidden(permission.into()).into())
            }
            Access::Personal(permission)
                if caller.principal == Principal::ApiKey && !caller.scopes.allows(permission) =>
            {
                Err(Failure::Forbidden(permission.into()).into())
            }
            Access::Administrator if !caller.administrator => Err(Failure::Forbidden(ADMINISTER.into()).into()),
            Access::Internal => Err(Problem::not_found()),
            _ => Ok(session),
        }
    }

    fn refuse(&self, problem: &Problem, http: &HttpRequest, arrival: &Arrival, line: Option<&Line>) -> HttpResponse {
        if let Some(cause) = &problem.cause {
            let operation = line.map_or("-", |line| line.route.endpoint.operation);
            tracing::error!(operation, request_id = %arrival.request_id, cause = cause.escape_debug().to_string(), "fault");
        }
        if pages::wants_page(http) {
            return pages::problem(self, problem, http, arrival);
        }
        problem.respond(arrival.request_id)
    }

    fn finish(&self, response: &mut HttpResponse, arrival: &Arrival) {
        if let Some(tokens) = arrival.refreshed.borrow_mut().take() {
            cookies::set(response, &tokens, self.secure());
        }
        if arrival.chosen_is_gone.get() {
            cookies::set_organization(response, None, self.secure());
        }
        let headers = response.headers_mut();
        headers::secure(headers, arrival.request_id, self.secure());
        if let Some(left) = arrival.left.get() {
            self.shared.limits.tell(left, headers);
        }
    }
}

/// Fails a test that meets a response that the API's description lacks.
#[cfg(debug_assertions)]
fn described(line: Option<&Line>, outcome: Result<HttpResponse, Problem>) -> Result<HttpResponse, Problem> {
    let status = outcome.as_ref().map_or_else(|problem| problem.status, HttpResponse::status).as_u16();
    match line {
        Some(line) if !line.describes(status) => {
            let operation = line.route.endpoint.operation;
            Err(Problem::internal(format!("the description of {operation} has no status {status}")))
        }
        _ => outcome,
    }
}

fn is_unauthenticated(problem: &Problem) -> bool {
    problem.code == Code::Unauthenticated.as_str()
}

/// The message of a panic.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without a text"))
}
