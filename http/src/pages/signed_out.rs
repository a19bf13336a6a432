//! A session that ended while a page was open: nothing that was typed is lost.

use actix_web::{
    HttpResponse,
    http::{Method, StatusCode, header},
};
use serde::Serialize;
use url::form_urlencoded;

use super::{
    form::{Form, Most},
    plain, redirect,
};
use crate::{
    message,
    problem::Problem,
    session::{cookies, origin},
    worker::Request,
};

/// Largest form that is handed back: that of variables has the most fields.
const KEPT: Most = Most { bytes: 1024 * 1024, fields: super::apps::variables::LARGEST.fields };

#[derive(Serialize)]
struct SignedOutView {
    /// Where the form was going.
    address: String,
    /// Where to sign in, to come back there.
    sign_in: &'static str,
    /// What was typed; absent for an upload, and for what is too large to be handed back.
    fields: Option<Vec<(String, String)>>,
    /// Whether a file was sent.
    is_upload: bool,
    /// The page that the form is on.
    page: String,
}

/// To the sign-in page, and back from there. A form comes back with its fields, to be sent again after signing in
/// elsewhere.
pub(crate) async fn signed_out(mut request: Request) -> Result<HttpResponse, Problem> {
    let address = request.http.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    if request.http.method() != Method::POST {
        let sign_in =
            if address == "/" { "/sign-in".to_owned() } else { format!("/sign-in?next={}", encoded(&address)) };
        return Ok(redirect(&sign_in));
    }
    if !origin::is_own(&request.http, &request.worker) {
        return Err(Problem::unauthenticated());
    }
    let is_upload = is_multipart(&request);
    // A form of nobody in particular is not kept: only where somebody has signed in before, something was typed here.
    let fields = if is_upload || !is_known(&request) {
        message::discard(&mut request.payload, &request.worker.shared.settings).await;
        None
    } else {
        Form::read(&mut request, KEPT).await.ok().map(Form::into_pairs)
    };
    let page = page_of(request.http.path(), is_upload);
    let view = SignedOutView { address, sign_in: "/sign-in?next=/signed-in", fields, is_upload, page };
    plain(&request.worker, StatusCode::UNAUTHORIZED, "signed_out.html", &view)
}

/// Whether the browser has a cookie of ours: that of a session, or the one by which an account recognizes it afterwards.
fn is_known(request: &Request) -> bool {
    let secure = request.worker.secure();
    let (access, refresh) = cookies::read(&request.http, secure);
    access.is_some() || refresh.is_some() || cookies::device(&request.http, secure).is_some()
}

fn is_multipart(request: &Request) -> bool {
    let content_type = request.http.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.starts_with("multipart/"))
}

/// The page of a form that was going to `path`: uploads go to an address of their own.
fn page_of(path: &str, is_upload: bool) -> String {
    match path.strip_suffix("/upload") {
        Some(page) if is_upload => format!("{page}?from=upload"),
        _ => "/".to_owned(),
    }
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
