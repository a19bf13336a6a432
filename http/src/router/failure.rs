//! Failures of proxying, and their page: which app, which failure, which request.

use std::{borrow::Cow, io, time::Duration};

use actix_http::{
    ConnectionType, Method, RequestHead, Response, StatusCode, Version,
    body::BodySize,
    header::{self, HeaderName, HeaderValue},
};
use bytes::Bytes;
use callboard_platform::routing::RouteState;

use super::{body::ResponseBody, headers, hop};
use crate::problem;

/// What failed between the client and the app.
#[derive(Debug)]
pub(super) enum Failure {
    UnknownApp,
    NoInstance(RouteState),
    /// The node that runs it, by this name, is gone.
    NodeGone(String),
    /// The node that runs it, by this name, was declared gone while the request was with it.
    NodeLost(String),
    /// The node that runs it accepted no connection; the text ends a sentence.
    NodeRefused(String, &'static str),
    /// Another node has forwarded the request, and the app is not here.
    Misdirected,
    /// No instance accepted a connection; the text ends a sentence.
    Refused(String),
    /// No connection was accepted in time.
    NotAccepted,
    /// The connection ended, or the response was malformed, before the client was sent anything.
    Broken(String),
    TooSlow(Duration),
    ClientTooSlow,
    ClientBroke,
    BadUpgrade,
    MethodRefused,
    Inexpressible,
    /// The app has this many requests in flight, its limit.
    Busy(usize),
    /// The client's address has this many requests in flight, its limit.
    Crowded(usize),
    /// The client asks too often for what does not exist; the time until it may ask again.
    RateLimited(Duration),
}

/// The client that gets the page.
pub(super) struct Visitor<'a> {
    pub head: &'a RequestHead,
    pub app: &'a str,
    pub request_id: &'a str,
    /// Whether another node has forwarded the request.
    pub forwarded: bool,
}

impl Failure {
    pub fn node_refused(node: String, error: &io::Error) -> Self {
        let why = match error.kind() {
            io::ErrorKind::TimedOut => "it accepted no connection in time",
            io::ErrorKind::ConnectionRefused => "the connection was refused",
            _ => "the connection failed",
        };
        Self::NodeRefused(node, why)
    }

