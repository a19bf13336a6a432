//! Problem details (RFC 9457): the one place that maps codes to HTTP.
//!
//! `type` is a page of the platform itself, so that it works without a network; `code` is for programs, `detail` for
//! people, `request_id` for the search in the log. The cause ([`Problem::cause`]) goes to the log and never leaves the
//! node.

use std::{borrow::Cow, time::Duration};

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
};
use callboard_messages::{CallError, Code, DomainError, Failure, shapes::SENTENCE_LONGEST};
use serde::Serialize;
use uuid::Uuid;

use crate::answer::{Answer, PROBLEM_JSON};

/// Why a request was not carried out.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) detail: Cow<'static, str>,
    pub(crate) retry_after: Option<Duration>,
    /// For the log.
    pub(crate) cause: Option<String>,
    /// Whether nothing was executed, so that the same request may be sent again.
    pub(crate) certain: bool,
    /// The methods the path does have.
    pub(crate) allow: Option<String>,
    /// Whether the rest of the body was not read, so that the connection can't be reused.
    pub(crate) close: bool,
}

/// As the client reads it.
#[derive(Serialize)]
struct View<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    request_id: Uuid,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code,
            detail: shortened(detail.into()),
            retry_after: None,
            cause: None,
            certain: true,
            allow: None,
            close: false,
        }
    }

    pub(crate) fn of(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(status_of(code), code.as_str(), detail)
    }

    pub(crate) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::of(Code::Invalid, detail)
    }

    pub(crate) fn not_found() -> Self {
        Self::of(Code::NotFound, "there is nothing at this address; /docs lists what there is")
    }

    pub(crate) fn unauthenticated() -> Self {
        Failure::Unauthenticated.into()
    }

    pub(crate) fn too_large(limit: u64) -> Self {
        let mut problem = Self::of(Code::TooLarge, format!("the body is larger than {limit} bytes"));
        problem.close = true;
        problem
    }

    pub(crate) fn method_not_allowed(allow: String) -> Self {
        let detail = format!("this address answers {allow} only");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail) }
    }

    pub(crate) fn rate_limited(retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::of(Code::RateLimited, "too many requests; slow down") }
    }

    /// A fault of ours: the client gets a fixed sentence.
    pub(crate) fn internal(cause: impl Into<String>) -> Self {
        Failure::Internal(cause.into()).into()
    }

    /// In a few words.
    pub(crate) fn title(&self) -> &'static str {
        title_of(self.code)
    }

    /// The answer for the client.
    pub(crate) fn answer(&self, request_id: Uuid) -> Answer {
        let view = View {
            r#type: format!("/docs/problems#{}", self.code),
            title: title_of(self.code),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            request_id,
        };
        Answer::new(self.status, PROBLEM_JSON, serde_json::to_vec(&view).unwrap_or_default())
    }

    pub(crate) fn respond(&self, request_id: Uuid) -> HttpResponse {
        let mut response = self.answer(request_id).into_response();
        self.decorate(&mut response);
        response
    }

    /// The headers that don't belong to a stored answer.
    pub(crate) fn decorate(&self, response: &mut HttpResponse) {
        self.tell_when_to_retry(response);
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"callboard\""));
        }
        if let Some(allow) = self.allow.as_deref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        if self.close {
            response.head_mut().set_connection_type(actix_http::ConnectionType::Close);
        }
    }

    pub(crate) fn tell_when_to_retry(&self, response: &mut HttpResponse) {
        if let Some(retry_after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds(retry_after)));
        }
    }
}

/// Bounds a detail, which may repeat input.
fn shortened(detail: Cow<'static, str>) -> Cow<'static, str> {
    match detail.char_indices().nth(SENTENCE_LONGEST).and_then(|(end, _)| detail.get(..end)) {
        Some(short) => Cow::Owned(short.to_owned()),
        None => detail,
    }
}

/// Whole seconds, rounded up and never zero.
pub(crate) fn seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

impl<E: DomainError> From<CallError<E>> for Problem {
    fn from(error: CallError<E>) -> Self {
        let retry_after = error.retry_after();
        match error {
            CallError::Refused(refusal) => Self { retry_after, ..Self::of(refusal.code(), refusal.to_string()) },
            CallError::Failed(failure) => failure.into(),
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let certain = failure.is_certain();
        // The sentence for the client is decided with the messages; a never-refusing error stands in for the domain's.
        let error = CallError::<callboard_messages::auth::AuthError>::Failed(failure);
        let (code, retry_after, detail) = (error.code(), error.retry_after(), error.public_message());
        let cause = match error {
            CallError::Failed(Failure::Internal(cause)) => Some(cause),
            _ => None,
        };
        Self { retry_after, cause, certain, ..Self::of(code, detail) }
    }
}

pub(crate) const fn status_of(code: Code) -> StatusCode {
    match code {
        Code::Invalid => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Conflict => StatusCode::CONFLICT,
        Code::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::Overloaded | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Every `code`, with its status, its title and what to do about it: also the text of `/docs/problems`.
pub(crate) const PROBLEMS: &[(&str, u16, &str, &str)] = &[
    ("invalid", 400, "Invalid request", "The request is malformed or breaks a rule that the detail names. Change it."),
    ("unauthenticated", 401, "Not signed in", "There is no valid token, API key or session. Sign in again."),
    ("forbidden", 403, "Not allowed", "The caller lacks the permission that the detail names."),
    ("not_found", 404, "Not found", "It does not exist, or belongs to another organization."),
    ("method_not_allowed", 405, "Method not allowed", "The Allow header lists the methods of this address."),
    ("conflict", 409, "Conflict", "It is in the way of something that exists or runs."),
    ("precondition_failed", 412, "Precondition failed", "It has changed since you read it. Read it again and retry."),
    ("too_large", 413, "Too large", "The body is over the limit that the detail names."),
    ("unsupported_media_type", 415, "Unsupported media type", "Send the Content-Type that the detail names."),
    (
        "idempotency_key_reused",
        422,
        "Idempotency key reused",
        "The same Idempotency-Key came with another request. Use a new key for a new request.",
    ),
    ("rate_limited", 429, "Too many requests", "Wait as long as Retry-After says."),
    ("internal", 500, "A fault of ours", "The request id leads to the cause in the node's log."),
    ("overloaded", 503, "Overloaded", "Nothing was executed. Wait as long as Retry-After says, then retry."),
    ("unavailable", 503, "Unavailable", "Nothing was executed. A part of the platform does not work now."),
    ("timeout", 504, "No answer in time", "It may or may not have been carried out: look before you retry."),
];

fn title_of(code: &str) -> &'static str {
    PROBLEMS.iter().find(|(known, ..)| *known == code).map_or("Problem", |(_, _, title, _)| title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_described_with_the_status_it_has() {
        for code in Code::ALL {
            let described = PROBLEMS.iter().find(|(known, ..)| *known == code.as_str()).unwrap();
            assert_eq!(described.1, status_of(code).as_u16(), "{code}");
        }
    }

    #[test]
    fn the_cause_of_a_fault_is_not_told() {
        let problem = Problem::internal("password=hunter2");
        let body = String::from_utf8(problem.answer(Uuid::nil()).body.to_vec()).unwrap();
        assert!(!body.contains("hunter2"), "{body}");
        assert_eq!(problem.cause.as_deref(), Some("password=hunter2"));
    }

    #[test]
    fn a_wait_is_rounded_up() {
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_millis(1001)), 2);
        assert_eq!(seconds(Duration::ZERO), 1);
    }
}
