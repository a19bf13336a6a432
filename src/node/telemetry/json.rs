//! The log as JSON, one document a line.
//!
//! Every line says which node wrote it. A line that belongs to a request or to other work of an operation also has the
//! correlation id, the operation with its domain, and, while traces are collected, the trace.

use std::fmt;

use callboard_deploy::logs::terminal::escape_json;
use callboard_supervisors::trace;
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// The format of one node's lines.
pub struct Format {
    node: String,
}

impl Format {
    /// With the node's name.
    pub fn new(node: &str) -> Self {
        Self { node: node.to_owned() }
    }

    fn line(&self, event: &Event<'_>) -> Result<Map<String, Value>, fmt::Error> {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Map::new();
        let mut say = |name: &str, value: String| line.insert(name.to_owned(), Value::String(value));
        say("timestamp", time);
        say("level", event.metadata().level().as_str().to_lowercase());
        say("target", event.metadata().target().to_owned());
        say("node", self.node.clone());
        if let Some(scope) = trace::current() {
            say("correlation_id", scope.correlation_id.to_string());
            say("operation", scope.operation.to_owned());
            say("domain", scope.domain().to_owned());
            if let Some(trace_id) = scope.trace_id {
                say("trace_id", trace_id.to_string());
            }
        }
        event.record(&mut Fields(&mut line));
        Ok(line)
    }
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        writeln!(writer, "{}", escape_json(Value::Object(self.line(event)?).to_string()))
    }
}

/// The fields of an event beside those of every line, none of which it replaces: an event's own `level` is no level of
/// the log.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        let taken = matches!(field.name(), "timestamp" | "level" | "target" | "node");
        let name = if taken { format!("field_{}", field.name()) } else { field.name().to_owned() };
        self.0.insert(name, value);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use callboard_supervisors::trace::Scope;
    use uuid::Uuid;

    use super::super::tests::logged;

    #[test]
    fn a_line_names_the_node_and_the_work_it_belongs_to() {
        let id = Uuid::now_v7();
        let lines = logged("info", vec![], || {
            tracing::info!(attempt = 3, "outside");
            let _scope = Scope { correlation_id: id, operation: "project.create", trace_id: None }.enter();
            tracing::warn!(error = %"it \"broke\"\nhere", level = "own", "inside");
        });
        assert_eq!((&lines[0]["message"], &lines[0]["attempt"]), (&"outside".into(), &3.into()));
        assert_eq!((&lines[0]["node"], &lines[0]["level"]), (&"node-a".into(), &"info".into()));
        assert!(lines[0].get("correlation_id").is_none());
        assert_eq!(lines[1]["correlation_id"], id.to_string());
        assert_eq!((&lines[1]["operation"], &lines[1]["domain"]), (&"project.create".into(), &"project".into()));
        assert_eq!((&lines[1]["error"], &lines[1]["level"]), (&"it \"broke\"\nhere".into(), &"warn".into()));
        assert_eq!(lines[1]["field_level"], "own");
    }
}