    pub fn refused(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::NotAccepted,
            io::ErrorKind::ConnectionRefused => Self::Refused("the connection was refused".to_owned()),
            _ => Self::Refused("the connection failed".to_owned()),
        }
    }

    /// `silent`: no byte was received.
    pub fn broken(error: &hyper::Error, silent: bool) -> Self {
        let what = if error.is_parse_too_large() {
            "the head of its answer is too large"
        } else if error.is_parse() {
            "its answer is not valid HTTP"
        } else if silent {
            "it closed the connection without an answer"
        } else {
            "it closed the connection before the head of its answer was complete"
        };
        Self::Broken(what.to_owned())
    }

    /// Whether a takeover of the app may be in progress, after which the request would succeed.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::NodeGone(_) | Self::NodeRefused(..) | Self::NoInstance(_) | Self::Refused(_))
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownApp => StatusCode::NOT_FOUND,
            Self::NoInstance(_) | Self::NodeGone(_) | Self::NodeRefused(..) | Self::Busy(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Crowded(_) | Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Refused(_) | Self::Broken(_) | Self::NodeLost(_) | Self::Inexpressible => StatusCode::BAD_GATEWAY,
            Self::NotAccepted | Self::TooSlow(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::ClientTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::ClientBroke | Self::BadUpgrade => StatusCode::BAD_REQUEST,
            Self::MethodRefused => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// The stable name in the problem document.
    fn code(&self) -> &'static str {
        match self.status() {
            _ if matches!(self, Self::Busy(_)) => "overloaded",
            StatusCode::TOO_MANY_REQUESTS => "rate_limited",
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::MISDIRECTED_REQUEST => {
                "unavailable"
            }
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => "timeout",
            _ => "invalid",
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::UnknownApp => "There is no such app",
            Self::NoInstance(RouteState::Stopped) => "This app is stopped",
            Self::NoInstance(RouteState::NoRelease) => "This app has not been deployed",
            Self::NoInstance(RouteState::Deploying) => "This app is being deployed",
            Self::NoInstance(RouteState::Moving) | Self::NodeGone(_) => "This app moves to another node",
            Self::NoInstance(_) | Self::NodeRefused(..) | Self::Misdirected => "This app is not available",
            Self::Refused(_) | Self::Broken(_) | Self::NodeLost(_) | Self::Inexpressible => "This app did not answer",
            Self::NotAccepted | Self::TooSlow(_) => "This app took too long to answer",
            Self::ClientTooSlow => "The request took too long to arrive",
            Self::ClientBroke => "The request was not complete",
            Self::BadUpgrade => "This is no valid WebSocket request",
            Self::MethodRefused => "This method is not passed on",
            Self::Busy(_) => "This app is busy",
            Self::Crowded(_) | Self::RateLimited(_) => "Too many requests",
        }
    }

    pub fn reason(&self) -> Cow<'static, str> {
        match self {
            Self::UnknownApp => "No app with this name exists on this platform.".into(),
            Self::NoInstance(state) => state.reason().into(),
            Self::NodeGone(node) => {
                format!("The node {node} that ran it is gone, and another one takes it over.").into()
            }
            Self::NodeLost(node) => {
                format!("The node {node} that ran it is gone. Whether it had carried the request out, nobody can tell.")
                    .into()
            }
            Self::NodeRefused(node, why) => format!("The node {node} that runs it could not be reached: {why}.").into(),
            Self::Misdirected => "The node that was asked does not run it.".into(),
            Self::Refused(why) => format!("No instance could be reached: {why}.").into(),
            Self::NotAccepted => "No instance accepted a connection in time.".into(),
            Self::Broken(why) => format!("The instance broke off: {why}.").into(),
            Self::TooSlow(after) => format!("The instance sent no answer within {} s.", after.as_secs_f32()).into(),
            Self::ClientTooSlow => "The instance waited for the rest of the request's body.".into(),
            Self::ClientBroke => "The request's body ended early or was malformed.".into(),
            Self::BadUpgrade => {
                "An upgrade to WebSocket is a GET over HTTP/1.1 with \"Connection: upgrade\" and without a body.".into()
            }
            Self::MethodRefused => "CONNECT and TRACE end at the router.".into(),
            Self::Inexpressible => "The message could not be passed on.".into(),
            Self::Busy(limit) => {
                format!("It serves {limit} requests, as many as it may. Try again in a moment.").into()
            }
            Self::Crowded(limit) => {
                format!("Your address has {limit} requests under way, as many as it may. End one, then try again.")
                    .into()
            }
            Self::RateLimited(_) => "Your address asks too often for apps that do not exist.".into(),
        }
    }

    /// In seconds.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::NoInstance(RouteState::Stopped | RouteState::NoRelease) => Some(60),
            Self::NoInstance(RouteState::Moving) | Self::NodeGone(_) | Self::NodeRefused(..) => Some(2),
            Self::NoInstance(_) | Self::Crowded(_) => Some(5),
            Self::Busy(_) => Some(1),
            Self::RateLimited(wait) => Some(problem::seconds(*wait)),
            _ => None,
        }
    }

    pub fn page(&self, visitor: &Visitor<'_>) -> Response<ResponseBody> {
        let (content_type, page) = if wants_json(visitor.head) {
            ("application/problem+json", self.problem(visitor))
        } else {
            ("text/html; charset=utf-8", self.html(visitor))
        };
        let mut response = Response::with_body(self.status(), ());
        let head = response.head_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, content_type),
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
        ] {
            head.headers.insert(name, HeaderValue::from_static(value));
        }
        if let Some(seconds) = self.retry_after() {
            head.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Ok(id) = HeaderValue::from_str(visitor.request_id) {
            head.headers.insert(HeaderName::from_static(headers::REQUEST_ID), id);
        }
        let mark = match self {
            Self::Misdirected => Some(hop::MISDIRECTED),
            Self::NoInstance(_) if visitor.forwarded => Some(hop::NO_INSTANCE),
            _ => None,
        };
        if let Some(mark) = mark {
            head.headers.insert(HeaderName::from_static(mark), HeaderValue::from_static("1"));
        }
        let upgrade =
            visitor.head.connection_type() == ConnectionType::Upgrade || headers::names_websocket(visitor.head);
        if upgrade || matches!(self, Self::ClientBroke | Self::ClientTooSlow | Self::MethodRefused) {
            head.set_connection_type(ConnectionType::Close);
        }
        if visitor.head.version < Version::HTTP_11 {
            head.no_chunking(true);
        }
        response.set_body(match visitor.head.method {
            Method::HEAD => ResponseBody::Empty(BodySize::Sized(page.len() as u64)),
            _ => ResponseBody::Page(Bytes::from(page)),
        })
    }

    fn problem(&self, visitor: &Visitor<'_>) -> String {
        serde_json::json!({
            "type": "about:blank",
            "title": self.title(),
            "status": self.status().as_u16(),
            "detail": self.reason(),
            "code": self.code(),
            "app": visitor.app,
            "request_id": visitor.request_id,
        })
        .to_string()
    }

    fn html(&self, visitor: &Visitor<'_>) -> String {
        let (status, title, reason) = (self.status(), self.title(), escape(&self.reason()));
        let (number, app, request_id) = (status.as_u16(), escape(visitor.app), escape(visitor.request_id));
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{number} · {title}</title>\
             <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;\
             color:#222;background:#fff}}h1{{font-size:1.5rem}}small{{color:#666}}\
             @media(prefers-color-scheme:dark){{body{{color:#ddd;background:#181818}}small{{color:#999}}}}</style>\
             <h1>{title}</h1><p><strong>{app}</strong>: {reason}</p>\
             <p><small>{status} · request {request_id}</small></p></html>\n"
        )
    }
}

fn wants_json(head: &RequestHead) -> bool {
    let accept = head.headers.get_all(header::ACCEPT).filter_map(|value| value.to_str().ok());
    let (mut json, mut html) = (false, false);
    for range in accept.flat_map(|value| value.split(',')) {
        let range = range.split(';').next().unwrap_or_default().trim();
        json |= matches!(range, "application/json" | "application/problem+json");
        html |= range == "text/html";
    }
    json && !html
}

/// Escapes the name of the app, which is the client's input.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
        escaped
    })
}
