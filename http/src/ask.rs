//! `ask::<M>()`: a route that puts one question to a domain.

use std::{any::TypeId, cell::OnceCell, rc::Rc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode, header},
};
use callboard_messages::{Access, Caller, Cursor, Failure, Operation, Page};
use callboard_supervisors::ActorRef;
use futures_util::{FutureExt, future::LocalBoxFuture};
use serde::{Serialize, de::DeserializeOwned};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    answer::{Answer, JSON},
    idempotency::{self, About},
    limits::Class,
    message::{self, Input},
    openapi::Docs,
    problem::Problem,
    table::Endpoint,
    worker::{Request, Worker},
};

/// A question to a domain, and how its reply becomes an answer.
pub(crate) struct Ask<M: Operation> {
    location: Option<fn(&M::Reply) -> String>,
    under_way: Option<UnderWay<M::Reply>>,
    version: Option<fn(&M::Reply) -> i64>,
    next: Option<Next<M::Reply>>,
    if_match: bool,
    keyed: bool,
    class: Class,
    docs: fn() -> Docs,
}

/// The cursor of the page after this one.
type Next<Reply> = fn(&Reply) -> Option<Cursor>;

/// The address at which the end of what is under way can be seen; `None` when it has ended.
type UnderWay<Reply> = Box<dyn Fn(&Reply) -> Option<String>>;

/// A route that asks `M`. What only the platform may ask does not compile here.
pub(crate) fn ask<M: Operation + ToSchema>() -> Ask<M>
where
    M::Reply: ToSchema,
{
    const {
        assert!(!matches!(M::ACCESS, Access::Internal), "an internal operation is never routed");
    }
    Ask {
        location: None,
        under_way: None,
        version: None,
        next: None,
        if_match: false,
        keyed: true,
        class: Class::Address,
        docs: Docs::of::<M>,
    }
}

impl<M: Operation> Ask<M> {
    /// Answers 201, with the address of what was made.
    pub(crate) fn created(self, location: fn(&M::Reply) -> String) -> Self {
        Self { location: Some(location), ..self }
    }

    /// Answers with an `ETag`, and 304 to a reader that has this version.
    pub(crate) fn versioned(self, version: fn(&M::Reply) -> i64) -> Self {
        Self { version: Some(version), ..self }
    }

    /// Takes `If-Match` as the field `if_match`.
    pub(crate) fn if_match(self) -> Self {
        Self { if_match: true, ..self }
    }

    /// Limited as what takes passwords, and without `Idempotency-Key`: an answer with tokens is never stored.
    pub(crate) fn sign_in(self) -> Self {
        Self { class: Class::SignIn, keyed: false, ..self }
    }

    /// What is told of a reply.
    fn tell(&self, reply: &M::Reply, http: &HttpRequest) -> Result<Answer, Problem> {
        let told = Told {
            is_nothing: TypeId::of::<M::Reply>() == TypeId::of::<()>(),
            under_way: self.under_way.as_ref().map(|under_way| under_way(reply)),
            version: self.version.map(|version| version(reply)),
            location: self.location.map(|location| location(reply)),
            next: self.next.and_then(|next| next(reply)),
        };
        told.answer(http, &|| serde_json::to_vec(reply))
    }
}

impl<T, M> Ask<M>
where
    T: ToSchema + Serialize + DeserializeOwned + Send + 'static,
    M: Operation<Reply = Page<T>> + ToSchema,
{
    /// A list: tells the page after this one in `Link`.
    pub(crate) fn paged(self) -> Self {
        Self { next: Some(|page| page.next), docs: Docs::of_page::<T, M>, ..self }
    }
}

impl<T, M> Ask<M>
where
    T: ToSchema + Serialize + DeserializeOwned + Send + 'static,
    M: Operation<Reply = Option<T>> + ToSchema,
{
    /// Answers 204 when it is done; 202, with what is under way and the address at which its end can be seen, otherwise.
    pub(crate) fn accepted(self, location: fn(&T) -> String) -> Self {
        Self {
            under_way: Some(Box::new(move |reply: &Option<T>| reply.as_ref().map(location))),
            docs: Docs::of_accepted::<T, M>,
            ..self
        }
    }
}

