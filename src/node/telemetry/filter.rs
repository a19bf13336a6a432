//! What the log and the traces let pass.
//!
//! Between a question to the filters and the event that it is about, the answers stay in a variable of the thread. A
//! library that asks through the `log` crate whether it should speak, and then does not, leaves its answers behind: sqlx
//! does so with each statement. An event that every filter has promised to let pass always is not asked about, so it
//! would be judged by what was left behind, and be lost (tokio-rs/tracing issue 2519). So nothing is promised here: each
//! event and each span brings answers of its own.

use tracing::{
    Event, Metadata,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};
use tracing_subscriber::layer::{Context, Filter};

/// A filter that is asked each time, unless it lets something pass never.
pub struct AskedEachTime<F>(pub F);

impl<S, F: Filter<S>> Filter<S> for AskedEachTime<F> {
    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let interest = self.0.callsite_enabled(metadata);
        if interest.is_always() { Interest::sometimes() } else { interest }
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        self.0.enabled(metadata, context)
    }

    fn event_enabled(&self, event: &Event<'_>, context: &Context<'_, S>) -> bool {
        self.0.event_enabled(event, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.0.max_level_hint()
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.0.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.0.on_record(id, values, context);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.0.on_enter(id, context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.0.on_exit(id, context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.0.on_close(id, context);
    }
}
