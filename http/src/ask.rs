//! `ask::<M>()`: a route that puts one question to a domain.

use std::{any::TypeId, cell::OnceCell, rc::Rc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode, header},
};
use callboard_messages::{Access, Cursor, Failure, Operation, Page};
use callboard_supervisors::ActorRef;
use futures_util::FutureExt;
use serde::{Serialize, de::DeserializeOwned};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    answer::{Answer, JSON},
    idempotency,
    limits::Class,
    message,
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
    actor: OnceCell<ActorRef>,
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
        actor: OnceCell::new(),
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

    fn message(&self, request: &Request, body: &[u8]) -> Result<M, Problem> {
        let http = &request.http;
        let mut fields = request.fields()?;
        if self.if_match
            && let Some(version) = message::if_match(http)?
        {
            fields.push(("if_match", version.into()));
        }
        if has_body(http.method()) {
            if !http.query_string().is_empty() {
                return Err(Problem::invalid("this takes no query parameters"));
            }
            message::check_json(http, body)?;
            return message::with_body(fields, body);
        }
        message::push_query(&mut fields, http.query_string())?;
        message::without_body(fields)
    }

    fn actor(&self, worker: &Worker) -> Result<&ActorRef, Problem> {
        if let Some(actor) = self.actor.get() {
            return Ok(actor);
        }
        let Some(actor) = worker.bus().actor(M::domain()) else {
            return Err(Failure::Unavailable { retry_after: std::time::Duration::from_secs(5) }.into());
        };
        Ok(self.actor.get_or_init(|| actor))
    }

    fn answer(&self, reply: &M::Reply, http: &HttpRequest) -> Result<Answer, Problem> {
        if TypeId::of::<M::Reply>() == TypeId::of::<()>() {
            return Ok(Answer::new(StatusCode::NO_CONTENT, JSON, ""));
        }
        let under_way = self.under_way.as_ref().map(|under_way| under_way(reply));
        if under_way == Some(None) {
            return Ok(Answer::new(StatusCode::NO_CONTENT, JSON, ""));
        }
        let etag = self.version.map(|version| format!("\"{}\"", version(reply)));
        if http.method().is_safe() && etag.as_deref().is_some_and(|etag| is_known(http, etag)) {
            return Ok(Answer { etag, ..Answer::new(StatusCode::NOT_MODIFIED, JSON, "") });
        }
        let body = serde_json::to_vec(reply).map_err(|error| Problem::internal(format!("reply: {error}")))?;
        let (status, location) = match (under_way.flatten(), self.location) {
            (Some(location), _) => (StatusCode::ACCEPTED, Some(location)),
            (None, Some(location)) => (StatusCode::CREATED, Some(location(reply))),
            (None, None) => (StatusCode::OK, None),
        };
        Ok(Answer {
            etag,
            location,
            link: self.next.and_then(|next| next(reply)).map(|cursor| link_to(http, cursor)),
            ..Answer::new(status, JSON, body)
        })
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

async fn perform<M: Operation>(ask: Rc<Ask<M>>, mut request: Request) -> Result<HttpResponse, Problem> {
    let body = if has_body(request.http.method()) {
        let settings = &request.worker.shared.settings;
        message::read_body(&request.http, &mut request.payload, settings.json_limit, settings).await?
    } else {
        bytes::Bytes::new()
    };
    let message = ask.message(&request, &body)?;
    if ask.keyed
        && request.http.method() == Method::POST
        && let Some(key) = idempotency::key_of(&request)?
    {
        let reservation = idempotency::Reservation::of::<M>(&request, key, &body);
        let (worker, arrival) = (Rc::clone(&request.worker), Rc::clone(&request.arrival));
        let work = |same: Uuid| async move {
            // The outcome of a try may never become known; the next one is to find what it made.
            request.caller.request = Some(same);
            execute(&ask, &request, message).await
        };
        return idempotency::once(worker, arrival, reservation, work).await;
    }
    execute(&ask, &request, message).await.map(Answer::into_response)
}

async fn execute<M: Operation>(ask: &Ask<M>, request: &Request, message: M) -> Result<Answer, Problem> {
    let reply = ask.actor(&request.worker)?.ask(&request.caller, message).await?;
    ask.answer(&reply, &request.http)
}

impl<M: Operation> From<Ask<M>> for Endpoint {
    fn from(ask: Ask<M>) -> Self {
        let (if_match, keyed, class, docs) = (ask.if_match, ask.keyed, ask.class, ask.docs);
        let (creates, versioned, paged) = (ask.location.is_some(), ask.version.is_some(), ask.next.is_some());
        let accepts = ask.under_way.is_some();
        let ask = Rc::new(ask);
        Self {
            operation: M::NAME,
            asks: vec![M::NAME],
            access: M::ACCESS,
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
            handler: Box::new(move |request| perform(Rc::clone(&ask), request).boxed_local()),
        }
    }
}
