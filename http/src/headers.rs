//! Headers of every response, and the trace context of a request.

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use uuid::Uuid;

use crate::problem::Problem;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The API serves data only: nothing in it may be run, framed or embedded.
const API_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Headers that say who asks, for whom, and how a body is read.
const SINGLE: [HeaderName; 4] = [
    header::AUTHORIZATION,
    HeaderName::from_static("callboard-organization"),
    HeaderName::from_static("idempotency-key"),
    header::CONTENT_TYPE,
];

/// Of two values a proxy may have believed the other one.
pub(crate) fn check_single(headers: &HeaderMap) -> Result<(), Problem> {
    match SINGLE.iter().find(|name| headers.get_all(*name).nth(1).is_some()) {
        Some(name) => Err(Problem::invalid(format!("the header {name} comes twice"))),
        None => Ok(()),
    }
}

/// Security headers, unless the handler has set its own.
pub(crate) fn secure(headers: &mut HeaderMap, request_id: Uuid, https: bool) {
    let mut text = Uuid::encode_buffer();
    let id = Bytes::copy_from_slice(request_id.as_hyphenated().encode_lower(&mut text).as_bytes());
    if let Ok(id) = HeaderValue::from_maybe_shared(id) {
        headers.insert(X_REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !headers.contains_key(header::REFERRER_POLICY) {
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    headers.insert(CORP, HeaderValue::from_static("same-origin"));
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, API_POLICY);
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if https {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
}

/// The trace context of a request (W3C Trace Context).
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<&str> {
    headers.get("traceparent")?.to_str().ok()
}
