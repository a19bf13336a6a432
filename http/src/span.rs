//! The root span of a request: made by `tracing-actix-web`, which keeps it open until the last byte of the answer.

use actix_web::{
    Error, HttpMessage, HttpRequest,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
};
use callboard_supervisors::trace;
use tracing::{Span, field};
use tracing_actix_web::{RootSpan, RootSpanBuilder};

use crate::{headers, problem::Problem, table::Found};

/// The route of a request, found before its span is made: the name of a span can't be set later.
pub(crate) struct Routed(pub(crate) Result<Found, Problem>);

/// Makes a span within the client's trace, for every request with a route. It has neither path nor query as the client
/// wrote them, as a query may hold a token; the default span of the crate has both.
pub(crate) struct RequestSpan;

impl RootSpanBuilder for RequestSpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        let extensions = request.extensions();
        let Some(Routed(Ok(found))) = extensions.get::<Routed>() else { return Span::none() };
        let route = &found.line.route;
        let span = tracing::debug_span!(
            target: trace::REQUEST,
            "request",
            otel.name = %format_args!("{} {}", request.method(), route.path),
            otel.kind = "server",
            otel.status_code = field::Empty,
            operation = route.endpoint.operation,
            request_id = field::Empty,
            http.request.method = request.method().as_str(),
            http.route = %route.path,
            http.response.status_code = field::Empty,
        );
        if !span.is_disabled()
            && let Some(traceparent) = headers::traceparent(request.headers())
        {
            trace::set_parent(&span, traceparent);
        }
        span
    }

    fn on_request_end<B: MessageBody>(span: Span, outcome: &Result<ServiceResponse<B>, Error>) {
        let status = match outcome {
            Ok(response) => response.status(),
            Err(error) => error.as_response_error().status_code(),
        };
        span.record("http.response.status_code", status.as_u16());
        if status.is_server_error() {
            span.record("otel.status_code", "ERROR");
        }
    }
}

/// The span of this request.
pub(crate) fn of(http: &HttpRequest) -> Span {
    http.extensions().get::<RootSpan>().cloned().map_or_else(Span::none, Span::from)
}
