//! Headers that every answer has, and the trace context that a request may bring.

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use uuid::Uuid;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The API serves data only: nothing in it may be run, framed or embedded.
const API_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

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

/// The trace of a `traceparent` (W3C Trace Context, version 00).
pub(crate) fn trace_id(headers: &HeaderMap) -> Option<Uuid> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
    let well_formed = version.len() == 2 && version != "ff" && trace.len() == 32 && parent.len() == 16;
    let id = Uuid::try_parse(trace).ok().filter(|id| !id.is_nil())?;
    well_formed.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_up_when_it_is_one() {
        let trace = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static("traceparent"), HeaderValue::from_static(value));
            trace_id(&headers).map(|id| id.simple().to_string())
        };
        let good = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").as_deref(), Some(good));
        for bad in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "hello",
            "",
        ] {
            assert_eq!(trace(bad), None, "{bad}");
        }
    }
}