impl<T, M> Ask<M>
where
    T: ToSchema,
    Vec<T>: ToSchema,
    M: Operation<Reply = Vec<T>> + ToSchema,
{
    /// A list without pages: `MOST` at most.
    pub(crate) fn listing<const MOST: usize>(self) -> Self {
        Self { docs: Docs::of_list::<T, M, MOST>, ..self }
    }
}

/// Reads the message of an operation.
trait Read {
    fn read(self: Rc<Self>, input: Input<'_>) -> Result<Box<dyn Message>, message::Error>;
}

/// The message of an operation.
trait Message {
    /// Asks its domain.
    fn ask<'a>(
        self: Box<Self>,
        actor: &'a ActorRef,
        caller: &'a Caller,
        http: &'a HttpRequest,
    ) -> LocalBoxFuture<'a, Result<Answer, Problem>>;
}

struct MessageOf<M: Operation> {
    message: M,
    ask: Rc<Ask<M>>,
}

impl<M: Operation> Read for Ask<M> {
    fn read(self: Rc<Self>, input: Input<'_>) -> Result<Box<dyn Message>, message::Error> {
        Ok(Box::new(MessageOf { message: input.read()?, ask: self }))
    }
}

impl<M: Operation> Message for MessageOf<M> {
    fn ask<'a>(
        self: Box<Self>,
        actor: &'a ActorRef,
        caller: &'a Caller,
        http: &'a HttpRequest,
    ) -> LocalBoxFuture<'a, Result<Answer, Problem>> {
        async move {
            let Self { message, ask } = *self;
            let reply = actor.ask(caller, message).await?;
            ask.tell(&reply, http)
        }
        .boxed_local()
    }
}

/// What is told of a reply, beside the reply itself.
struct Told {
    is_nothing: bool,
    /// Of what may take longer: where its end can be seen, unless it has ended.
    under_way: Option<Option<String>>,
    version: Option<i64>,
    location: Option<String>,
    next: Option<Cursor>,
}

impl Told {
    fn answer(
        self,
        http: &HttpRequest,
        body: &dyn Fn() -> Result<Vec<u8>, serde_json::Error>,
    ) -> Result<Answer, Problem> {
        if self.is_nothing || self.under_way == Some(None) {
            return Ok(Answer::new(StatusCode::NO_CONTENT, JSON, ""));
        }
        let etag = self.version.map(|version| format!("\"{version}\""));
        if http.method().is_safe() && etag.as_deref().is_some_and(|etag| is_known(http, etag)) {
            return Ok(Answer { etag, ..Answer::new(StatusCode::NOT_MODIFIED, JSON, "") });
        }
        let body = body().map_err(|error| Problem::internal(format!("reply: {error}")))?;
        let (status, location) = match (self.under_way.flatten(), self.location) {
            (Some(location), _) => (StatusCode::ACCEPTED, Some(location)),
            (None, Some(location)) => (StatusCode::CREATED, Some(location)),
            (None, None) => (StatusCode::OK, None),
        };
        let link = self.next.map(|cursor| link_to(http, cursor));
        Ok(Answer { etag, location, link, ..Answer::new(status, JSON, body) })
    }
}

const fn has_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

fn is_known(http: &HttpRequest, etag: &str) -> bool {
    let known = http.headers().get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    known.is_some_and(|known| known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag))
}

/// The same list, from the next page on.
fn link_to(http: &HttpRequest, cursor: Cursor) -> String {
    let kept = http.query_string().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let query: String = kept.flat_map(|pair| [pair, "&"]).collect();
    format!("<{}?{query}cursor={}>; rel=\"next\"", http.path(), cursor.0)
}

/// A route that asks, without the types of what it asks.
struct Asking {
    about: About,
    domain: &'static str,
    if_match: bool,
    keyed: bool,
    actor: OnceCell<ActorRef>,
    class: Class,
    access: Access,
    docs: fn() -> Docs,
    message: Rc<dyn Read>,
}

