//! The identity of a request's work through every thread and node: its correlation id, for the log, and its span, for
//! exporters of traces.
//!
//! The correlation id is always there, because it costs two writes to a thread-local cell. Spans exist only while they
//! are collected: by an exporter of traces, or the log at `callboard::operation=debug`.

use std::{cell::Cell, fmt};

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId as OtelTraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

/// The target of the spans of HTTP requests.
pub const REQUEST: &str = "callboard::request";
/// The target of the spans of SQL statements.
pub const SQL: &str = "callboard::sql";

thread_local! {
    static CURRENT: Cell<Option<Scope>> = const { Cell::new(None) };
}

/// The identity of the work that this thread does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// One id from the first request through every hop.
    pub correlation_id: Uuid,
    /// The operation that is handled; its first word is the domain.
    pub operation: &'static str,
    /// The trace, while traces are collected.
    pub trace_id: Option<TraceId>,
}

/// The id of a trace (W3C Trace Context); displayed as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(u128);

impl TraceId {
    /// The same 128 bits as a correlation id.
    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        Uuid::from_u128(self.0)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Scope {
    /// The scope of an operation, with the trace of `span`.
    #[inline]
    #[must_use]
    pub fn new(correlation_id: Uuid, operation: &'static str, span: &Span) -> Self {
        Self { correlation_id, operation, trace_id: trace_id(span) }
    }

    /// The domain that the operation belongs to.
    #[must_use]
    pub fn domain(&self) -> &'static str {
        self.operation.split('.').next().unwrap_or_default()
    }

    /// Enters the scope on this thread until the guard is dropped.
    #[inline]
    #[must_use = "the scope ends with the guard"]
    pub fn enter(self) -> Entered {
        Entered { before: CURRENT.replace(Some(self)) }
    }

    /// Runs `future` within this scope.
    pub async fn run<F: Future>(self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            let _entered = self.enter();
            future.as_mut().poll(cx)
        })
        .await
    }
}

/// The current scope of this thread.
#[must_use]
pub fn current() -> Option<Scope> {
    CURRENT.get()
}

/// Restores the scope before when it is dropped.
#[derive(Debug)]
pub struct Entered {
    before: Option<Scope>,
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// The trace that `span` belongs to, if it is collected.
#[must_use]
pub fn trace_id(span: &Span) -> Option<TraceId> {
    if span.is_disabled() {
        return None;
    }
    let context = span_context(span)?;
    Some(TraceId(u128::from_be_bytes(context.trace_id().to_bytes())))
}

/// The current span as a `traceparent` (W3C Trace Context, version 00), if it is collected.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    traceparent(&Span::current())
}

/// Any span as a `traceparent`.
#[must_use]
pub fn traceparent(span: &Span) -> Option<String> {
    let context = span_context(span)?;
    let sampled = context.trace_flags().is_sampled();
    Some(format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), u8::from(sampled)))
}

/// Makes `span` a child of the one that `traceparent` names. Does nothing when no spans are collected, or when the text
/// is no `traceparent`: it comes from a client, and an invalid one is ignored. To be called before the span is entered.
pub fn set_parent(span: &Span, traceparent: &str) {
    if span.is_disabled() {
        return;
    }
    if let Some(parent) = parse(traceparent) {
        let parent = opentelemetry::Context::new().with_remote_span_context(parent);
        // Fails for a span that is not exported, or that has begun and has a parent already.
        drop(span.set_parent(parent));
    }
}

/// The trace that a `traceparent` names.
#[must_use]
pub fn trace_of(traceparent: &str) -> Option<TraceId> {
    parse(traceparent).map(|context| TraceId(u128::from_be_bytes(context.trace_id().to_bytes())))
}

fn span_context(span: &Span) -> Option<SpanContext> {
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then_some(context)
}

/// A later version may have more fields; those that are known mean the same.
fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.trim().split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let lengths = [version.len(), trace.len(), parent.len(), flags.len()] == [2, 32, 16, 2];
    let complete = lengths && [version, trace, parent, flags].into_iter().all(is_hex);
    if !complete || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & TraceFlags::SAMPLED.to_u8());
    let (trace, parent) = (OtelTraceId::from_hex(trace).ok()?, SpanId::from_hex(parent).ok()?);
    let context = SpanContext::new(trace, parent, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_taken_when_it_is_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(parse(good).unwrap().is_sampled());
        assert!(!parse(&good.replace("-01", "-00")).unwrap().is_sampled());
        assert_eq!(trace_of(good).unwrap().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later").is_some());
        for bad in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "hello",
            "",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_scope_ends_with_its_guard() {
        let scope = |operation| Scope { correlation_id: Uuid::nil(), operation, trace_id: None };
        assert_eq!(current(), None);
        let outer = scope("a.b").enter();
        {
            let _inner = scope("project.create").enter();
            assert_eq!(current().unwrap().domain(), "project");
        }
        assert_eq!(current(), Some(scope("a.b")));
        drop(outer);
        assert_eq!(current(), None);
    }

    #[test]
    fn nobody_pays_for_spans_that_nobody_wants() {
        set_parent(&Span::none(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!((current_traceparent(), trace_id(&Span::none())), (None, None));
    }
}
