//! Whole answers, as they are stored for replays, before they become responses.

use std::borrow::Cow;

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub(crate) const JSON: &str = "application/json";
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// Status, headers that belong to the resource, and bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<String>,
    #[serde(with = "as_text")]
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn new(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status: status.as_u16(),
            content_type: Cow::Borrowed(content_type),
            location: None,
            etag: None,
            link: None,
            body: body.into(),
        }
    }

    pub(crate) fn into_response(self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::new(status);
        let headers = response.headers_mut();
        let mut insert = |name: HeaderName, value: Option<String>| {
            if let Some(value) = value.and_then(|value| HeaderValue::from_maybe_shared(Bytes::from(value)).ok()) {
                headers.insert(name, value);
            }
        };
        insert(header::LOCATION, self.location);
        insert(header::ETAG, self.etag);
        insert(header::LINK, self.link);
        if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            return response;
        }
        let content_type = match self.content_type {
            Cow::Borrowed(JSON) => HeaderValue::from_static(JSON),
            other => HeaderValue::from_str(&other).unwrap_or(HeaderValue::from_static(JSON)),
        };
        headers.insert(header::CONTENT_TYPE, content_type);
        response.set_body(actix_web::body::BoxBody::new(self.body))
    }
}

/// JSON is text, so that the stored answer is readable.
mod as_text {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(body: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        String::from_utf8_lossy(body).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        String::deserialize(deserializer).map(Bytes::from)
    }
}
