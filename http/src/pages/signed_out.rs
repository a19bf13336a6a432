//! A session that ended while a page was open: nothing that was typed is lost.

use actix_web::{
    HttpResponse,
    http::{Method, StatusCode},
};
use serde::Serialize;
use url::form_urlencoded;

use super::{form::Form, plain, redirect};
use crate::{problem::Problem, session::origin, worker::Request};

/// Largest form that is handed back, in bytes.
const KEPT: usize = 1024 * 1024;

#[derive(Serialize)]
struct SignedOutView {
    /// Where the form was going.
    address: String,
    /// Where to sign in, to come back there.
    sign_in: String,
    /// What was typed.
    fields: Vec<(String, String)>,
}

/// To the sign-in page, and back from there. A form comes back with its fields, to be sent again after signing in
/// elsewhere.
pub(crate) async fn signed_out(mut request: Request) -> Result<HttpResponse, Problem> {
    let address = request.http.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let sign_in = if address == "/" { "/sign-in".to_owned() } else { format!("/sign-in?next={}", encoded(&address)) };
    if request.http.method() != Method::POST {
        return Ok(redirect(&sign_in));
    }
    let fields = match Form::read(&mut request, KEPT).await {
        Ok(form) => form.into_pairs(),
        // An upload is not kept: its file is still there.
        Err(_) => Vec::new(),
    };
    if !origin::is_own(&request.http, &request.worker) {
        return Err(Problem::unauthenticated());
    }
    let view = SignedOutView { address, sign_in: "/sign-in?next=/signed-in".to_owned(), fields };
    plain(&request.worker, StatusCode::UNAUTHORIZED, "signed_out.html", &view)
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