impl Asking {
    async fn perform(self: Rc<Self>, mut request: Request) -> Result<HttpResponse, Problem> {
        let body = if has_body(request.http.method()) {
            let settings = &request.worker.shared.settings;
            message::read_body(&request.http, &mut request.payload, settings.json_limit, settings).await?
        } else {
            bytes::Bytes::new()
        };
        let message = self.read(&request, &body)?;
        if self.keyed
            && request.http.method() == Method::POST
            && let Some(key) = idempotency::key_of(&request)?
        {
            let reservation = idempotency::Reservation::of(&request, self.about, key, &body);
            let (worker, arrival) = (Rc::clone(&request.worker), Rc::clone(&request.arrival));
            let work = |same: Uuid| async move {
                // The outcome of a try may never become known; the next one is to find what it made.
                request.caller.request = Some(same);
                self.execute(&request, message).await
            };
            return idempotency::once(worker, arrival, reservation, work).await;
        }
        self.execute(&request, message).await.map(Answer::into_response)
    }

    fn read(&self, request: &Request, body: &[u8]) -> Result<Box<dyn Message>, Problem> {
        let http = &request.http;
        let mut fields = request.fields()?;
        if self.if_match
            && let Some(version) = message::if_match(http)?
        {
            fields.push(("if_match", version.into()));
        }
        let input = if has_body(http.method()) {
            if !http.query_string().is_empty() {
                return Err(Problem::invalid("this takes no query parameters"));
            }
            message::check_json(http, body)?;
            Input::with_body(fields, body)?
        } else {
            message::push_query(&mut fields, http.query_string())?;
            Input::of(fields)
        };
        Ok(Rc::clone(&self.message).read(input)?)
    }

    async fn execute(&self, request: &Request, message: Box<dyn Message>) -> Result<Answer, Problem> {
        message.ask(self.actor(&request.worker)?, &request.caller, &request.http).await
    }

    fn actor(&self, worker: &Worker) -> Result<&ActorRef, Problem> {
        if let Some(actor) = self.actor.get() {
            return Ok(actor);
        }
        let Some(actor) = worker.bus().actor(self.domain) else {
            return Err(Failure::Unavailable { retry_after: Duration::from_secs(5) }.into());
        };
        Ok(self.actor.get_or_init(|| actor))
    }
}

impl<M: Operation> From<Ask<M>> for Endpoint {
    fn from(ask: Ask<M>) -> Self {
        let traits = Traits {
            creates: ask.location.is_some(),
            accepts: ask.under_way.is_some(),
            versioned: ask.version.is_some(),
            paged: ask.next.is_some(),
        };
        let asking = Asking {
            about: About { operation: M::NAME, timeout: M::TIMEOUT, idempotent: M::IDEMPOTENT },
            domain: M::domain(),
            if_match: ask.if_match,
            keyed: ask.keyed,
            actor: OnceCell::new(),
            class: ask.class,
            access: M::ACCESS,
            docs: ask.docs,
            message: Rc::new(ask),
        };
        asking.endpoint(traits)
    }
}

/// What an answer may be.
struct Traits {
    creates: bool,
    accepts: bool,
    versioned: bool,
    paged: bool,
}

impl Asking {
    fn endpoint(self, traits: Traits) -> Endpoint {
        let Traits { creates, accepts, versioned, paged } = traits;
        let operation = self.about.operation;
        let (access, class, docs, if_match, keyed) = (self.access, self.class, self.docs, self.if_match, self.keyed);
        let asking = Rc::new(self);
        Endpoint {
            operation,
            asks: vec![operation],
            access,
            class: Some(class),
            docs: Some(docs),
            if_match,
            keyed,
            creates,
            accepts,
            locates: creates,
            versioned,
            paged,
            upgrades: false,
            of_dashboard: false,
            handler: Box::new(move |request| Rc::clone(&asking).perform(request).boxed_local()),
        }
    }
}
