//! From a request to a message.
//!
//! A message is a flat struct. Its fields come from the path, then from the query (GET, DELETE) or the JSON body (POST,
//! PUT, PATCH), and `if_match` from its header; all of them go straight into the type, without a value tree between.
//! This edge is strict where the messages themselves are not: unknown fields, duplicate keys, deep nesting and texts that
//! can't be stored are refused here.

mod error;
mod input;
mod json;

use std::borrow::Cow;

use actix_web::{HttpRequest, dev::Payload, http::header};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};

pub(crate) use error::Error;
pub(crate) use input::Input;

use crate::{problem::Problem, settings::GatewaySettings};

/// Fields and their texts, from path, header and query.
pub(crate) type Fields<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// What PostgreSQL stores in no text and no JSON.
const UNSTORABLE: char = '\0';
/// What whoever sends it is told.
pub(crate) const UNSTORABLE_SENTENCE: &str = "a text holds the character U+0000, which can't be stored";

/// Whether every engine can store the text.
pub(crate) fn is_storable(text: &str) -> bool {
    !text.contains(UNSTORABLE)
}

/// The beginning of a text that a client chose, for an error.
fn shortened(text: &str) -> &str {
    text.char_indices().nth(64).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// Adds the query's fields.
pub(crate) fn push_query<'a>(fields: &mut Fields<'a>, query: &'a str) -> Result<(), Problem> {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // No parameter needs to be encoded, and If-Match is a header.
        let is_plain = matches!(decode(name, true)?, Cow::Borrowed(_));
        if !is_plain || name == "if_match" {
            return Err(Problem::invalid(format!("unknown query parameter `{}`", shortened(name))));
        }
        fields.push((name, decode(value, true)?));
    }
    Ok(())
}

/// Percent-decodes; `+` is a space in a query only.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>, Problem> {
    if !(text.contains('%') || plus_is_space && text.contains('+')) {
        return Ok(Cow::Borrowed(text));
    }
    let spaced = if plus_is_space { text.replace('+', " ") } else { text.to_owned() };
    match percent_encoding::percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) => Ok(Cow::Owned(decoded.into_owned())),
        Err(_) => Err(Problem::invalid("the address is not UTF-8")),
    }
}

/// The version in `If-Match`: one strong entity tag as a resource's `ETag` gave it.
pub(crate) fn if_match(http: &HttpRequest) -> Result<Option<&str>, Problem> {
    let mut lines = http.headers().get_all(header::IF_MATCH);
    let Some(line) = lines.next() else { return Ok(None) };
    let text = line.to_str().unwrap_or_default().trim();
    let tag = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match tag {
        _ if lines.next().is_some() => Err(Problem::invalid("If-Match takes one entity tag here")),
        None if text == "*" => Ok(None),
        Some(tag) if !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Some(tag)),
        _ => Err(Problem::invalid("If-Match takes one entity tag, as the ETag header gave it, such as \"3\"")),
    }
}

/// Whether the body, if there is one, says that it is JSON.
pub(crate) fn check_json(http: &HttpRequest, body: &[u8]) -> Result<(), Problem> {
    let content_type = http.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let essence = content_type.and_then(|value| value.split(';').next()).map(str::trim);
    match essence {
        Some(essence)
            if essence.eq_ignore_ascii_case("application/json")
                || essence.len() > 5 && essence.to_ascii_lowercase().ends_with("+json") =>
        {
            Ok(())
        }
        None if body.is_empty() => Ok(()),
        _ => Err(unsupported("application/json")),
    }
}

pub(crate) fn unsupported(wanted: &str) -> Problem {
    Problem::new(
        actix_web::http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        format!("send this as {wanted}, and say so in the Content-Type header"),
    )
}

/// How large the client says the body is.
pub(crate) fn declared_length(http: &HttpRequest) -> Option<u64> {
    http.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The whole body, within its limit and its time.
pub(crate) async fn read_body(
    http: &HttpRequest,
    payload: &mut Payload,
    limit: usize,
    settings: &GatewaySettings,
) -> Result<Bytes, Problem> {
    let too_large = || Problem::too_large(limit as u64);
    if declared_length(http).is_some_and(|length| length > limit as u64) {
        discard(payload, settings).await;
        return Err(too_large());
    }
    let read = async {
        let mut first: Option<Bytes> = None;
        let mut rest = BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| Problem::invalid("the body broke off"))?;
            if first.as_ref().map_or(0, Bytes::len) + rest.len() + chunk.len() > limit {
                return Err(too_large());
            }
            match &first {
                None => first = Some(chunk),
                Some(_) => rest.extend_from_slice(&chunk),
            }
        }
        let first = first.unwrap_or_default();
        if rest.is_empty() {
            return Ok(first);
        }
        let mut whole = BytesMut::with_capacity(first.len() + rest.len());
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&rest);
        Ok(whole.freeze())
    };
    let outcome = match actix_rt::time::timeout(settings.body_timeout(), read).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let mut problem = Problem::new(
                actix_web::http::StatusCode::REQUEST_TIMEOUT,
                "invalid",
                "the body did not arrive in time",
            );
            problem.close = true;
            return Err(problem);
        }
    };
    if outcome.is_err() {
        discard(payload, settings).await;
    }
    outcome
}

/// Reads on for a while: a client that still writes when the connection closes would see a reset, not the answer.
pub(crate) async fn discard(payload: &mut Payload, settings: &GatewaySettings) {
    discard_stream(payload, settings).await;
}

/// The same of a body that is read otherwise.
pub(crate) async fn discard_stream<S, E>(body: &mut S, settings: &GatewaySettings)
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    const AT_MOST: usize = 8 * 1024 * 1024;
    let drain = async {
        let mut read = 0;
        while let Some(Ok(chunk)) = body.next().await {
            read += chunk.len();
            if read > AT_MOST {
                break;
            }
        }
    };
    let _ = actix_rt::time::timeout(settings.body_timeout().min(std::time::Duration::from_secs(2)), drain).await;
}
