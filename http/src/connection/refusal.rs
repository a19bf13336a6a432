//! Responses to clients whose bytes were no valid request.

use std::borrow::Cow;

use actix_http::StatusCode;
use bytes::Bytes;
use uuid::Uuid;

use crate::problem::Problem;

/// Why a connection ends before a request was handed on.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: Cow<'static, str>,
    /// The response is to a HEAD.
    is_bodiless: bool,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status, reason: reason.into(), is_bodiless: false }
    }

    pub(super) fn bad(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    pub(super) fn too_large() -> Self {
        let reason = format!("the request's head is larger than {} bytes", super::head::LARGEST);
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason)
    }

    pub(super) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "the request's head did not arrive in time")
    }

    /// The refusal of a head that begins like this.
    pub(super) fn answering(self, head: &[u8]) -> Self {
        Self { is_bodiless: head.trim_ascii_start().starts_with(b"HEAD "), ..self }
    }

    /// The whole response.
    pub(super) fn into_bytes(self) -> Bytes {
        let request_id = Uuid::now_v7();
        let code = match self.status {
            StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "too_large",
            _ => "invalid",
        };
        let status = self.status;
        tracing::debug!(status = status.as_u16(), reason = %self.reason, %request_id, "not a request");
        let answer = Problem::new(status, code, self.reason).answer(request_id);
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\ncache-control: no-store\r\n\
             x-content-type-options: nosniff\r\nx-request-id: {request_id}\r\n\r\n",
            answer.content_type,
            answer.body.len(),
        );
        let mut bytes = head.into_bytes();
        if !self.is_bodiless {
            bytes.extend_from_slice(&answer.body);
        }
        bytes.into()
    }
}
