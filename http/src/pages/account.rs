//! The person's own account: who one is, and where one is signed in.

use actix_web::HttpResponse;
use callboard_messages::{
    SessionId,
    auth::{Identity, ListSessions, LogoutAll, RevokeSession, Session, WhoAmI},
};
use serde::Serialize;

use super::{confirm::Confirm, form, redirect, request::PageRequest};
use crate::{problem::Problem, session::cookies};

#[derive(Serialize)]
struct AccountView {
    identity: Identity,
    sessions: Vec<Session>,
}

pub(crate) async fn account(request: PageRequest) -> Result<HttpResponse, Problem> {
    let identity = request.ask(WhoAmI {}).await?;
    let sessions = request.ask(ListSessions {}).await?;
    request.render("account.html", &AccountView { identity, sessions }).await
}

/// Ends one session.
pub(crate) async fn end_session(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    request.form(form::SHORT).await?;
    let session_id: SessionId = request.id("session_id")?;
    let is_own = request.caller().session_id == Some(session_id);
    let outcome = request.ask(RevokeSession { session_id }).await;
    if is_own && outcome.is_ok() {
        return Ok(signed_out(&request));
    }
    request.acted(outcome, "/account", "The session has ended.")
}

/// Asks before every session ends.
pub(crate) async fn confirm_end_all(request: PageRequest) -> Result<HttpResponse, Problem> {
    let sessions = request.ask(ListSessions {}).await?.len();
    Confirm::of("Sign out everywhere?", "/account/sign-out-everywhere", "Sign out everywhere")
        .goes(match sessions {
            1 => "This session ends.".to_owned(),
            count => format!("All {count} sessions end, this one too."),
        })
        .note("API keys stay valid.")
        .back("/account")
        .show(&request)
        .await
}

/// Ends every session.
pub(crate) async fn end_all(mut request: PageRequest) -> Result<HttpResponse, Problem> {
    request.form(form::SHORT).await?;
    match request.ask(LogoutAll {}).await {
        Ok(()) => Ok(signed_out(&request)),
        refused => request.acted(refused, "/account", ""),
    }
}

fn signed_out(request: &PageRequest) -> HttpResponse {
    let mut response = redirect("/sign-in");
    cookies::clear(&mut response, request.worker().secure());
    response
}
