//! The API's reference, in which requests can be tried, and the meaning of its errors.
//!
//! The reference is Swagger UI over the OpenAPI document. A tried request comes from our own page, with the page's
//! session: its cookies are accepted because of its origin ([`crate::session`]).

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
};
use serde::Serialize;

use super::plain;
use crate::{
    problem::{PROBLEMS, Problem},
    worker::Request,
};

/// Swagger UI runs only files of this node and connects only to this node. Its icons are in its style, and it submits
/// no form.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
     form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
);

/// The reference.
pub(crate) async fn docs(request: Request) -> Result<HttpResponse, Problem> {
    let mut response = plain(&request.worker, StatusCode::OK, "docs.html", &())?;
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY);
    Ok(response)
}

#[derive(Serialize)]
struct ProblemsView {
    problems: Vec<KindView>,
}

#[derive(Serialize)]
struct KindView {
    code: &'static str,
    status: u16,
    title: &'static str,
    advice: &'static str,
}

/// The meaning of every error, and what to do.
pub(crate) async fn problems(request: Request) -> Result<HttpResponse, Problem> {
    let kind = |&(code, status, title, advice): &(&'static str, u16, &'static str, &'static str)| KindView {
        code,
        status,
        title,
        advice,
    };
    let view = ProblemsView { problems: PROBLEMS.iter().map(kind).collect() };
    plain(&request.worker, StatusCode::OK, "problems.html", &view)
}
