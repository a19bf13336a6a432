//! The pages: rendered by the server, under a policy that runs only the scripts of this node. All but the API's
//! reference, which is Swagger UI, are readable without a script.

mod account;
mod assets;
mod docs;
mod home;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
};
use minijinja::{Environment, Value, value::Serde};
use serde::Serialize;

pub(crate) use account::{setup, setup_form, sign_in, sign_in_form, sign_out};
pub(crate) use assets::asset;
pub(crate) use docs::{docs, problems};
pub(crate) use home::home;

use crate::{
    problem::Problem,
    worker::{Arrival, Worker},
};

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);

/// The templates, compiled once.
pub(crate) struct Templates(Environment<'static>);

impl Templates {
    pub(crate) fn new() -> Result<Self, minijinja::Error> {
        let mut templates = Environment::new();
        for (name, text) in [
            ("base.html", include_str!("templates/base.html")),
            ("home.html", include_str!("templates/home.html")),
            ("sign_in.html", include_str!("templates/sign_in.html")),
            ("setup.html", include_str!("templates/setup.html")),
            ("docs.html", include_str!("templates/docs.html")),
            ("problems.html", include_str!("templates/problems.html")),
            ("problem.html", include_str!("templates/problem.html")),
        ] {
            templates.add_template(name, text)?;
        }
        for (name, asset) in [
            ("frame", "frame.css"),
            ("style", "style.css"),
            ("script", "home.js"),
            ("icon", "icon.svg"),
            ("docs_script", "docs.js"),
            ("swagger_style", "swagger-ui.css"),
            ("swagger_script", "swagger-ui-bundle.js"),
        ] {
            templates.add_global(name, Value::from_safe_string(assets::address(asset)));
        }
        Ok(Self(templates))
    }

    fn render(&self, name: &str, view: &impl Serialize) -> Result<String, Problem> {
        let rendered = self.0.get_template(name).and_then(|template| template.render(Value::from(Serde(view))));
        rendered.map_err(|error| Problem::internal(format!("template {name}: {error:#}")))
    }
}

fn page(worker: &Worker, status: StatusCode, name: &str, view: &impl Serialize) -> Result<HttpResponse, Problem> {
    let text = worker.shared.pages.render(name, view)?;
    let mut response = HttpResponse::build(status).content_type("text/html; charset=utf-8").body(text);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    // With `no-referrer`, browsers send our own forms without their origin, which we check.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    Ok(response)
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
    detail: &'a str,
    request_id: String,
}

/// A problem as a page.
pub(crate) fn problem(worker: &Worker, problem: &Problem, arrival: &Arrival) -> HttpResponse {
    let view = ProblemView {
        status: problem.status.as_u16(),
        detail: &problem.detail,
        request_id: arrival.request_id.to_string(),
    };
    match page(worker, problem.status, "problem.html", &view) {
        Ok(mut response) => {
            problem.decorate(&mut response);
            response
        }
        Err(_) => problem.respond(arrival.request_id),
    }
}
