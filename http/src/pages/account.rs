//! Set-up, sign-in and sign-out: plain forms.

use std::collections::HashMap;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use callboard_messages::{
    Secret,
    auth::{Login, Logout, Register, Tokens},
};
use serde::Serialize;
use url::form_urlencoded;

use super::{page, redirect};
use crate::{
    message,
    problem::Problem,
    session::{self, cookies, origin},
    worker::Request,
};

/// Largest form, in bytes: a few short fields.
const FORM: usize = 16 * 1024;

#[derive(Default, Serialize)]
struct FormView {
    error: Option<String>,
    token: String,
    name: String,
    email: String,
}

pub(crate) async fn sign_in_form(request: Request) -> Result<HttpResponse, Problem> {
    page(&request.worker, StatusCode::OK, "sign_in.html", &FormView::default())
}

pub(crate) async fn sign_in(mut request: Request) -> Result<HttpResponse, Problem> {
    let mut form = read(&mut request).await?;
    let email = take(&mut form, "email");
    let login = Login {
        email: email.clone(),
        password: Secret::new(take(&mut form, "password")),
        device: cookies::device(&request.http, request.worker.secure()),
        replaces: replaced(&request),
    };
    match request.worker.bus().ask(&request.caller, login).await {
        Ok(tokens) => Ok(signed_in(&request, &tokens)),
        Err(error) => again(&request, "sign_in.html", error.into(), FormView { email, ..FormView::default() }),
    }
}

/// The registration form, behind the one-time set-up link or an invitation.
pub(crate) async fn setup_form(request: Request) -> Result<HttpResponse, Problem> {
    let mut query: HashMap<String, String> =
        form_urlencoded::parse(request.http.query_string().as_bytes()).into_owned().collect();
    let view = FormView { token: take(&mut query, "token"), ..FormView::default() };
    page(&request.worker, StatusCode::OK, "setup.html", &view)
}

pub(crate) async fn setup(mut request: Request) -> Result<HttpResponse, Problem> {
    let mut form = read(&mut request).await?;
    let view = FormView {
        error: None,
        token: take(&mut form, "token"),
        name: take(&mut form, "name"),
        email: take(&mut form, "email"),
    };
    let given = |text: &String| (!text.trim().is_empty()).then(|| text.clone());
    let register = Register {
        email: view.email.clone(),
        password: Secret::new(take(&mut form, "password")),
        name: given(&view.name),
        invitation: given(&view.token).map(Secret::new),
        replaces: replaced(&request),
    };
    match request.worker.bus().ask(&request.caller, register).await {
        Ok(tokens) => Ok(signed_in(&request, &tokens)),
        Err(error) => again(&request, "setup.html", error.into(), view),
    }
}

pub(crate) async fn sign_out(request: Request) -> Result<HttpResponse, Problem> {
    if !origin::is_own(&request.http, &request.worker) {
        return Err(session::foreign_page());
    }
    // The browser's cookies are cleared with or without a session.
    if let Ok(session) = session::authenticate(&request.worker, &request.http, &request.arrival).await {
        request.worker.bus().ask(&session.caller, Logout {}).await?;
    }
    let mut response = redirect("/sign-in");
    cookies::clear(&mut response, request.worker.secure());
    Ok(response)
}

/// The refresh token of the browser's current session.
fn replaced(request: &Request) -> Option<Secret> {
    let (_, refresh) = cookies::read(&request.http, request.worker.secure());
    refresh.map(Secret::new)
}

fn signed_in(request: &Request, tokens: &Tokens) -> HttpResponse {
    let mut response = redirect("/");
    cookies::set(&mut response, tokens, request.worker.secure());
    response
}

/// The form again, with the refusal; a failure of ours is a page of its own.
fn again(request: &Request, name: &str, problem: Problem, view: FormView) -> Result<HttpResponse, Problem> {
    if problem.cause.is_some() {
        return Err(problem);
    }
    let view = FormView { error: Some(problem.detail.to_string()), ..view };
    // A 401 with a challenge would open the browser's own password dialog.
    let status = if problem.status == StatusCode::UNAUTHORIZED { StatusCode::FORBIDDEN } else { problem.status };
    let mut response = page(&request.worker, status, name, &view)?;
    problem.tell_when_to_retry(&mut response);
    Ok(response)
}

async fn read(request: &mut Request) -> Result<HashMap<String, String>, Problem> {
    if !origin::is_own(&request.http, &request.worker) {
        return Err(session::foreign_page());
    }
    let content_type = request.http.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(|value| value.starts_with("application/x-www-form-urlencoded")) {
        return Err(message::unsupported("application/x-www-form-urlencoded"));
    }
    let settings = &request.worker.shared.settings;
    let body = message::read_body(&request.http, &mut request.payload, FORM, settings).await?;
    let form: HashMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
    if form.iter().all(|(name, value)| message::is_storable(name) && message::is_storable(value)) {
        return Ok(form);
    }
    Err(Problem::invalid(message::UNSTORABLE_SENTENCE))
}

fn take(form: &mut HashMap<String, String>, name: &str) -> String {
    form.remove(name).unwrap_or_default()
}
