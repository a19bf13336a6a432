//! Authentication of requests.
//!
//! A token comes in `Authorization: Bearer` (a JWT or an API key), or in the cookies of the pages. Auth is asked once
//! for its caller; the answer is cached on this thread until the token expires or anything is revoked ([`Memory`]).
//! Browsers send cookies unasked, so a request with cookies that changes state must come from our own pages
//! ([`origin`]); the apps' host names are the same site as ours, therefore `SameSite` alone would not do.

pub(crate) mod cookies;
mod memory;
pub(crate) mod origin;

use actix_web::{HttpRequest, http::header};
use callboard_messages::{
    CallError, Caller, Code, DomainError, OrganizationId, Secret,
    auth::{RefreshToken, Tokens, ValidateToken, Validated},
};
use chrono::{DateTime, Utc};

pub(crate) use memory::Memory;

use crate::{
    limits::Class,
    problem::Problem,
    worker::{Arrival, Worker},
};

/// The header that names the organization to act for.
pub(crate) const ORGANIZATION: &str = "callboard-organization";

/// A caller whose credentials are valid.
pub(crate) struct Session {
    pub(crate) caller: Caller,
    pub(crate) expires_at: DateTime<Utc>,
    /// New tokens, if those in the cookies were refreshed.
    pub(crate) refreshed: Option<Box<Tokens>>,
}

/// Where the token was found.
enum Credentials<'a> {
    Bearer(&'a str),
    Cookies { access: Option<String>, refresh: Option<String> },
}

/// The caller of a request; `Unauthenticated` without valid credentials.
pub(crate) async fn authenticate(worker: &Worker, http: &HttpRequest, from: &Arrival) -> Result<Session, Problem> {
    let named = organization(http)?;
    match credentials(worker, http)? {
        Credentials::Bearer(token) => worker.validate(token, named, from).await,
        Credentials::Cookies { access, refresh } => {
            if !http.method().is_safe() && !origin::is_own(http, worker) {
                return Err(foreign_page());
            }
            let chosen = cookies::organization(http, worker.secure()).filter(|_| named.is_none());
            match from_cookies(worker, access.clone(), refresh.clone(), chosen.or(named), from).await {
                // The organization that the browser chose once is gone, or the person no longer a member.
                Err(problem) if chosen.is_some() && is_not_theirs(&problem) => {
                    from.chosen_is_gone.set(true);
                    from_cookies(worker, access, refresh, None, from).await
                }
                other => other,
            }
        }
    }
}

fn is_not_theirs(problem: &Problem) -> bool {
    [Code::NotFound.as_str(), Code::Forbidden.as_str()].contains(&problem.code)
}

pub(crate) fn foreign_page() -> Problem {
    Problem::of(Code::Forbidden, "a page of another origin may not do this in your name")
}

async fn from_cookies(
    worker: &Worker,
    access: Option<String>,
    refresh: Option<String>,
    organization_id: Option<OrganizationId>,
    from: &Arrival,
) -> Result<Session, Problem> {
    let refused = match access {
        Some(token) => match worker.validate(&token, organization_id, from).await {
            Err(problem) if problem.code == Code::Unauthenticated.as_str() => problem,
            other => return other,
        },
        None => Problem::unauthenticated(),
    };
    let Some(refresh) = refresh else { return Err(refused) };
    worker.admit(Class::SignIn, from).await?;
    let message = RefreshToken { refresh_token: Secret::new(refresh) };
    let tokens = worker.bus().ask(&from.anonymous(), message).await?;
    let mut session = worker.validate(tokens.access_token.expose(), organization_id, from).await?;
    session.refreshed = Some(Box::new(tokens));
    Ok(session)
}

fn organization(http: &HttpRequest) -> Result<Option<OrganizationId>, Problem> {
    let Some(value) = http.headers().get(ORGANIZATION) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    id.map(Some).ok_or_else(|| Problem::invalid("Callboard-Organization must be the id of an organization"))
}

fn credentials<'a>(worker: &Worker, http: &'a HttpRequest) -> Result<Credentials<'a>, Problem> {
    if let Some(value) = http.headers().get(header::AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        return match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() => {
                Ok(Credentials::Bearer(token.trim()))
            }
            _ => Err(Problem {
                detail: "the Authorization header must be: Bearer <token>".into(),
                ..Problem::unauthenticated()
            }),
        };
    }
    let (access, refresh) = cookies::read(http, worker.secure());
    match (access, refresh) {
        (None, None) => Err(Problem::unauthenticated()),
        (access, refresh) => Ok(Credentials::Cookies { access, refresh }),
    }
}

impl Worker {
    /// The caller of a token: cached, or from auth.
    pub(crate) async fn validate(
        &self,
        token: &str,
        organization_id: Option<OrganizationId>,
        from: &Arrival,
    ) -> Result<Session, Problem> {
        let key = memory::key(token, organization_id);
        let now = self.clock().now();
        // In this order: see `Revocations::is_current`.
        let is_current = self.shared.revocations.is_current();
        let epoch = self.shared.revocations.epoch();
        if is_current && let Some((caller, expires_at)) = self.memory.get(&key, epoch, now) {
            let caller = from.sign(caller);
            return Ok(Session { caller, expires_at, refreshed: None });
        }
        // Guesses of tokens are limited by address, before auth has work with them. A token that auth has accepted is
        // no guess: one revocation has every token of every node asked about again, and many may come from one address.
        if !self.memory.knows(&key, now) {
            self.admit(Class::Address, from).await?;
        }
        let validated = self.ask_auth(Secret::new(token), organization_id, from).await.inspect_err(|problem| {
            if !problem.status.is_server_error() {
                self.memory.forget(&key);
            }
        })?;
        self.memory.put(key, validated.caller.clone(), validated.expires_at, epoch, now);
        Ok(Session { caller: from.sign(validated.caller), expires_at: validated.expires_at, refreshed: None })
    }

    /// Asks auth, whatever is cached.
    pub(crate) async fn ask_auth(
        &self,
        token: Secret,
        organization_id: Option<OrganizationId>,
        from: &Arrival,
    ) -> Result<Validated, Problem> {
        let asker = from.anonymous().as_system();
        let revocation_count = self.shared.revocations.count();
        let message = ValidateToken { token, organization_id, revocation_count };
        self.bus().ask(&asker, message).await.map_err(|error| match error {
            // Auth's reasons are not for the caller: it has no valid credentials.
            CallError::Refused(refusal) if refusal.code() == Code::Invalid => {
                Problem { detail: refusal.to_string().into(), ..Problem::unauthenticated() }
            }
            other => other.into(),
        })
    }
}

/// The token of a request, for a stream that outlives the request.
pub(crate) fn token_of(worker: &Worker, http: &HttpRequest, from: &Arrival) -> Option<Secret> {
    if let Some(tokens) = &*from.refreshed.borrow() {
        return Some(tokens.access_token.clone());
    }
    match credentials(worker, http).ok()? {
        Credentials::Bearer(token) => Some(Secret::new(token)),
        Credentials::Cookies { access, .. } => access.map(Secret::new),
    }
}

/// The organization that a request names, for such a stream.
pub(crate) fn organization_of(worker: &Worker, http: &HttpRequest, from: &Arrival) -> Option<OrganizationId> {
    let chosen = || {
        let by_cookies = !http.headers().contains_key(header::AUTHORIZATION) && !from.chosen_is_gone.get();
        by_cookies.then(|| cookies::organization(http, worker.secure())).flatten()
    };
    organization(http).ok().flatten().or_else(chosen)
}
