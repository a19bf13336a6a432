//! Set-up, sign-in and sign-out: plain forms.

use actix_web::{HttpResponse, http::StatusCode};
use callboard_messages::{
    Secret,
    auth::{Login, Logout, Register, Tokens},
};
use serde::Serialize;
use url::form_urlencoded;

use super::{
    form::{Form, SHORT},
    plain, redirect,
};
use crate::{
    problem::Problem,
    session::{self, cookies, origin},
    worker::Request,
};

#[derive(Default, Serialize)]
struct FormView {
    error: Option<String>,
    token: String,
    name: String,
    email: String,
    /// The page to come to.
    next: String,
}

pub(crate) async fn sign_in_form(request: Request) -> Result<HttpResponse, Problem> {
    let view = FormView { next: own_path(&query(&request, "next")).to_owned(), ..FormView::default() };
    plain(&request.worker, StatusCode::OK, "sign_in.html", &view)
}

pub(crate) async fn sign_in(mut request: Request) -> Result<HttpResponse, Problem> {
    let form = Form::read(&mut request, SHORT).await?;
    let (email, next) = (form.text("email").to_owned(), own_path(form.text("next")).to_owned());
    let login = Login {
        email: email.clone(),
        password: Secret::new(form.text("password")),
        device: cookies::device(&request.http, request.worker.secure()),
        replaces: replaced(&request),
    };
    match request.worker.bus().ask(&request.caller, login).await {
        Ok(tokens) => Ok(signed_in_as(&request, &tokens, &next)),
        Err(error) => again(&request, "sign_in.html", error.into(), FormView { email, next, ..FormView::default() }),
    }
}

/// Where somebody comes who signed in beside an open page.
pub(crate) async fn signed_in(request: Request) -> Result<HttpResponse, Problem> {
    plain(&request.worker, StatusCode::OK, "signed_in.html", &())
}

/// The registration form, behind the one-time set-up link or an invitation.
pub(crate) async fn setup_form(request: Request) -> Result<HttpResponse, Problem> {
    let view = FormView { token: query(&request, "token"), ..FormView::default() };
    plain(&request.worker, StatusCode::OK, "setup.html", &view)
}

pub(crate) async fn setup(mut request: Request) -> Result<HttpResponse, Problem> {
    let form = Form::read(&mut request, SHORT).await?;
    let text = |name: &str| form.text(name).to_owned();
    let view = FormView { token: text("token"), name: text("name"), email: text("email"), ..FormView::default() };
    let given = |text: &String| (!text.trim().is_empty()).then(|| text.clone());
    let register = Register {
        email: view.email.clone(),
        password: Secret::new(form.text("password")),
        name: given(&view.name),
        invitation: given(&view.token).map(Secret::new),
        replaces: replaced(&request),
    };
    match request.worker.bus().ask(&request.caller, register).await {
        Ok(tokens) => Ok(signed_in_as(&request, &tokens, "/")),
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

fn query(request: &Request, name: &str) -> String {
    let mut pairs = form_urlencoded::parse(request.http.query_string().as_bytes());
    pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// A path of ours to come to; home for anything else, which could lead to another site.
fn own_path(text: &str) -> &str {
    let is_path = text.starts_with('/') && !text.starts_with("//");
    if is_path && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') { text } else { "/" }
}

/// The refresh token of the browser's current session.
fn replaced(request: &Request) -> Option<Secret> {
    let (_, refresh) = cookies::read(&request.http, request.worker.secure());
    refresh.map(Secret::new)
}

fn signed_in_as(request: &Request, tokens: &Tokens, next: &str) -> HttpResponse {
    let mut response = redirect(next);
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
    let mut response = plain(&request.worker, status, name, &view)?;
    problem.tell_when_to_retry(&mut response);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_to_another_site() {
        for path in ["/", "/apps/shop?q=a%20b", "/signed-in"] {
            assert_eq!(own_path(path), path);
        }
        for other in
            ["", "//evil.example.com", "/\\evil.example.com", "https://evil.example.com", "apps", "/a\r\nb", "/a b"]
        {
            assert_eq!(own_path(other), "/", "{other:?}");
        }
    }
}
