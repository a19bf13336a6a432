//! One trace from the caller to the handler, whichever thread that runs on.

use std::sync::Arc;

use callboard_messages::Caller;
use parking_lot::Mutex;
use tracing::{Instrument, Subscriber, span};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::LookupSpan};

use super::fixture::*;
use crate::Bulkhead;

/// The name of a span, and that of its parent.
type Named = (String, Option<String>);

/// The span of the request and those below it, without those of other tests in the process.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Named>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, _: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let parent = span.parent().map(|parent| parent.name().to_owned());
        if span.name() == "request" || parent.as_deref() == Some("request") {
            self.0.lock().push((span.name().to_owned(), parent));
        }
    }
}

#[actix_rt::test]
async fn a_handler_s_span_is_a_child_of_its_caller_s_on_every_thread() {
    let spans = Spans::default();
    let filter = tracing_subscriber::filter::Targets::new()
        .with_target("callboard::operation", tracing::Level::DEBUG)
        .with_target("test", tracing::Level::INFO);
    tracing_subscriber::registry().with(spans.clone().with_filter(filter)).init();
    for dedicated in [false, true] {
        let watch = Watch::default();
        let bulkhead = Bulkhead { in_flight: 1, ..Bulkhead::default() };
        let domain = if dedicated { dedicated_sample(bulkhead, 1, &watch) } else { sample(bulkhead, &watch) };
        let (runtime, bus, _) = node(vec![domain.build()]).await;
        let caller = Caller::anonymous();
        // The second one waits in the queue.
        let both = async {
            let first = bus.ask(&caller, perform(Act::Yield(1)));
            let second = bus.ask(&caller, perform(Act::Yield(2)));
            futures_util::future::join(first, second).await
        };
        let outcomes = both.instrument(tracing::info_span!(target: "test", "request")).await;
        assert_eq!(outcomes, (Ok(1), Ok(2)));
        let expected = |name: &str, parent: Option<&str>| -> Named { (name.to_owned(), parent.map(str::to_owned)) };
        let operation = || expected("operation", Some("request"));
        assert_eq!(std::mem::take(&mut *spans.0.lock()), [expected("request", None), operation(), operation()]);
        runtime.stop(std::time::Duration::from_secs(1)).await;
    }
}
