//! The pages: rendered by the server, under a policy that runs only the scripts of this node. All but the API's
//! reference, which is Swagger UI, are readable without a script, and every action is a form.
//!
//! A page is in three places: a line in `routes/pages.rs`, a handler here, in the file of its noun, and a template in
//! `templates/`. The handler gets a [`PageRequest`], asks domains through it, and renders its view in the dashboard's
//! frame; what is in the frame's navigation is a line in `navigation.rs`.

pub(crate) mod account;
pub(crate) mod apps;
mod assets;
mod chart;
pub(crate) mod cluster;
pub(crate) mod components;
mod confirm;
mod docs;
mod form;
mod frame;
pub(crate) mod keys;
mod navigation;
pub(crate) mod nodes;
pub(crate) mod organization;
pub(crate) mod palette;
mod request;
mod sign_in;
mod signed_out;
mod templates;
mod toast;

use std::io::Write;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        Method, StatusCode,
        header::{self, AcceptEncoding, Encoding, Header, HeaderValue},
    },
};
use callboard_messages::Access;
use flate2::{Compression, write::GzEncoder};
use serde::Serialize;

pub(crate) use assets::asset;
pub(crate) use docs::{docs, problems};
pub(crate) use request::PageRequest;
pub(crate) use sign_in::{setup, setup_form, sign_in, sign_in_form, sign_out, signed_in};
pub(crate) use signed_out::signed_out;
pub(crate) use templates::Templates;

use crate::{
    problem::Problem,
    table::{Endpoint, endpoint},
    worker::{Arrival, Worker},
};

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
/// Shorter answers are not worth compressing.
const WORTH_COMPRESSING: usize = 1_024;

/// A page of the dashboard, for whoever is signed in.
pub(crate) fn page<F, Fut>(operation: &'static str, handler: F) -> Endpoint
where
    F: Fn(PageRequest) -> Fut + 'static,
    Fut: Future<Output = Result<HttpResponse, Problem>> + 'static,
{
    endpoint(operation, Access::Authenticated, move |request| handler(PageRequest::of(request))).of_dashboard()
}

/// A page of the dashboard for administrators of the platform.
pub(crate) fn administrators_page<F, Fut>(operation: &'static str, handler: F) -> Endpoint
where
    F: Fn(PageRequest) -> Fut + 'static,
    Fut: Future<Output = Result<HttpResponse, Problem>> + 'static,
{
    Endpoint { access: Access::Administrator, ..page(operation, handler) }
}

/// A page outside of the dashboard's frame.
fn plain(worker: &Worker, status: StatusCode, name: &str, view: &impl Serialize) -> Result<HttpResponse, Problem> {
    Ok(html(status, worker.shared.pages.render(name, view)?))
}

fn html(status: StatusCode, text: impl actix_web::body::MessageBody + 'static) -> HttpResponse {
    let mut response = HttpResponse::build(status).content_type("text/html; charset=utf-8").body(text);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    // With `no-referrer`, browsers send our own forms without their origin, which we check.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// The same, compressed for a browser that takes it. No page repeats what a foreign page could send together with a secret:
/// pages with a secret answer our own forms only.
fn compressed(http: &HttpRequest, status: StatusCode, text: String) -> HttpResponse {
    if text.len() < WORTH_COMPRESSING || !accepts_gzip(http) {
        return html(status, text);
    }
    let Some(gzip) = gzip(text.as_bytes(), Compression::fast()) else { return html(status, text) };
    let mut response = html(status, gzip);
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    response
}

/// Whether the client takes gzip, by its own words: without them, or with `gzip;q=0`, it does not.
fn accepts_gzip(http: &HttpRequest) -> bool {
    if !http.headers().contains_key(header::ACCEPT_ENCODING) {
        return false;
    }
    let accepted = AcceptEncoding::parse(http).ok();
    let chosen = accepted.and_then(|accepted| accepted.negotiate([Encoding::gzip(), Encoding::identity()].iter()));
    chosen == Some(Encoding::gzip())
}

fn gzip(bytes: &[u8], level: Compression) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), level);
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

fn redirect(to: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((header::LOCATION, to)).finish()
}

/// Whether the client is a browser that shows the answer to a person.
pub(crate) fn wants_page(http: &HttpRequest) -> bool {
    let accept = http.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html")) && !http.path().starts_with("/api/")
}

#[derive(Serialize)]
struct ProblemView<'a> {
    status: u16,
    title: &'a str,
    detail: &'a str,
    request_id: String,
    /// Where the person came from, to try again; only what reading it again may mend.
    again: Option<&'a str>,
}

/// A problem as a page.
pub(crate) fn problem(worker: &Worker, problem: &Problem, http: &HttpRequest, arrival: &Arrival) -> HttpResponse {
    let may_mend = problem.status.is_server_error() && http.method() == Method::GET;
    let view = ProblemView {
        status: problem.status.as_u16(),
        title: problem.title(),
        detail: &problem.detail,
        request_id: arrival.request_id.to_string(),
        again: may_mend.then(|| http.path()),
    };
    match plain(worker, problem.status, "problem.html", &view) {
        Ok(mut response) => {
            problem.decorate(&mut response);
            response
        }
        Err(_) => problem.respond(arrival.request_id),
    }
}
