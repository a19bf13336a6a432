//! Headers of requests and responses through the proxy.
//!
//! Hop-by-hop fields end here (RFC 9110 §7.6.1), those named in `Connection` too. What the app may trust about its
//! client is set here: `X-Forwarded-*` of an untrusted peer are dropped before ours are set, and so are spellings with
//! an underscore, which CGI-style servers cannot tell apart.

use std::net::IpAddr;

use actix_http::{RequestHead, ResponseHead, header as inbound};
use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Uri,
    header::{self, HeaderName, HeaderValue},
};

use super::hop;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The header of the request id, in both directions.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// What the router knows about a request beyond its headers.
pub(super) struct Origin<'a> {
    pub host: &'a str,
    pub peer: Option<IpAddr>,
    pub trusted: bool,
    pub request_id: &'a str,
    pub websocket: bool,
    /// Whether another node's router has forwarded it, with the headers set.
    pub forwarded: bool,
    /// The signature for the node that it is forwarded to.
    pub hop: Option<&'a str>,
}

/// The request for the instance, without its body. `None` if it can't be expressed, which a parsed request always can.
pub(super) fn request(head: &RequestHead, origin: &Origin<'_>) -> Option<hyper::Request<()>> {
    let mut request = hyper::Request::new(());
    *request.method_mut() = Method::from_bytes(head.method.as_str().as_bytes()).ok()?;
    *request.uri_mut() = match head.uri.path_and_query() {
        Some(target) => Uri::from_maybe_shared(Bytes::copy_from_slice(target.as_str().as_bytes())).ok()?,
        None => Uri::default(),
    };
    let headers = request.headers_mut();
    headers.reserve(head.headers.len() + 6);
    headers.insert(header::HOST, HeaderValue::from_str(origin.host).ok()?);

    let named = named_in_connection(head.headers.get_all(inbound::CONNECTION).map(|value| value.as_bytes()));
    for (name, value) in &head.headers {
        let name = name.as_str();
        if ends_here(name) || named.iter().any(|named| named.eq_ignore_ascii_case(name.as_bytes())) {
            continue;
        }
        let believed = origin.trusted || origin.forwarded;
        if matches!(name, "host" | "expect" | "proxy") || is(name, hop::HOP) || (!believed && is_forwarding(name)) {
            continue;
        }
        headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    if head.headers.contains_key(inbound::TRANSFER_ENCODING) {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if origin.websocket {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    forwarded(headers, origin)?;
    if let Some(hop) = origin.hop {
        headers.insert(HeaderName::from_static(hop::HOP), HeaderValue::from_str(hop).ok()?);
    }
    Some(request)
}

fn forwarded(headers: &mut HeaderMap, origin: &Origin<'_>) -> Option<()> {
    if let Some(peer) = origin.peer.filter(|_| !origin.forwarded) {
        let peer = peer.to_canonical().to_string();
        let before: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
        let chain = if before.is_empty() { peer } else { format!("{}, {peer}", before.join(", ")) };
        headers.insert(FORWARDED_FOR, HeaderValue::from_maybe_shared(Bytes::from(chain)).ok()?);
    }
    if !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !headers.contains_key(FORWARDED_HOST)
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(FORWARDED_HOST, host);
    }
    headers.insert(HeaderName::from_static(REQUEST_ID), HeaderValue::from_str(origin.request_id).ok()?);
    Some(())
}

/// Copies the head of an instance's response.
pub(super) fn response(from: &HeaderMap, to: &mut ResponseHead, request_id: &str, keep_length: bool) {
    let named = named_in_connection(from.get_all(header::CONNECTION).iter().map(HeaderValue::as_bytes));
    let upgrade = to.status == actix_http::StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in from {
        // The length follows from the body's framing; both would be two headers.
        if (name == header::CONTENT_LENGTH && !keep_length)
            || name == hop::MISDIRECTED
            || name == hop::NO_INSTANCE
            || (ends_here(name.as_str()) && !(upgrade && name == header::UPGRADE))
            || named.iter().any(|named| named.eq_ignore_ascii_case(name.as_str().as_bytes()))
        {
            continue;
        }
        if let Ok(name) = inbound::HeaderName::from_bytes(name.as_str().as_bytes())
            && let Ok(value) = inbound::HeaderValue::from_bytes(value.as_bytes())
        {
            to.headers.append(name, value);
        }
    }
    let request_id_name = inbound::HeaderName::from_static(REQUEST_ID);
    if !to.headers.contains_key(&request_id_name)
        && let Ok(value) = inbound::HeaderValue::from_str(request_id)
    {
        to.headers.insert(request_id_name, value);
    }
}

/// The client's request id if it is well-formed, else a new one.
pub(super) fn request_id(head: &RequestHead) -> String {
    let given = head.headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match given.filter(plain) {
        Some(given) => given.to_owned(),
        None => uuid::Builder::from_random_bytes(rand::random()).into_uuid().as_hyphenated().to_string(),
    }
}

/// Whether the head is a whole request for an upgrade to WebSocket, `Connection` included.
pub(super) fn asks_for_websocket(head: &RequestHead) -> bool {
    head.upgrade() && names_websocket(head)
}

/// Whether `Upgrade` names WebSocket: actix-http then takes everything that follows for the stream.
pub(super) fn names_websocket(head: &RequestHead) -> bool {
    head.headers.get_all(inbound::UPGRADE).any(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

fn ends_here(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Fields that `Connection` declares hop-by-hop, without those of framing and routing.
fn named_in_connection<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    let protected: [&[u8]; 7] =
        [b"host", b"content-length", b"close", b"keep-alive", b"upgrade", b"transfer-encoding", b"authorization"];
    values
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty() && !protected.iter().any(|kept| kept.eq_ignore_ascii_case(name)))
        .collect()
}

fn is_forwarding(name: &str) -> bool {
    name == "forwarded" || starts(name, "x-forwarded-") || is(name, "x-real-ip")
}

/// Whether the name is this one, or a spelling of it with underscores.
fn is(name: &str, full: &str) -> bool {
    name.len() == full.len() && starts(name, full)
}

fn starts(name: &str, prefix: &str) -> bool {
    let same = |(byte, expected): (u8, u8)| byte == expected || (byte == b'_' && expected == b'-');
    name.len() >= prefix.len() && name.bytes().zip(prefix.bytes()).all(same)
}
